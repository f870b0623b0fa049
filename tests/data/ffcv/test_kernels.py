"""The compiled functions equal the plain ones and the libraries', and are compiled once for a machine."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from adarem.data.ffcv import kernels
from adarem.data.images import sampling
from adarem.data.loaders import open_train
from adarem.native import SlowerWarning

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


_MIX = """
import sys
from adarem.data.ffcv import kernels
import numpy as np
print(kernels.mix(np.uint64(7)), len(kernels.mix.stats.cache_hits))
"""


def mixed(cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", _MIX], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("ending, kept", [(".nbi", 0), (".nbc", 40)])
def test_a_damaged_cache_of_numbas_is_made_anew(ending: str, kept: int, tmp_path: Path) -> None:
    first = mixed(tmp_path)
    assert not first.stderr
    (file,) = (p for p in tmp_path.rglob(f"*mix*{ending}") if "sample" not in p.name)
    os.truncate(file, kept)
    again = mixed(tmp_path)
    assert again.stdout == first.stdout
    assert again.stderr.count("SlowerWarning: ") == 1 and "damaged (" in again.stderr
    complete = mixed(tmp_path)
    assert complete.stdout.split() == [first.stdout.split()[0], "1"] and not complete.stderr


def test_a_full_disk_and_no_folder_at_all_cost_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        cache_path = "/cache"
        flush = None

        def save_overload(self, signature: object, compiled: object) -> None:
            raise OSError(28, "No space left on device")

    with pytest.warns(SlowerWarning, match="^/cache: cannot be written .*No space left.*; set NUMBA_CACHE_DIR"):
        kernels._Cache(Full()).save_overload("signature", "code")
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    with pytest.warns(SlowerWarning, match="cannot be written, nor can numba's folder in HOME; set NUMBA_CACHE_DIR"):
        double = kernels.compiled(lambda x: 2 * x)
    assert double(4) == 8
