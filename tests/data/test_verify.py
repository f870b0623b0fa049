"""`--verify` sees what opening cannot: changed bytes of the file, and of the source."""

import numpy as np
import pytest

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.loaders import open_train
from adarem.data.prepare import prepare
from adarem.run.errors import UserError
from tests.support.beton_damage import edit
from tests.support.photos import data_config


def test_verify_sees_an_edited_source(photo_root):
    data = data_config(photo_root)
    prepare(data, workers=1, progress=False)
    victim = sorted((photo_root / "val").glob("*/*"))[7]
    payload = bytearray(victim.read_bytes())
    payload[8] ^= 1  # in the comment: same size, same pixels
    victim.write_bytes(payload)
    prepare(data, workers=1, progress=False)  # same names and sizes
    with pytest.raises(UserError, match="its images changed since"):
        prepare(data, workers=1, verify=True, progress=False)


def test_bytes_that_decode_but_changed_are_found_by_verify(copied):
    index = beton.open_index(fingerprint.beton_path(copied, "train"))
    raw = int(np.flatnonzero(index.is_raw)[0])
    edit(index.path, int(index.starts[raw]) + 1000, b"\x00\x01")
    open_train(copied, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")  # cannot see it
    with pytest.raises(UserError, match="its images differ from its fingerprint"):
        prepare(copied, workers=1, verify=True, progress=False)
