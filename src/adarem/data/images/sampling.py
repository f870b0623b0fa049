"""Order and augmentation as pure functions of (seed, epoch, sample index).

Nothing here depends on workers, ranks, batch sizes or what was read before. Order: the sorted stream of Philox4x64
(Salmon et al., SC 2011) keyed by (seed, epoch). Augmentation: draw number n of a sample is splitmix64 (Steele et al.,
OOPSLA 2014) of a key that is made of seed, epoch and index. `adarem.data.ffcv.kernels` computes the same numbers
compiled; a test compares them bit for bit. Standard library and numpy only.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# An index word carries the epoch next to the sample's index through loaders that know only indices.
INDEX_BITS = 40
INDEX_MASK = (1 << INDEX_BITS) - 1

_M64 = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15  # splitmix64's increment
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB
ATTEMPTS = 10  # random resized crop: tries before the fallback; four draws each
FLIP_DRAW = 4 * ATTEMPTS


def order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The permutation of 0..n-1 (int64 [n]) that one training epoch follows.

    numpy guarantees the raw stream of a bit generator across versions, but not that of Generator.permutation; hence
    the sort. Other seeds and other epochs have other keys, so no two share an order.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    return np.argsort(bits, kind="stable")


def train_batches(
    seed: int, epoch: int, n: int, global_batch_size: int, rank: int, world_size: int, start_step: int = 0
) -> NDArray[np.int64]:
    """Sample indices, int64 [steps - start_step, global_batch_size / world_size], of one rank.

    Global step k is the slice [k * global_batch_size, (k + 1) * global_batch_size) of the epoch's order whatever the
    world size; ranks take it in strides. The last incomplete global batch is dropped.
    """
    assert global_batch_size % world_size == 0 and 0 <= rank < world_size
    steps = n // global_batch_size
    used = order(seed, epoch, n)[: steps * global_batch_size]
    return used[rank::world_size].reshape(steps, global_batch_size // world_size)[start_step:]


def eval_shard(n: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """Sample indices of one rank: over all ranks each of 0..n-1 once, nothing padded, possibly none."""
    return np.arange(rank, n, world_size)


def index_words(epoch: int, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """``epoch << 40 | index``, uint64."""
    assert 0 <= epoch < 1 << (64 - INDEX_BITS)
    return np.uint64(epoch << INDEX_BITS) | indices.astype(np.uint64)


def mix(z: int) -> int:
    """splitmix64's finaliser."""
    z = (z ^ (z >> 30)) * MIX_1 & _M64
    z = (z ^ (z >> 27)) * MIX_2 & _M64
    return z ^ (z >> 31)


def sample_key(seed: int, word: int) -> int:
    """The key of a sample's draws, from the seed and its index word."""
    return mix(mix(seed + GAMMA & _M64) ^ mix(word * GAMMA + MIX_1 & _M64))


def uniform(key: int, n: int) -> float:
    """Draw number n of a sample, in [0, 1), with 53 bits."""
    return (mix(key + (n + 1) * GAMMA & _M64) >> 11) * 2.0**-53


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class ViewBox(NamedTuple):
    """What a view shows of an image: a box, in pixels, and whether it is flipped horizontally."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


def crop_box(key: int, height: int, width: int, area: tuple[float, ...], aspect: tuple[float, ...]) -> Box:
    """The box of a random resized crop.

    The algorithm of torchvision.transforms.RandomResizedCrop.get_params: share of the area uniform in ``area``, width /
    height log-uniform in ``aspect``, ten tries, then the largest centred box of a legal aspect.
    """
    log_low, log_high = math.log(aspect[0]), math.log(aspect[1])
    for t in range(ATTEMPTS):
        share = area[0] + (area[1] - area[0]) * uniform(key, 4 * t)
        ratio = math.exp(log_low + (log_high - log_low) * uniform(key, 4 * t + 1))
        box = drawn_box(height, width, share, ratio, uniform(key, 4 * t + 2), uniform(key, 4 * t + 3))
        if box.height:
            return box
    return largest_box(height, width, aspect[0], aspect[1])


# The kernels compile the next two functions from here. numba's cache sees only kernels.py: change a line there too.


def drawn_box(height: int, width: int, share: float, ratio: float, y: float, x: float) -> Box:
    """The box of a share of the area and of width / height = ratio, at (y, x) in [0, 1); of height 0 if it is larger
    than the image.
    """
    target = height * width * share
    w = math.floor(math.sqrt(target * ratio) + 0.5)
    h = math.floor(math.sqrt(target / ratio) + 0.5)
    if 0 < w <= width and 0 < h <= height:
        return Box(math.floor(y * (height - h + 1)), math.floor(x * (width - w + 1)), h, w)
    return Box(0, 0, 0, 0)


def largest_box(height: int, width: int, aspect_low: float, aspect_high: float) -> Box:
    """The largest centred box of a legal aspect."""
    w, h = width, height
    if width < height * aspect_low:
        h = min(height, max(1, math.floor(width / aspect_low + 0.5)))
    elif width > height * aspect_high:
        w = min(width, max(1, math.floor(height * aspect_high + 0.5)))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def flipped(key: int, probability: float) -> bool:
    """Whether a sample is flipped horizontally."""
    return uniform(key, FLIP_DRAW) < probability


def centre_box(height: int, width: int, resize: int, crop: int) -> Box:
    """The box of what torchvision's Resize(resize), CenterCrop(crop) shows, to the nearest pixel.

    In torchvision's arithmetic: the shorter side becomes ``resize``, the longer int(resize * longer / shorter), offsets
    are rounded in the resized image.
    """
    shorter = min(height, width)

    def span(side: int) -> tuple[int, int]:
        resized = int(resize * side / shorter)
        length = max(1, round(crop * side / resized))
        start = round(int(round((resized - crop) / 2.0)) * side / resized)
        return min(start, side - length), length

    (top, box_height), (left, box_width) = span(height), span(width)
    return Box(top, left, box_height, box_width)


class Size(NamedTuple):
    """Of an image, in pixels."""

    height: int
    width: int


def stored_size(height: int, width: int, max_side: int) -> Size:
    """The size after the longer side is scaled down to max_side, in FFCV's arithmetic (fields/rgb_image.py)."""
    ratio = max_side / max(height, width)
    if ratio >= 1:
        return Size(height, width)
    return Size(max(1, int(ratio * height)), max(1, int(ratio * width)))


@dataclass(frozen=True)
class RandomCrop:
    """The training view: random resized crop and horizontal flip."""

    seed: int
    size: int  # pixels, side of the output
    area: tuple[float, ...]
    aspect: tuple[float, ...]
    flip: float

    def box(self, word: int, height: int, width: int) -> ViewBox:
        """What is shown of the sample with this index word, an image of height x width."""
        key = sample_key(self.seed, word)
        return ViewBox(*crop_box(key, height, width, self.area, self.aspect), flipped(key, self.flip))


@dataclass(frozen=True)
class CentreCrop:
    """The evaluation's view."""

    resize: int  # pixels, shorter side before the crop
    size: int  # pixels, side of the output

    def box(self, word: int, height: int, width: int) -> ViewBox:
        """What is shown of an image of height x width; the index word makes no difference."""
        return ViewBox(*centre_box(height, width, self.resize, self.size), False)


View = RandomCrop | CentreCrop
