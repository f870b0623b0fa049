"""The compiled functions equal the plain ones and the libraries', and are compiled once for a machine."""

import subprocess
import sys
import zlib

import numpy as np

from adarem.data.ffcv import kernels
from adarem.data.images import sampling
from adarem.data.loaders import open_train

AREA, ASPECT, FLIP = (0.08, 1.0), (3 / 4, 4 / 3), 0.5


def test_compiled_boxes_equal_the_plain_ones():
    rng = np.random.default_rng(0)
    words = sampling.index_words(99, rng.integers(0, 1 << 40, 4000))
    heights, widths = rng.integers(1, 700, (2, 4000)).astype(np.uint16)
    heights[:200], widths[200:400] = 1, 1  # aspects that end in the fallback
    for seed in (0, 1, 2**63 + 5):
        view = sampling.RandomCrop(seed, 224, AREA, ASPECT, FLIP)
        found = kernels.train_boxes(np.uint64(seed), words, heights, widths, *AREA, *ASPECT, FLIP)
        plain = [view.box(int(w), int(h), int(v)) for w, h, v in zip(words, heights, widths, strict=True)]
        assert (found == np.array(plain)).all()


def test_compiled_adler32_is_zlibs():
    rng = np.random.default_rng(0)
    for size in (0, 1, 4095, 4096, 4097, 100_000):
        for data in (rng.integers(0, 256, size, np.uint8), np.full(size, 255, np.uint8)):
            assert kernels.adler32(data) == zlib.adler32(data)


def test_machine_code_comes_from_disk(photos):
    """A second process compiles nothing: that is where stock FFCV spends 10 s before its first batch."""
    program = f"""
import sys
from pathlib import Path
from tests.support.photos import data_config
from adarem.data.ffcv import kernels
from adarem.data.loaders import open_train
data = data_config(Path({photos().root!r}), workers=1)
next(open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu").epoch(0))
for f in (kernels.decode_boxes, kernels.train_boxes):
    assert f.stats.cache_hits and not f.stats.cache_misses, (f, f.stats)
"""
    next(open_train(photos(), global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu").epoch(0))
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
