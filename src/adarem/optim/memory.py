"""Where tensors lie in memory: how far they reach, what their storages hold, whether two of them overlap."""

import functools
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


def addresses(xs: Iterable[Tensor]) -> list[int]:
    return list(map(Tensor.data_ptr, xs))


def ends(starts: Iterable[int], reaches: Iterable[int], xs: Iterable[Tensor]) -> list[int]:
    """The first address after each of ``xs``, by the address where it starts and the elements that it reaches."""
    return list(map(add, starts, map(mul, reaches, map(Tensor.element_size, xs))))


def storage_sizes(xs: Iterable[Tensor]) -> list[int]:
    """Bytes of the storage of each."""
    return list(map(torch.UntypedStorage.nbytes, map(Tensor.untyped_storage, xs)))


class Pieces(NamedTuple):
    """Pieces of memory, in order, no two of which overlap."""

    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, starts: Iterable[int], ends: Iterable[int]) -> "Pieces | None":
        """None where two overlap, or where one is nowhere."""
        pieces = cls(sorted(starts), sorted(ends))
        apart = all(map(le, pieces.ends, pieces.starts[1:]))  # each ends before the next starts
        return pieces if apart and all(pieces.starts[:1]) else None

    def are_clear_of(self, starts: Sequence[int], ends: Sequence[int]) -> bool:
        """Whether none of other pieces overlaps one of these, or is nowhere."""
        later = list(map(bisect_right, repeat(self.starts), starts))  # index of the next piece of these
        ends_before, starts_after = [0, *self.ends], [*self.starts, 1 << 64]
        return (
            all(starts)
            and all(map(le, map(ends_before.__getitem__, later), starts))
            and all(map(le, ends, map(starts_after.__getitem__, later)))
        )
