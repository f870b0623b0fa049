"""ImageNet's archives, Kaggle's, and mixtures of them are the same source as the unpacked folders."""

import re
import zipfile
from pathlib import Path

import pytest

from adarem.data import fingerprint
from adarem.data.images import devkit, imagenet
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support.imagenet_archives import (
    LAYOUTS,
    classes_of,
    tar_of,
    val_images,
    write_devkit,
    write_kaggle_folder,
    write_kaggle_zip,
    write_val_tar,
)
from tests.support.imagenet_tree import make_imagenet_tree
from tests.support.photos import data_config

CLASSES = 5


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    make_imagenet_tree(root, classes=CLASSES, train_per_class=4, val_per_class=3, distinct=6)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "down loads"
    made.mkdir()
    return made


def config(root: Path, **changes: object):
    return data_config(root, num_classes=CLASSES, write=WriteConfig("proportion", 300, 90, 0.5), **changes)


@pytest.fixture(scope="module")
def unpacked(tree: Path) -> dict:
    return prepare(config(tree), workers=1, progress=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_fingerprint_as_from_folders(layout: str, tree: Path, root: Path, unpacked: dict, capsys) -> None:
    LAYOUTS[layout](tree, root)
    before = sorted(p.name for p in root.iterdir())
    data = config(root)
    made = prepare(data, workers=2 if "zip" in layout or "org" in layout else 1, progress=False)
    assert made == unpacked
    for split in ("train", "val"):
        listing = fingerprint.files_path(data, split).read_bytes()
        assert listing == fingerprint.files_path(config(tree), split).read_bytes()
    assert prepare(data, workers=1, verify=True, progress=False) == unpacked
    assert "left out" not in capsys.readouterr().err
    assert sorted(p.name for p in root.iterdir() if p.name != "ffcv") == before  # nothing is unpacked there


def test_kaggles_inner_folder_as_root_finds_the_table_above_it(tree: Path, root: Path, unpacked: dict) -> None:
    write_kaggle_folder(tree, root)
    inner = root / "ILSVRC" / "Data" / "CLS-LOC"
    assert prepare(config(inner), workers=1, progress=False) == unpacked


def test_the_archives_may_go_after_writing(tree: Path, root: Path, unpacked: dict, capsys) -> None:
    LAYOUTS["image-net.org"](tree, root)
    prepare(config(root), workers=1, progress=False)
    for path in root.glob("ILSVRC*"):
        path.unlink()
    assert prepare(config(root), workers=1, verify=True, progress=False) == unpacked
    assert "source is not there any more" in capsys.readouterr().err


def test_left_overs_and_other_files_in_archives_are_counted_as_in_folders(tree: Path, root: Path, unpacked, capsys):
    first = classes_of(tree)[0]
    extra = [("._x.JPEG", b"1"), (".DS_Store", b"2"), ("notes.txt", b"3"), ("__MACOSX/a.JPEG", b"4")]
    inner = [
        (
            f"{w}.tar",
            tar_of([*((p.name, p.read_bytes()) for p in (tree / "train" / w).iterdir()), *extra * (w == first)]),
        )
        for w in classes_of(tree)
    ]
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of([*inner, ("._n01440764.tar", b"5"), ("readme", b"6")]))
    write_val_tar(tree, root)
    write_devkit(tree, root)
    assert prepare(config(root), workers=1, progress=False) == unpacked
    assert capsys.readouterr().err == (
        f"{root}/ILSVRC2012_img_train.tar: 4 files or folders that programs leave behind are left out: "
        f"._n01440764.tar, {first}/.DS_Store, {first}/._x.JPEG and 1 more\n"
        f"{root}/ILSVRC2012_img_train.tar: 2 files or folders that are no image of a class, by place and name, "
        f"are left out: {first}/notes.txt, readme\n"
    )


def test_of_two_members_with_one_name_the_last_counts(tree: Path, root: Path, unpacked: dict) -> None:
    LAYOUTS["image-net.org"](tree, root)
    name, path = next(iter(val_images(tree).items()))
    files = [(name, b"an older one"), *((n, p.read_bytes()) for n, p in val_images(tree).items())]
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(files))
    assert prepare(config(root), workers=1, progress=False)["val"] == unpacked["val"]


def test_bad_images_in_an_archive_are_named_and_can_be_skipped(tree: Path, root: Path, capsys) -> None:
    LAYOUTS["image-net.org"](tree, root)
    files = [(n, p.read_bytes()) for n, p in sorted(val_images(tree).items())]
    files[2] = (files[2][0], files[2][1][:700])
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(files))
    wnid = val_images(tree)[files[2][0]].parent.name
    with pytest.raises(UserError, match=f"img_val.tar: 1 of 15 images cannot be read: {wnid}/{files[2][0]} "):
        prepare(config(root), workers=1, progress=False)
    made = prepare(config(root), workers=1, progress=False, skip_bad=True)
    assert made["val"]["skipped"] == [f"{wnid}/{files[2][0]}"]


def test_a_zip_members_checksum_is_compared(tree: Path, root: Path) -> None:
    write_kaggle_zip(tree, root, zipfile.ZIP_STORED)
    path = root / imagenet.ZIP
    with zipfile.ZipFile(path) as archive:
        member = next(i for i in archive.infolist() if i.filename.endswith(".JPEG") and "/train/" in i.filename)
    with open(path, "r+b") as f:
        f.seek(member.header_offset + 30 + len(member.filename) + 200)
        f.write(b"\x55\xaa")
    with pytest.raises(UserError, match=r"1 of 20 images cannot be read: .*\(checksum in .*challenge.zip differs\)"):
        prepare(config(root), workers=1, progress=False)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share) // 512 * 512])


def edit_text(path: Path, old: str, new: str) -> None:
    path.write_text(re.sub(old, new, path.read_text(), count=1))


TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"


@pytest.mark.parametrize(
    ("layout", "damage", "message"),
    [
        (
            "image-net.org",
            lambda r: (r / TRAIN).unlink(),
            f"train: no such folder; .*{TRAIN} from https://image-net.org",
        ),
        ("image-net.org", lambda r: (r / VAL).unlink(), rf"val: no such folder; .*{VAL} from .*`kaggle .* -p .*`"),
        ("image-net.org", lambda r: (r / DEVKIT).unlink(), f"{VAL}: 15 images without class folders, .* put {DEVKIT}"),
        ("flat val, devkit", lambda r: (r / DEVKIT).unlink(), f"val: 15 images without class folders, .* put {DEVKIT}"),
        ("Kaggle folder", lambda r: (r / "LOC_val_solution.csv").unlink(), "or LOC_val_solution.csv from `kaggle "),
        ("image-net.org", lambda r: cut(r / TRAIN, 0.6), f"{TRAIN}.*: ends too early"),
        ("image-net.org", lambda r: cut(r / VAL, 0.6), f"{VAL}: ends too early"),
        ("image-net.org", lambda r: cut(r / DEVKIT, 0.6), f"{DEVKIT}: ends too early or is damaged"),
        ("image-net.org", lambda r: (r / DEVKIT).write_bytes(b"<html>"), f"{DEVKIT}: ends too early or is damaged"),
        ("image-net.org", lambda r: (r / TRAIN).write_bytes(b"<html>" * 999), f"{TRAIN}: ends too early or is damaged"),
        ("image-net.org", lambda r: (r / TRAIN).write_bytes(b""), f"{TRAIN}: ends too early"),
        ("Kaggle zip", lambda r: cut(r / imagenet.ZIP, 0.6), "challenge.zip: ends too early or is no zip archive"),
        (
            "flat val, devkit unpacked",
            lambda r: (r / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").unlink(),
            f"data: holds no meta.mat; get {DEVKIT} again",
        ),
        (
            "flat val, devkit unpacked",
            lambda r: (r / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").write_bytes(b"MATLAB 5.0" * 30),
            "data: its meta.mat cannot be read",
        ),
        (
            "Kaggle folder",
            lambda r: edit_text(r / "LOC_val_solution.csv", ",n", ",../x"),
            "line 2 names no class, '../x.*' is none",
        ),
        (
            "Kaggle folder",
            lambda r: edit_text(r / "LOC_val_solution.csv", "\nILSVRC.*", ""),
            "LOC_val_solution.csv has no class of ILSVRC2012_val_",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_one_line(layout, damage, message, tree: Path, root: Path) -> None:
    LAYOUTS[layout](tree, root)
    damage(root)
    with pytest.raises(UserError, match=message) as error:
        prepare(config(root), workers=1, progress=False)
    assert "\n" not in str(error.value)
    assert not list(root.glob("ffcv/*.beton*"))


def test_verify_compares_the_md5_sums_of_image_net_orgs_archives(tree: Path, root: Path, monkeypatch) -> None:
    LAYOUTS["image-net.org"](tree, root)
    prepare(config(root), workers=1, progress=False)
    monkeypatch.setitem(devkit.SIZES, VAL, (root / VAL).stat().st_size)
    with pytest.raises(UserError, match=f"{VAL}: MD5 sum "):
        prepare(config(root), workers=1, verify=True, progress=False)


def test_kaggles_other_forms_are_unpacked_by_hand(tree: Path, root: Path) -> None:
    (root / "imagenet_object_localization_patched2019.tar.gz").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"patched2019.tar.gz: compressed; unpack it: `tar -xzf '.*' -C '.*/down loads'`"
    ):
        prepare(config(root), workers=1, progress=False)
    (root / "imagenet_object_localization_patched2019.tar.gz").unlink()
    with zipfile.ZipFile(root / imagenet.ZIP, "w") as archive:
        archive.writestr("imagenet_object_localization_patched2019.tar.gz", b"")
    with pytest.raises(
        UserError, match=r"holds no ILSVRC/Data/CLS-LOC/train/; unpack it: `unzip '.*' -d '.*/down loads'`"
    ):
        prepare(config(root), workers=1, progress=False)


def test_the_backend_folder_says_what_to_do_with_archives(tree: Path, root: Path) -> None:
    LAYOUTS["train unpacked, val a tar"](tree, root)
    with pytest.raises(UserError, match=r"data.backend=folder: .*img_val.tar.*; set data.backend=ffcv, or unpack"):
        prepare(config(root, backend="folder"), workers=1, progress=False)
    flat = root / "flat"
    flat.mkdir()
    LAYOUTS["flat val, devkit"](tree, flat)
    with pytest.raises(UserError, match=r"data.backend=folder: .*flat/val.*; set data.backend=ffcv, or"):
        prepare(config(flat, backend="folder"), workers=1, progress=False)
