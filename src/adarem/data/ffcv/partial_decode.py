"""Decodes only the shown part of a JPEG: an optional C helper, built where a compiler and libjpeg-turbo's header are.

A third of the work on a JPEG is on pixels that a random crop throws away. The helper's pixels equal the full decode's,
bit for bit; a build that fails that check here, or cannot be made, is not used, and nothing but speed changes. Set
ADAREM_DECODE=full to switch it off.
"""

import ctypes
import functools
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adarem import native
from adarem.data.images.sampling import Box

SOURCE = Path(__file__).with_name("partial_decode.c")
Decode = Callable[[NDArray[np.uint8], int, int, Box], NDArray[np.uint8]]


class Helper(NamedTuple):
    """The address of the C function ``decode_box``; or 0, and why there is none."""

    address: int
    why_not: str


@functools.cache
def find() -> Helper:
    """Compiles the helper where that is not done yet, and checks its pixels; warns where it cannot be used."""
    if os.environ.get("ADAREM_DECODE") == "full":
        return Helper(0, "switched off by ADAREM_DECODE=full")
    needs = "a C compiler and libjpeg's header"
    options = (("-O3", "-shared", "-fPIC"),)
    library, note = native.load(native.Source(SOURCE, "CC", needs, ("cc", "gcc", "clang"), options, ("-ljpeg",)))
    if library is not None and not _is_exact(library):
        library = None
        note = f"{SOURCE.name}: its pixels differ from FFCV's decode; install the libjpeg that OpenCV was built with"
    if note:
        consequence = "" if library else " (until then complete images are decoded, or with ADAREM_DECODE=full)"
        warnings.warn(note + consequence, native.SlowerWarning, stacklevel=2)
    if library is None:
        return Helper(0, note)
    from adarem.data.ffcv.library import address_of

    _libraries.append(library)
    return Helper(address_of(library.decode_box), "")


_libraries: list[ctypes.CDLL] = []  # keeps the code mapped


def decoder(library: ctypes.CDLL) -> Decode:
    """The helper as a Python function: JPEG bytes, height, width, box -> the box's pixels, uint8 [h, w, 3]."""

    def decode(data: NDArray[np.uint8], height: int, width: int, box: Box) -> NDArray[np.uint8]:
        out, shown = np.empty(3 * height * width, np.uint8), np.empty(4, np.int64)
        where = np.array(box, np.int64)
        arguments = (data.ctypes.data, data.size, height, width, where.ctypes.data, out.ctypes.data, shown.ctypes.data)
        if library.decode_box(*map(ctypes.c_int64, arguments)):
            raise ValueError("does not decode")
        top, left, rows, columns = shown.tolist()
        pixels = out[: 3 * rows * columns].reshape(rows, columns, 3)
        return pixels[box.top - top :, box.left - left : box.left - left + box.width]

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
    boxes = [
        Box(0, 0, 90, 133),
        Box(31, 40, 20, 33),
        Box(77, 0, 13, 50),
        Box(5, 100, 85, 33),
        Box(45, 66, 1, 1),
    ]
    return all(
        bool((decode(data, height, width, b) == full[b.top : b.top + b.height, b.left : b.left + b.width]).all())
        for b in boxes
    )
