"""Images are encoded as FFCV does it, once each, whatever the number of workers."""

import io
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from adarem.data import fingerprint
from adarem.data.ffcv import beton, encode
from adarem.data.images.source import Source, scan
from adarem.data.prepare import prepare
from adarem.run.config import WriteConfig
from tests.support.imagenet_tree import make_imagenet_tree, photograph
from tests.support.photos import TRAIN, VAL, data_config


@pytest.mark.parametrize("mode", ["raw", "jpg"])
@pytest.mark.parametrize("max_side", [120, 400])
def test_images_are_encoded_as_ffcvs_field_does(mode, max_side):
    from ffcv.fields import RGBImageField

    image = photograph(301, 200, seed=1)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    found = encode.encode(buffer.getvalue(), WriteConfig(mode, max_side, 85, 0.5))
    metadata, stored = np.zeros(1, beton.IMAGE), []

    def malloc(size: int) -> tuple[int, np.ndarray]:
        stored.append(np.zeros(size, np.uint8))
        return 0, stored[-1]

    RGBImageField(write_mode=mode, max_resolution=max_side, jpeg_quality=85).encode(metadata, image, malloc)
    assert found.payload == stored[0].tobytes()
    assert (found.mode, found.width, found.height) == tuple(metadata[0].tolist()[:3])


def test_every_image_is_decoded_once(photo_root, monkeypatch):
    seen = []
    decode = encode.decode_rgb
    monkeypatch.setattr(encode, "decode_rgb", lambda payload: seen.append(1) or decode(payload))
    prepare(data_config(photo_root), workers=1, progress=False)
    assert len(seen) == TRAIN + VAL


def test_oddities_of_imagenet_are_converted_as_torchvision_does(tmp_path):
    """A greyscale, a CMYK JPEG and a PNG named .JPEG: raw pixels in the .beton equal torchvision's."""
    from torchvision.datasets import ImageFolder

    make_imagenet_tree(tmp_path, classes=3, train_per_class=2, val_per_class=1, distinct=3)
    data = data_config(tmp_path, num_classes=3, write=WriteConfig("raw", 2000, 90, 0.5))
    prepare(data, workers=1, progress=False)
    index = beton.open_index(fingerprint.beton_path(data, "train"), 3)
    theirs = ImageFolder(tmp_path / "train")
    modes, names = set(), fingerprint.files_path(data, "train").read_text().splitlines()
    assert len(theirs) == len(index) == 6
    assert fingerprint.read_fingerprint(data, "train")["classes"] == theirs.classes
    for k, (path, label) in enumerate(theirs.samples):
        image = Image.open(path)
        modes.add((image.format, image.mode))
        with open(index.path, "rb") as f:
            stored = os.pread(f.fileno(), int(index.sizes[k]), int(index.starts[k]))
        assert stored == theirs[k][0].tobytes() and label == index.labels[k]
        assert names[k] == f"train/{Path(path).parent.name}/{Path(path).name}"
    assert {("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")} <= modes


class Held(NamedTuple):
    """An image that is in no file."""

    payload: bytes | None

    def read(self) -> bytes:
        if self.payload is None:
            raise OSError("nothing is held")
        return self.payload


@pytest.mark.parametrize("workers", [1, 2])
def test_images_come_from_wherever_the_source_has_them(photo_root: Path, workers: int) -> None:
    files = scan(photo_root, "val")
    held = [Held(image.read()) for image in files.images]
    held[7] = Held(None)
    elsewhere = Source(Path("memory"), files.classes, files.files, files.labels, files.sizes, held)
    assert elsewhere.listing_hash == files.listing_hash
    ours, theirs = (list(encode.encode_all(s, None, workers)) for s in (elsewhere, files))
    assert ours[7].problem == "nothing is held" and not theirs[7].problem
    assert ours[:7] + ours[8:] == theirs[:7] + theirs[8:]
