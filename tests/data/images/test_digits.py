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


def test_digits_never_remove_what_is_not_theirs(tmp_path):
    precious = tmp_path / "train" / "n01440764" / "n01440764_1.JPEG"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(jpeg(photograph(50, 40, 0)))
    with pytest.raises(UserError, match="which is no digit; choose another data.root"):
        digits.write_digits(tmp_path)
    assert precious.exists()
