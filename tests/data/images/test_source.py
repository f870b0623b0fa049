"""The source: its layout, its names and the files that cannot be read."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from adarem.data.loaders import open_eval, open_train
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support.imagenet_tree import make_imagenet_tree
from tests.support.photos import TRAIN, data_config


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


def test_skip_bad_does_not_empty_a_class(photo_root):
    folder = sorted((photo_root / "train").iterdir())[2]
    for file in folder.iterdir():
        file.write_bytes(b"")
    with pytest.raises(UserError, match=f"class {folder.name} has no readable image left"):
        prepare(data_config(photo_root), workers=2, progress=False, skip_bad=True)
    assert not (photo_root / "ffcv" / "train.beton").exists()
