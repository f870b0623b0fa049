"""The source: its layout, its names and the files that cannot be read."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adarem.data.loaders import open_eval, open_train
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support.imagenet_tree import make_imagenet_tree, photograph
from tests.support.photos import TRAIN, data_config, file_states


def test_links_to_nowhere_are_among_the_bad_files(photo_root):
    files = sorted((photo_root / "train").glob("*/*"))
    files[3].unlink()
    files[3].symlink_to("nowhere.JPEG")
    files[4].unlink()
    files[4].symlink_to(files[4].name)
    files[20].write_bytes(b"")
    data = data_config(photo_root)
    with pytest.raises(UserError, match="3 of 61 images cannot be read") as error:
        prepare(data, workers=1, progress=False)
    assert f"{files[3].name} (no such file); " in str(error.value)
    assert f"{files[4].name} (Too many levels of symbolic links); " in str(error.value)
    made = prepare(data, workers=1, progress=False, skip_bad=True)
    assert made["train"]["num_images"] == TRAIN - 3
    assert prepare(data, workers=1, progress=False, verify=True) == made


@pytest.mark.parametrize("name", ["a\nb.JPEG", os.fsdecode(b"\xff.JPEG")])
def test_names_that_no_list_can_hold(photo_root, name):
    (sorted((photo_root / "train").iterdir())[0] / name).write_bytes(b"")
    with pytest.raises(UserError, match="a name with a line feed, or not in UTF-8; rename it"):
        prepare(data_config(photo_root), workers=1, progress=False)


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_bad_files_are_listed_together(photo_root, backend):
    files = sorted((photo_root / "train").glob("*/*"))
    files[3].write_bytes(b"")
    files[20].write_bytes(files[20].read_bytes()[:900])
    files[21].write_text("<html>404</html>")
    files[60].write_bytes(np.random.default_rng(0).bytes(3000))
    data = data_config(photo_root, backend=backend)
    with pytest.raises(UserError, match="4 of 61 images cannot be read") as error:
        prepare(data, workers=2, progress=False)
    text = str(error.value)
    assert "\n" not in text and f"{files[3].parent.name}/{files[3].name} (empty file)" in text and "and 1 more" in text
    listed = (photo_root / "ffcv" / "train.bad.txt").read_text().splitlines()
    assert [line.split(" ")[0] for line in listed] == [
        f"{files[k].parent.name}/{files[k].name}" for k in (3, 20, 21, 60)
    ]
    assert not list((photo_root / "ffcv").glob("*.beton*")) and not list((photo_root / "ffcv").glob("*.json"))


def test_a_tree_of_imagenets_shape(tmp_path):
    """1,000 classes, names and sizes like the real ones, oddities included."""
    make_imagenet_tree(tmp_path, classes=1000, train_per_class=1, val_per_class=1, distinct=16)
    data = data_config(tmp_path, num_classes=1000, write=WriteConfig("jpg", 128, 80, 0.5))
    prints = prepare(data, workers=2, progress=False)
    assert (prints["train"]["num_images"], prints["val"]["num_images"]) == (1000, 1000)
    assert prints["train"]["classes"] == sorted(p.name for p in (tmp_path / "train").iterdir())
    train = open_train(data, global_batch_size=500, seed=0, rank=0, world_size=1, device="cpu")
    labels = np.concatenate([y.numpy() for _, y in train.epoch(0)])
    assert np.bincount(labels).tolist() == [1] * 1000
    val = open_eval(data, batch_size=300, rank=0, world_size=1, device="cpu")
    assert np.concatenate([y.numpy() for _, _, y in val]).tolist() == list(range(1000))


def remove_class(root: Path, *splits: str) -> None:
    for split in splits:
        shutil.rmtree(sorted((root / split).iterdir())[0])


def empty_class(root: Path) -> None:
    for path in sorted((root / "val").iterdir())[0].iterdir():
        path.unlink()


def empty_split(root: Path) -> None:
    for path in (root / "train").iterdir():
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: shutil.rmtree(r / "val"), "val: no such folder; data.root needs"),
        (shutil.rmtree, "train: no such folder; data.root needs"),
        (empty_split, "train: holds no class folders"),
        (empty_class, "val: no images in 1 classes: n01440764"),
        (lambda r: remove_class(r, "val"), "train: 1 classes are in one of train and val only"),
        (lambda r: remove_class(r, "train", "val"), "holds 6 classes, data.num_classes is 7"),
        (lambda r: (sorted((r / "train").iterdir())[2] / "more").mkdir(), "more: a folder inside a class folder"),
    ],
)
def test_wrong_layout_is_one_line(photo_root, damage, message):
    damage(photo_root)
    data = data_config(photo_root, beton_dir=str(photo_root.parent / "out"))
    with pytest.raises(UserError, match=message) as error:
        prepare(data, workers=1, progress=False)
    assert "\n" not in str(error.value)


JUNK = (".DS_Store", "._cat.JPEG", "Thumbs.db", "desktop.ini", ".nfs0000000000a", "x.JPEG.part", "y.jpg~")


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_what_programs_leave_behind_is_left_out_and_counted(photo_root, backend, capsys):
    data = data_config(photo_root, backend=backend)
    clean = prepare(data, workers=1, progress=False)
    capsys.readouterr()
    a_class = sorted((photo_root / "train").iterdir())[2]
    image = sorted(a_class.iterdir())[0]
    for folder in (photo_root, photo_root / "train", a_class):
        for name in JUNK:
            (folder / name).write_bytes(image.read_bytes())
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "#recycle", "lost+found", ".Trash-1000"):
            (folder / name).mkdir()
            shutil.copy(image, folder / name / "copy.JPEG")
    states = file_states(photo_root / "ffcv")
    assert prepare(data, workers=1, verify=True, progress=False) == clean
    assert file_states(photo_root / "ffcv") == states  # nothing is written anew
    said = capsys.readouterr().err
    assert said == (
        f"{photo_root}/train: 26 files or folders that programs leave behind are left out: #recycle, .DS_Store, "
        ".Trash-1000 and 23 more\n"
    )


def test_what_is_no_image_is_left_out_and_named(photo_root, capsys):
    a_class = sorted((photo_root / "val").iterdir())[0]
    (a_class / "notes.txt").write_text("")
    (a_class / ".JPEG").write_text("")
    (photo_root / "val" / "labels.csv").write_text("")
    shutil.copy(sorted(a_class.glob("*.JPEG"))[0], photo_root / "val" / "loose.JPEG")
    (photo_root / "val" / ".hidden").mkdir()
    prepare(data_config(photo_root), workers=1, progress=False)
    assert capsys.readouterr().err == (
        f"{photo_root}/val: 5 files or folders that are no image of a class, by place and name, are left out: "
        f".hidden/, labels.csv, loose.JPEG and 2 more\n"
    )


def test_pillows_warnings_carry_the_names_of_the_files(photo_root, capsys):
    files = sorted((photo_root / "train").glob("*/*"))
    palette = Image.fromarray(photograph(40, 30, seed=1)).quantize(16)
    for file in files[4:11]:
        palette.save(file, "PNG", transparency=bytes(range(5)))
    data = data_config(photo_root)
    prepare(data, workers=2, progress=False)
    names = [f"{f.parent.name}/{f.name}" for f in files[4:7]]
    said = capsys.readouterr().err
    why = "(Palette images with Transparency expressed in bytes should be converted to RGBA images)"
    assert said == (
        f"{photo_root}/train: Pillow warns about 7 images: {'; '.join(f'{n} {why}' for n in names)} and 4 more\n"
    )


def test_a_decompression_bomb_is_a_bad_file(photo_root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80 * 80)
    with pytest.raises(UserError, match=r"cannot be read: .*\(DecompressionBombError: Image size"):
        prepare(data_config(photo_root), workers=1, progress=False)


def test_skip_bad_does_not_empty_a_class(photo_root):
    folder = sorted((photo_root / "train").iterdir())[2]
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=f"class {folder.name} has no readable image left"):
        prepare(data_config(photo_root), workers=2, progress=False, skip_bad=True)
    assert not (photo_root / "ffcv" / "train.beton").exists()
