"""Memory layout for code that walks over raw memory: the k-th element in memory must be the same element everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def is_dense(p: Tensor) -> bool:
    """Whether the elements fill their piece of memory without gaps or overlaps, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(p.stride(), p.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


@contextmanager
def one_layout(*lists: list[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """The lists with their k-th tensors in one dense layout, for every k.

    Where the k-th tensors differ, or have gaps, all of them are copied, and what was written to the copies goes back
    at the end.
    """
    if all(all(map(Tensor.is_contiguous, tensors)) for tensors in lists):
        yield lists
        return
    dense = list(zip(*map(_dense, *lists), strict=True))
    yield tuple(map(list, dense))
    pairs = [
        (original, copy)
        for originals, copies in zip(lists, dense, strict=True)
        for original, copy in zip(originals, copies, strict=True)
        if copy is not original
    ]
    if pairs:
        torch._foreach_copy_(*map(list, zip(*pairs, strict=True)))


def _dense(*tensors: Tensor) -> tuple[Tensor, ...]:
    if all(map(Tensor.is_contiguous, tensors)):
        return tensors
    if len({t.stride() for t in tensors}) == 1 and is_dense(tensors[0]):
        return tensors
    return tuple(t.clone(memory_format=torch.contiguous_format) for t in tensors)
