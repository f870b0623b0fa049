"""The compiled inner loops of the FFCV path: crop boxes, decode, crop, resize, flip.

Single-threaded functions that release the GIL; `adarem.data.ffcv.reader` runs them in threads. Nothing here is compiled
with fastmath, so a box never depends on vectorisation. The C functions of FFCV's library are addresses in arguments,
not globals: only so can numba keep the machine code on disk between processes (FFCV itself compiles at every start).
The random numbers and the boxes are those of `adarem.data.images.sampling`, which works without numba, with constants
of fixed width; a test compares them bit for bit.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from adarem.data.ffcv.numba_cache import compiled
from adarem.data.images import sampling
from adarem.data.images.sampling import ATTEMPTS, FLIP_DRAW, GAMMA, MIX_1, MIX_2

Integer = int | np.integer[Any]


def _c_call(build: Callable[..., Any]) -> Callable[..., Any]:
    """A call of a C function at an address; ``build`` gives numba its signature and its code."""
    return cast(Callable[..., Any], intrinsic(build))


# uint64 with a Python int becomes float64 in numba: every constant needs its type.
_GAMMA, _MIX_1, _MIX_2 = np.uint64(GAMMA), np.uint64(MIX_1), np.uint64(MIX_2)
_11, _16, _27, _30, _31 = np.uint64(11), np.uint64(16), np.uint64(27), np.uint64(30), np.uint64(31)
_ADLER = np.uint64(65521)
_int = cast(Callable[[Any], int], np.int64)  # an int for the type checker, an int64 for numba


@compiled
def mix(z: np.uint64) -> np.uint64:
    """splitmix64's finaliser."""
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return z ^ (z >> _31)


@compiled
def sample_key(seed: np.uint64, word: np.uint64) -> np.uint64:
    """See sampling.sample_key."""
    return mix(mix(seed + _GAMMA) ^ mix(word * _GAMMA + _MIX_1))


@compiled
def uniform(key: np.uint64, n: int) -> float:
    """Draw number n of a sample, in [0, 1)."""
    return float(mix(key + np.uint64(n + 1) * _GAMMA) >> _11) * 2.0**-53


_drawn_box, _largest_box = compiled(sampling.drawn_box), compiled(sampling.largest_box)


@compiled
def crop_box(
    key: np.uint64, height: int, width: int, area_low: float, area_high: float, aspect_low: float, aspect_high: float
) -> sampling.Box:
    """See sampling.crop_box."""
    log_low, log_high = math.log(aspect_low), math.log(aspect_high)
    for t in range(ATTEMPTS):
        share = area_low + (area_high - area_low) * uniform(key, 4 * t)
        ratio = math.exp(log_low + (log_high - log_low) * uniform(key, 4 * t + 1))
        box = _drawn_box(height, width, share, ratio, uniform(key, 4 * t + 2), uniform(key, 4 * t + 3))
        if box.height > 0:
            return box
    return _largest_box(height, width, aspect_low, aspect_high)


@compiled
def train_boxes(
    seed: np.uint64,
    words: NDArray[np.uint64],
    heights: NDArray[np.uint16],
    widths: NDArray[np.uint16],
    area_low: float,
    area_high: float,
    aspect_low: float,
    aspect_high: float,
    flip: float,
) -> NDArray[np.int64]:
    """int64 [b, 5]: top, left, height, width, flip (0 or 1) of each sample."""
    boxes = np.empty((len(words), 5), np.int64)
    for k in range(len(words)):
        key = sample_key(seed, words[k])
        box = crop_box(key, _int(heights[k]), _int(widths[k]), area_low, area_high, aspect_low, aspect_high)
        boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3] = box.top, box.left, box.height, box.width
        boxes[k, 4] = 1 if uniform(key, FLIP_DRAW) < flip else 0
    return boxes


@_c_call
def _imdecode(
    typingctx: Any, address: Any, source: Any, size: Any, height: Any, width: Any, destination: Any
) -> tuple[Any, Callable[..., Any]]:
    """``int imdecode(...)`` of FFCV's library at an address; full size, no crop, no flip."""
    signature = types.int32(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)

    def codegen(context: Any, builder: Any, _: Any, args: Any) -> Any:
        function, source, size, height, width, destination = args
        i8, i32, i64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
        pointer = i8.as_pointer()
        kind = ir.FunctionType(i32, [pointer, i64, i32, i32, pointer, i32, i32, i32, i32, i32, i32, i32, i32])
        zero, one = ir.Constant(i32, 0), ir.Constant(i32, 1)
        h, w = builder.trunc(height, i32), builder.trunc(width, i32)
        return builder.call(
            builder.inttoptr(function, kind.as_pointer()),
            [
                builder.inttoptr(source, pointer),
                size,
                h,
                w,
                builder.inttoptr(destination, pointer),
                h,  # of the crop
                w,
                zero,  # offset
                zero,
                one,  # scale
                one,
                zero,  # no crop
                zero,  # no flip
            ],
        )

    return signature, codegen


@_c_call
def _decode_box(
    typingctx: Any,
    address: Any,
    source: Any,
    size: Any,
    height: Any,
    width: Any,
    box: Any,
    destination: Any,
    shown: Any,
) -> tuple[Any, Callable[..., Any]]:
    """``int decode_box(...)`` of partial_decode.c at an address."""
    signature = types.int32(*[types.int64] * 8)

    def codegen(context: Any, builder: Any, _: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(64)] * 7)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return signature, codegen


@_c_call
def _resize(
    typingctx: Any,
    address: Any,
    source: Any,
    height: Any,
    width: Any,
    top: Any,
    bottom: Any,
    left: Any,
    right: Any,
    destination: Any,
    out_height: Any,
    out_width: Any,
) -> tuple[Any, Callable[..., Any]]:
    """``void resize(...)`` of FFCV's library at an address: cv::resize of a box, INTER_AREA."""
    signature = types.void(*[types.int64] * 11)

    def codegen(context: Any, builder: Any, _: Any, args: Any) -> Any:
        i64 = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [i64] * 11)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [ir.Constant(i64, 0), *args[1:]])
        return context.get_dummy_value()

    return signature, codegen


@compiled
def _mirror(image: NDArray[np.uint8]) -> None:
    height, width = image.shape[0], image.shape[1]
    for y in range(height):
        for x in range(width // 2):
            for c in range(3):
                image[y, x, c], image[y, width - 1 - x, c] = image[y, width - 1 - x, c], image[y, x, c]


@compiled
def jpeg_size_is(data: NDArray[np.uint8], height: Integer, width: Integer) -> bool:
    """Whether a JPEG's frame header says height x width; the decoder would quietly scale another size down."""
    at: Integer = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC:  # start of frame
            found_height = np.int64(data[at + 5]) << 8 | np.int64(data[at + 6])
            found_width = np.int64(data[at + 7]) << 8 | np.int64(data[at + 8])
            return bool(found_height == height and found_width == width)
        at += 2 + (np.int64(data[at + 2]) << 8 | np.int64(data[at + 3]))
    return False


@compiled
def adler32(data: NDArray[np.uint8]) -> np.uint64:
    """zlib.adler32 (RFC 1950), 3 GB/s."""
    a, b, at = np.uint64(1), np.uint64(0), 0
    while at < len(data):
        size = min(4096, len(data) - at)
        total, weighted = np.uint64(0), np.uint64(0)
        for i in range(size):
            byte = np.uint64(data[at + i])
            total += byte
            weighted += byte * np.uint64(size - i)
        b = (b + np.uint64(size) * a + weighted) % _ADLER
        a = (a + total) % _ADLER
        at += size
    return b << _16 | a


@compiled
def decode_boxes(
    imdecode: int,
    decode_box: int,
    resize: int,
    mapped: NDArray[np.uint8],
    starts: NDArray[np.uint64],
    sizes: NDArray[np.uint32],
    checksums: NDArray[np.uint32],
    heights: NDArray[np.uint16],
    widths: NDArray[np.uint16],
    is_raw: NDArray[np.bool_],
    boxes: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> int:
    """Fills ``out``, uint8 [b, H, W, 3], with each sample's box; returns the first damaged sample, or -1.

    A JPEG is damaged when its checksum or its frame header differs, or the decoder fails or warns. The decoder alone
    does not see much: zeros in the middle of a scan are grey to it. Raw samples are checked by
    `adarem prepare --verify` only, since checksums would cost a sixth of their rate.

    Args:
        imdecode, resize: addresses of FFCV's C functions.
        decode_box: address of the function in partial_decode.c, or 0 to decode complete images.
        mapped: the file.
        starts, sizes, checksums: [b] byte spans in the file, and the Adler-32 of each.
        boxes: [b, 5], see train_boxes.
    """
    scratch_size: Integer = 1
    for k in range(len(starts)):
        if not is_raw[k]:
            needed = 3 * np.int64(heights[k]) * np.int64(widths[k])
            if needed > scratch_size:
                scratch_size = needed
    scratch = np.empty(scratch_size, np.uint8)
    shown = np.zeros(4, np.int64)  # first row, first column, rows, columns of what is decoded
    for k in range(len(starts)):
        shown[0], shown[1], shown[2], shown[3] = 0, 0, heights[k], widths[k]
        data = mapped[np.int64(starts[k]) : np.int64(starts[k]) + np.int64(sizes[k])]
        source = np.int64(data.ctypes.data)
        if not is_raw[k]:
            height, width, pixels = shown[2], shown[3], np.int64(scratch.ctypes.data)
            if adler32(data) != checksums[k] or not jpeg_size_is(data, height, width):
                return k
            size = np.int64(sizes[k])
            if decode_box != 0:
                box = np.int64(boxes[k].ctypes.data)
                failed = _decode_box(
                    np.int64(decode_box), source, size, height, width, box, pixels, np.int64(shown.ctypes.data)
                )
            else:
                failed = _imdecode(np.int64(imdecode), source, size, height, width, pixels)
            if failed != 0:
                return k
            source = pixels
        top, left, h, w = boxes[k, 0] - shown[0], boxes[k, 1] - shown[1], boxes[k, 2], boxes[k, 3]
        image = out[k]
        _resize(
            np.int64(resize),
            source,
            shown[2],
            shown[3],
            top,
            top + h,
            left,
            left + w,
            np.int64(image.ctypes.data),
            np.int64(image.shape[0]),
            np.int64(image.shape[1]),
        )
        if boxes[k, 4]:
            _mirror(image)
    return -1
