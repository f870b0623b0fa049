"""The summary says what is in the files, and its sheets show what the network sees."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adarem.data import fingerprint, summary
from adarem.data.images.sampling import index_words
from adarem.data.loaders import open_eval, open_train
from adarem.run.errors import UserError
from tests.support.photos import TRAIN, VAL


@pytest.mark.parametrize("backend", ["ffcv", "folder"])
def test_summary_counts_and_sheets(photos, backend, monkeypatch):
    monkeypatch.setattr(summary, "TILE", 96)  # the crop's own size: no resampling on the sheet
    data = photos(backend=backend)
    text = summary.summarise(data)
    assert f"train: {TRAIN} images in 7 classes" in text and f"val: {VAL} images in 7 classes" in text
    assert "Resize(110), CenterCrop(96)" in text
    if backend == "ffcv":
        found = fingerprint.read_fingerprint(data, "train")
        assert f"{found['jpeg_images'] / TRAIN:.0%} JPEG" in text and "fits in this machine's memory" in text
        assert re.search(r"[\d.]+ kB an image$", text, re.MULTILINE) and "ImageNet" not in text
        stored = "\n".join(summary._stored(dataclasses.replace(data, name="imagenet"), "train", found))
        assert re.search(r"[\d.]+ kB an image \(ImageNet's 1,331,167 images would take [\d,]+ GB", stored)
        assert "stored with at most 400 px a side, 50% JPEG quality 90" in text
    for split in ("train", "val"):
        assert f"look at {Path(data.beton_dir) / f'summary-{split}.png'}" in text
    sheet = np.array(Image.open(Path(data.beton_dir) / "summary-train.png"))
    loader = open_train(data, global_batch_size=1, seed=0, rank=0, world_size=1, device="cpu")
    last = TRAIN - 1
    (images, _), *_ = loader.reader.read([index_words(3, np.array([last]))], pin=False)
    row, column = 5 * (96 + 18), 3 * (96 + 4)
    assert (sheet[row : row + 96, column : column + 96] == images[0].numpy()).all()
    sheet = np.array(Image.open(Path(data.beton_dir) / "summary-val.png"))
    (_, images, _), *_ = open_eval(data, batch_size=1, rank=0, world_size=1, device="cpu")
    assert (sheet[:96, :96] == images[0].permute(1, 2, 0).numpy()).all()


def test_file_larger_than_memory_is_said(photos, monkeypatch):
    monkeypatch.setattr(summary.os, "sysconf", lambda name: 100)
    assert "larger than this machine's memory" in summary.summarise(photos())


def test_not_prepared(photos, tmp_path):
    with pytest.raises(UserError, match="adarem prepare"):
        summary.summarise(dataclasses.replace(photos(), beton_dir=str(tmp_path)))
