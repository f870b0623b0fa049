"""The embedded digits: the same images everywhere, written once, and never over what is not theirs."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.images import digits
from adarem.data.loaders import open_eval
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError
from tests.support.imagenet_tree import jpeg, photograph
from tests.support.photos import data_config


def test_digits(tmp_path):
    data = data_config(
        tmp_path,
        name="digits",
        num_classes=10,
        train_crop=32,
        eval_resize=36,
        eval_crop=32,
        expected_train=1437,
        expected_val=360,
        write=WriteConfig("proportion", 64, 90, 0.5),
    )
    prints = prepare(data, workers=1, progress=False)
    assert (prints["train"]["num_images"], prints["val"]["num_images"]) == (1437, 360)
    # Pinned: the embedded data are the same on every machine with the same Pillow.
    train = {p.name for p in (tmp_path / "train").glob("*/*")}
    assert len(train) == 1437 and not train & {p.name for p in (tmp_path / "val").glob("*/*")}
    index = beton.open_index(fingerprint.beton_path(data, "val"))
    assert np.bincount(index.labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    loader = open_eval(data, batch_size=360, rank=0, world_size=1, device="cpu")
    (_, pixels, found), *_ = loader
    names = fingerprint.files_path(data, "val").read_text().splitlines()
    for name, picture, label in zip(names, pixels, found, strict=True):
        number = int(Path(name).stem)
        assert labels[number] == label
        small = picture.float().mean(0)[2:30, 2:30]
        original = np.kron(images[number].reshape(8, 8), np.ones((4, 4)))[2:30, 2:30]
        assert np.corrcoef(small.flatten(), original.flatten())[0, 1] > 0.7


def test_digits_are_written_once_and_repair_themselves(tmp_path):
    root = tmp_path / "digits"
    digits.write_digits(root)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    digits.write_digits(root)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    (root / digits._MARK).unlink()  # as an interrupted write leaves it
    shutil.rmtree(root / "val")
    digits.write_digits(root)
    assert sorted(root.rglob("*")) == sorted(before)


FOREIGN = (
    "train/n01440764/n01440764_1.JPEG",
    "train/cats/0001.JPEG",
    "train/digit0/0000.JPEG",  # a name of a digit, another picture
    "val/digit3/9999.JPEG",
    "val/notes.txt",
    "val",
)


@pytest.mark.parametrize("name", FOREIGN)
def test_digits_never_remove_what_is_not_theirs(tmp_path: Path, name: str) -> None:
    precious = tmp_path / name
    precious.parent.mkdir(parents=True, exist_ok=True)
    payload = jpeg(photograph(50, 40, 0))
    precious.write_bytes(payload)
    with pytest.raises(UserError, match=r"^\S+/(train|val)\S*: .*; choose another data.root$"):
        digits.write_digits(tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [precious] and precious.read_bytes() == payload


def test_digits_that_someone_changed_stay(tmp_path: Path) -> None:
    """A picture put into the folder of an interrupted call, and one that was taken out of it."""
    digits.write_digits(tmp_path)
    (tmp_path / digits._MARK).unlink()
    mine = sorted((tmp_path / "train" / "digit4").iterdir())[0]
    mine.write_bytes(b"mine")
    with pytest.raises(UserError, match=f"{mine}: not the embedded digit of this name, and not overwritten"):
        digits.write_digits(tmp_path)
    mine.unlink()
    with pytest.raises(UserError, match="train: holds 1436 of 1437 embedded digits, and is not overwritten; choose"):
        digits.write_digits(tmp_path)
    assert not mine.exists()


def test_links_are_no_digits(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "val").symlink_to(elsewhere)
    with pytest.raises(UserError, match="choose another data.root"):
        digits.write_digits(tmp_path / "root")
    assert (tmp_path / "root" / "val").is_symlink() and not elsewhere.exists()
