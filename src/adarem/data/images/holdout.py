"""Which training images a run holds out and is evaluated on: a pure function of labels, number and seed.

Stratified: every class gives its share. Of a class those images are taken whose draws are smallest, so that of one
seed a larger part holds a smaller one's images, but for what rounding moves between classes.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from adarem.run.config import DataConfig
from adarem.run.errors import UserError

# The second word of Philox's key, where the order of images has the epoch, which is never as large.
_IMAGES, _CLASSES = (1 << 64) - 1, (1 << 64) - 2


def held_out(labels: NDArray[np.signedinteger], holdout: int | float, seed: int) -> NDArray[np.int64]:
    """The places of the images that are held out, in order: int64 [k].

    Args:
        labels: of all training images, [n].
        holdout: k, or the share of n, below 1.
        seed: other seeds hold out other images.

    Raises:
        UserError: that is no image, or leaves a class without one to train on.
    """
    n, key = len(labels), f"data.holdout={holdout}"
    k = holdout if isinstance(holdout, int) else round(holdout * n)
    classes, sizes = np.unique(labels, return_counts=True)
    if k < 1:
        raise UserError(f"{key}: is less than one of {n:,} training images; raise it")
    if k > n - len(classes):
        raise UserError(
            f"{key}: leaves a class of the {n:,} training images without one to train on; hold out "
            f"{n - len(classes):,} at most"
        )
    counts = _apportioned(sizes, k, _draws(seed, _CLASSES, len(classes)))
    draws = _draws(seed, _IMAGES, n)
    order = np.lexsort((draws, labels))  # by class, in it by draw
    starts = np.cumsum(sizes) - sizes
    place = np.arange(n) - np.repeat(starts, sizes)
    return np.sort(order[place < np.repeat(counts, sizes)]).astype(np.int64)


def _draws(seed: int, what: int, n: int) -> NDArray[np.uint64]:
    return np.random.Philox(key=np.array([seed, what], np.uint64)).random_raw(n)


def _apportioned(sizes: NDArray[np.int64], k: int, draws: NDArray[np.uint64]) -> NDArray[np.int64]:
    """k images over classes of these sizes by largest remainders, ties by draw; each class keeps one at least."""
    n = int(sizes.sum())
    counts = sizes * k // n
    remainders = sizes * k % n
    by_remainder = np.lexsort((draws, -remainders))
    while (left := k - int(counts.sum())) > 0:
        room = by_remainder[counts[by_remainder] < sizes[by_remainder] - 1]
        counts[room[:left]] += 1
    return counts


def rest(held: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The places of the other images of n, in order: int64 [n - k]."""
    return np.setdiff1d(np.arange(n), held, assume_unique=True)


def record(data: DataConfig, held: NDArray[np.int64], train_hash: str) -> dict[str, object]:
    """What a run records of the images that it holds out, next to the fingerprint of the file that has them all.

    Args:
        held: their places.
        train_hash: the content hash of all training images.
    """
    digest = hashlib.sha256(train_hash.encode() + held.astype("<i8").tobytes())
    return {
        "split": "holdout",
        "num_images": len(held),
        "content_hash": digest.hexdigest(),  # of which images, and of what they are a part of
        "holdout": data.holdout,
        "holdout_seed": data.holdout_seed,
    }
