"""The compiled inner loops of the FFCV path: crop boxes, decode, crop, resize, flip.

Plain single-threaded functions that release the GIL; `adarem.data.ffcv.reader` runs them in threads. Nothing here is
compiled with fastmath, so a box never depends on vectorisation. The C functions of FFCV's library arrive as addresses
in arguments, not as globals: only so can numba keep the machine code on disk between processes (FFCV itself compiles
at every start).
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from adarem.data.images.sampling import ATTEMPTS, FLIP_DRAW, GAMMA, MIX_1, MIX_2

# uint64 with a Python int becomes float64 in numba: every constant needs its type.
_GAMMA, _MIX_1, _MIX_2 = np.uint64(GAMMA), np.uint64(MIX_1), np.uint64(MIX_2)
_11, _16, _27, _30, _31 = np.uint64(11), np.uint64(16), np.uint64(27), np.uint64(30), np.uint64(31)
_ADLER = np.uint64(65521)


@njit(nogil=True, cache=True)
def mix(z):
    z = (z ^ (z >> _30)) * _MIX_1
    z = (z ^ (z >> _27)) * _MIX_2
    return z ^ (z >> _31)


@njit(nogil=True, cache=True)
def sample_key(seed, word):
    return mix(mix(seed + _GAMMA) ^ mix(word * _GAMMA + _MIX_1))


@njit(nogil=True, cache=True)
def uniform(key, n):
    return float(mix(key + np.uint64(n + 1) * _GAMMA) >> _11) * 2.0**-53


@njit(nogil=True, cache=True)
def crop_box(key, height, width, area_low, area_high, aspect_low, aspect_high):
    log_low, log_high = math.log(aspect_low), math.log(aspect_high)
    for t in range(ATTEMPTS):
        target = height * width * (area_low + (area_high - area_low) * uniform(key, 4 * t))
        ratio = math.exp(log_low + (log_high - log_low) * uniform(key, 4 * t + 1))
        w = math.floor(math.sqrt(target * ratio) + 0.5)
        h = math.floor(math.sqrt(target / ratio) + 0.5)
        if 0 < w <= width and 0 < h <= height:
            top = math.floor(uniform(key, 4 * t + 2) * (height - h + 1))
            left = math.floor(uniform(key, 4 * t + 3) * (width - w + 1))
            return top, left, h, w
    w, h = width, height
    if width < height * aspect_low:
        h = min(height, max(1, math.floor(width / aspect_low + 0.5)))
    elif width > height * aspect_high:
        w = min(width, max(1, math.floor(height * aspect_high + 0.5)))
    return (height - h) // 2, (width - w) // 2, h, w


@njit(nogil=True, cache=True)
def train_boxes(seed, words, heights, widths, area_low, area_high, aspect_low, aspect_high, flip):
    """int64 [b, 5]: top, left, height, width, flip (0 or 1) of each sample."""
    boxes = np.empty((len(words), 5), np.int64)
    for k in range(len(words)):
        key = sample_key(seed, words[k])
        top, left, h, w = crop_box(
            key, np.int64(heights[k]), np.int64(widths[k]), area_low, area_high, aspect_low, aspect_high
        )
        boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3] = top, left, h, w
        boxes[k, 4] = 1 if uniform(key, FLIP_DRAW) < flip else 0
    return boxes


@intrinsic
def _imdecode(typingctx, address, source, size, height, width, destination):
    """``int imdecode(...)`` of FFCV's library at an address; full size, no crop, no flip."""
    signature = types.int32(types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)

    def codegen(context, builder, _, args):
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


@intrinsic
def _decode_region(typingctx, address, source, size, height, width, box, destination, shown):
    """``int decode_region(...)`` of region.c at an address."""
    signature = types.int32(*[types.int64] * 8)

    def codegen(context, builder, _, args):
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(64)] * 7)
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return signature, codegen


@intrinsic
def _resize(typingctx, address, source, height, width, top, bottom, left, right, destination, out_height, out_width):
    """``void resize(...)`` of FFCV's library at an address: cv::resize of a box, INTER_AREA."""
    signature = types.void(*[types.int64] * 11)

    def codegen(context, builder, _, args):
        i64 = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [i64] * 11)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), [ir.Constant(i64, 0), *args[1:]])
        return context.get_dummy_value()

    return signature, codegen


@njit(nogil=True, cache=True)
def _mirror(image):
    height, width = image.shape[0], image.shape[1]
    for y in range(height):
        for x in range(width // 2):
            for c in range(3):
                image[y, x, c], image[y, width - 1 - x, c] = image[y, width - 1 - x, c], image[y, x, c]


@njit(nogil=True, cache=True)
def jpeg_size_is(data, height, width):
    """Whether a JPEG's frame header says height x width; the decoder would quietly scale another size down."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker != 0xC4 and marker != 0xC8 and marker != 0xCC:  # start of frame
            found_height = np.int64(data[at + 5]) << 8 | np.int64(data[at + 6])
            found_width = np.int64(data[at + 7]) << 8 | np.int64(data[at + 8])
            return found_height == height and found_width == width
        at += 2 + (np.int64(data[at + 2]) << 8 | np.int64(data[at + 3]))
    return False


@njit(nogil=True, cache=True)
def adler32(data):
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


@njit(nogil=True, cache=True)
def decode_boxes(imdecode, region, resize, mapped, starts, sizes, sums, heights, widths, is_raw, boxes, out):
    """Fills ``out``, uint8 [b, H, W, 3], with each sample's box; returns the first damaged sample, or -1.

    ``imdecode``, ``resize``: addresses of FFCV's C functions; ``region``: of region.c's, or 0 to decode whole images;
    ``mapped``: the file, uint8; ``starts``, ``sizes``, ``sums``: byte spans in it and their Adler-32. A JPEG is damaged
    when its sum, its frame header or the decoder says so; libjpeg's warnings count. A decoder alone does not see much:
    zeros in the middle of a scan are grey to it. Raw samples are not summed, which would cost a sixth of their rate.
    """
    scratch_size = 1
    for k in range(len(starts)):
        if not is_raw[k]:
            scratch_size = max(scratch_size, 3 * np.int64(heights[k]) * np.int64(widths[k]))
    scratch = np.empty(scratch_size, np.uint8)
    shown = np.zeros(4, np.int64)  # first row, first column, rows, columns of what is decoded
    for k in range(len(starts)):
        shown[0], shown[1], shown[2], shown[3] = 0, 0, heights[k], widths[k]
        data = mapped[np.int64(starts[k]) : np.int64(starts[k]) + np.int64(sizes[k])]
        source = np.int64(data.ctypes.data)
        if not is_raw[k]:
            height, width, pixels = shown[2], shown[3], np.int64(scratch.ctypes.data)
            if adler32(data) != sums[k] or not jpeg_size_is(data, height, width):
                return k
            size = np.int64(sizes[k])
            if region != 0:
                box = np.int64(boxes[k].ctypes.data)
                failed = _decode_region(
                    np.int64(region), source, size, height, width, box, pixels, np.int64(shown.ctypes.data)
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
