"""The devkit's classes of the validation images are those that torchvision's reader finds."""

import hashlib
import tarfile
from pathlib import Path

import pytest

from adarem.data.images.devkit import ARCHIVE, SIZES, check_md5, devkit_places, read_devkit
from adarem.run.errors import UserError
from tests.support.imagenet_archives import devkit_files, val_images, write_devkit
from tests.support.imagenet_tree import make_imagenet_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    make_imagenet_tree(root, classes=6, train_per_class=1, val_per_class=3, distinct=2)
    return root


def test_classes_of_the_images(tree: Path, tmp_path: Path) -> None:
    write_devkit(tree, tmp_path)
    (place,) = devkit_places(tmp_path)
    truth = read_devkit(place)
    assert {p.stem: truth[p.stem] for p in val_images(tree).values()} == {
        p.stem: p.parent.name for p in val_images(tree).values()
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == [ARCHIVE]  # nothing is unpacked


def test_torchvisions_reader_finds_the_same(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import imagenet as theirs

    write_devkit(tree, tmp_path)
    ours = list(read_devkit(tmp_path / ARCHIVE).values())
    checksum = hashlib.md5((tmp_path / ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setitem(theirs.ARCHIVE_META, "devkit", (ARCHIVE, checksum))
    theirs.parse_devkit_archive(tmp_path)
    assert theirs.load_meta_file(tmp_path)[1] == ours


def test_a_number_that_is_no_class(tree: Path, tmp_path: Path) -> None:
    """1001 and above are nodes of the tree above the classes; here 7."""
    files = devkit_files(tree)
    (tmp_path / "meta.mat").write_bytes(files["meta.mat"])
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n7\n")
    with pytest.raises(
        UserError, match=r"line 2 of ILSVRC2012_validation_ground_truth.txt is '7', no class of meta.mat"
    ):
        read_devkit(tmp_path)


def test_the_md5_sum_of_an_archive_of_the_right_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import imagenet as theirs

    path = tmp_path / "ILSVRC2012_img_val.tar"
    path.write_bytes(b"archive")
    check_md5(path)  # of another size: another archive
    monkeypatch.setitem(SIZES, path.name, 7)
    with pytest.raises(
        UserError, match=r"img_val.tar: MD5 sum 888d0ee3.*, image-net.org's has 29b22e29.*; it is damaged"
    ):
        check_md5(path)
    monkeypatch.setitem(theirs.ARCHIVE_META, "val", (path.name, hashlib.md5(b"archive").hexdigest()))
    check_md5(path)


# Bytes and their new values, at which scipy 1.17.1 ends the process with a segmentation fault.
DAMAGES = [{2473: 242, 2562: 33}, {1544: 53, 110: 67}, {2289: 134, 497: 237}]


def test_a_damaged_file_does_not_end_the_process(tmp_path: Path) -> None:
    tree, kit = tmp_path / "tree", tmp_path / "kit"
    make_imagenet_tree(tree, classes=3, train_per_class=1, val_per_class=1, distinct=1, oddities=False)
    kit.mkdir()
    for name, payload in devkit_files(tree).items():
        (kit / name).write_bytes(payload)
    complete = (kit / "meta.mat").read_bytes()
    for damage in DAMAGES:
        damaged = bytearray(complete)
        for place, value in damage.items():
            damaged[place] = value
        (kit / "meta.mat").write_bytes(damaged)
        with pytest.raises(UserError, match="kit: its meta.mat cannot be read") as error:
            read_devkit(kit)
        assert "\n" not in str(error.value)


def test_members_are_not_followed(tmp_path: Path) -> None:
    """A link in the archive to a file outside is no meta.mat."""
    with tarfile.open(tmp_path / ARCHIVE, "w:gz") as tar:
        link = tarfile.TarInfo("data/meta.mat")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(UserError, match="holds no meta.mat and no ILSVRC2012_validation_ground_truth.txt"):
        read_devkit(tmp_path / ARCHIVE)
