"""Where tensors lie in memory: how far they reach, what their storages hold, whether two of them overlap."""

import functools
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import add, le, mul
from typing import NamedTuple

import torch
from torch import Tensor


@functools.lru_cache(maxsize=1 << 14)
def extent(size: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements from the first to the last in memory, negated if more than one index may refer to one of them."""
    reach, distinct = 1, True
    for step, n in sorted((step, n) for step, n in zip(stride, size, strict=True) if n > 1):
        distinct = distinct and step >= reach
        reach += (n - 1) * step
    return reach if distinct else -reach


def fits(x: Tensor, reach: int) -> bool:
    """Whether its storage holds ``reach`` elements from its first one on."""
    return x.untyped_storage().nbytes() >= (x.storage_offset() + reach) * x.element_size()


def addresses(xs: Iterable[Tensor]) -> "array[int]":
    return array("Q", list(map(Tensor.data_ptr, xs)))  # a list first: from an iterator it takes twice as long


def sizes(reaches: Iterable[int], xs: Iterable[Tensor]) -> "array[int]":
    """Bytes from the first to the last element of each."""
    return array("Q", map(mul, reaches, map(Tensor.element_size, xs)))


def storage_sizes(xs: Iterable[Tensor]) -> "array[int]":
    """Bytes of the storage of each."""
    return array("Q", list(map(torch.UntypedStorage.nbytes, map(Tensor.untyped_storage, xs))))


class Pieces(NamedTuple):
    """Pieces of memory, no two of which overlap, in order."""

    starts: "array[int]"
    ends: "array[int]"

    @classmethod
    def of(cls, starts: Sequence[int], nbytes: Sequence[int]) -> "Pieces | None":
        """None where two overlap, or where one is nowhere."""
        first, after = sorted(starts), sorted(map(add, starts, nbytes))
        if not all(first[:1]) or not all(map(le, after, first[1:])):  # each ends before the next starts
            return None
        return cls(array("Q", first), array("Q", after))

    def are_clear_of(self, starts: "array[int]", nbytes: "array[int]") -> bool:
        """Whether none of other pieces overlaps one of these, or is nowhere."""
        later = list(map(bisect_right, repeat(self.starts), starts))  # index of the next piece of these
        ends_before, next_starts = [0, *self.ends], [*self.starts, 1 << 64]
        return (
            all(starts)
            and all(map(le, map(ends_before.__getitem__, later), starts))
            and all(map(le, map(add, starts, nbytes), map(next_starts.__getitem__, later)))
        )
