"""Decoding only the shown part of a JPEG: an optional C helper, built where a compiler and libjpeg-turbo's header are.

A third of the work on a JPEG is on pixels that a random crop throws away. The helper's pixels equal the full decode's,
bit for bit; a build that fails that check here, or cannot be made, is not used, and nothing but speed changes. Set
ADAREM_DECODE=full to switch it off.
"""

import ctypes
import functools
import hashlib
import io
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("region.c")
Decode = Callable[[np.ndarray, int, int, tuple[int, int, int, int]], np.ndarray]


@functools.cache
def find() -> tuple[int, str]:
    """(address of ``decode_region``, ""), or (0, why there is none)."""
    if os.environ.get("ADAREM_DECODE") == "full":
        return 0, "switched off by ADAREM_DECODE=full"
    try:
        library = ctypes.CDLL(os.fspath(_build()))
    except (OSError, subprocess.SubprocessError) as e:
        detail = getattr(e, "stderr", None)
        return 0, f"cannot be built: {(detail or str(e)).strip().splitlines()[0]}"
    if not _is_exact(library):
        return 0, "its pixels differ from FFCV's decode (another libjpeg)"
    address = ctypes.cast(library.decode_region, ctypes.c_void_p).value
    assert address
    _libraries.append(library)
    return address, ""


_libraries: list[ctypes.CDLL] = []  # keeps the code mapped


def _build() -> Path:
    """The shared library in the user's cache; several ranks may build it at once, the last rename wins."""
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adarem"
    path = cache / f"region-{os.uname().machine}-{key}.so"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            built = Path(folder) / path.name
            command = [os.environ.get("CC", "cc"), "-O3", "-shared", "-fPIC", "-o", built, SOURCE, "-ljpeg"]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            os.replace(built, path)
    return path


def decoder(library: ctypes.CDLL) -> Decode:
    """The helper as a Python function: (JPEG bytes, height, width, box) -> the box's pixels, uint8 [h, w, 3]."""

    def decode(data: np.ndarray, height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
        out, shown = np.empty(3 * height * width, np.uint8), np.empty(4, np.int64)
        where = np.array(box, np.int64)
        arguments = (data.ctypes.data, data.size, height, width, where.ctypes.data, out.ctypes.data, shown.ctypes.data)
        if library.decode_region(*map(ctypes.c_int64, arguments)):
            raise ValueError("does not decode")
        top, left, rows, columns = shown.tolist()
        pixels = out[: 3 * rows * columns].reshape(rows, columns, 3)
        return pixels[box[0] - top :, box[1] - left : box[1] - left + box[3]]

    return decode


def _is_exact(library: ctypes.CDLL) -> bool:
    """Compares the helper with FFCV's decode on one small picture, some boxes."""
    from PIL import Image

    from adarem.data.ffcv.library import libffcv

    height, width = 90, 133
    y, x, c = np.mgrid[:height, :width, :3]
    picture = ((x * x // 7 + y * (3 + c) + (x * y * (c + 1)) % 61) % 256).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    data = np.frombuffer(buffer.getvalue(), np.uint8)
    full = np.empty((height, width, 3), np.uint8)
    libffcv.imdecode(data, full, height, width, height, width, 0, 0, 1, 1, False, False)
    decode = decoder(library)
    boxes = [(0, 0, 90, 133), (31, 40, 20, 33), (77, 0, 13, 50), (5, 100, 85, 33), (45, 66, 1, 1)]
    return all((decode(data, height, width, b) == full[b[0] : b[0] + b[2], b[1] : b[1] + b[3]]).all() for b in boxes)
