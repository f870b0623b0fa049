"""What the last check of a group's tensors found, and whether it holds for the tensors of this step.

The usual step has the tensors of the last one, but for gradients that may lie elsewhere. To compare them takes a
fraction of the time of a check.
"""

from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from operator import is_
from typing import NamedTuple

import torch
from torch import Tensor

from adarem.optim import compat
from adarem.optim.memory import Pieces, addresses, extent, sizes, storage_sizes
from adarem.optim.step import Memory, StepTensors

_LARGE = 3  # params, grads and exp_avgs; what follows is 0-dim


class Purpose(NamedTuple):
    """What the answer of a check depends on besides the tensors."""

    fused: bool  # then 0-dim tensors are read by nothing but their addresses
    scaled: bool  # whether the step writes the gradients too
    capturable: bool
    differentiable: bool
    one_sphere: bool


class _Found(NamedTuple):
    purpose: Purpose
    guards: "list[compat.TensorGuard]"  # types, shapes, strides and devices of each list
    small: Sequence[Sequence[Tensor]]  # the 0-dim tensors that must be the very same objects, for fused
    memory: Memory  # without tensors
    starts: "list[array[int]]"  # addresses, list by list
    storages: "array[int]"  # bytes, of the large tensors
    grad_offsets: "array[int]"  # in their storages
    grad_bytes: "array[int]"
    others: Pieces  # of all but the gradients


class LastCheck:
    """Of one group. It keeps numbers and no large tensors: what is replaced or moved away is freed as without it."""

    def __init__(self) -> None:
        self._found: _Found | None = None
        self._looked_at: tuple[object, ...] = ()

    @property
    def is_known(self) -> bool:
        return self._found is not None

    def recall(self, lists: Sequence[Sequence[Tensor]], purpose: Purpose) -> Memory | None:
        """What the last check found, if it would find that again; else None.

        Args:
            lists: as :class:`StepTensors`, then 0-dim tensors that the step reads too, one for each parameter.
        """
        found = self._found
        if found is None or found.purpose != purpose or [*map(len, lists)] != [*map(len, found.starts)]:
            return None
        try:
            found = _compare(found, lists)
        except (TypeError, NotImplementedError, RuntimeError):  # no tensor, or one without memory
            found = None
        self._found = found
        return None if found is None else found.memory._replace(tensors=StepTensors._make(map(list, lists[:6])))

    def remember(self, memory: Memory, scalars: Sequence[Sequence[Tensor]], purpose: Purpose) -> None:
        """Takes in what a check found, from the second time on that it finds the same: a first may be the last."""
        self._found = None
        if torch.compiler.is_compiling():  # between two graphs: a guard cannot be traced
            return
        lists = [xs for xs in (*memory.tensors, *scalars) if xs]
        seen = (purpose, memory.pointers[0]) if memory.pointers else ()
        again, self._looked_at = seen == self._looked_at, seen
        if not again or not seen:
            return
        starts = [addresses(xs) for xs in lists]
        nbytes = [sizes([abs(extent(x.size(), x.stride())) for x in xs], xs) for xs in lists]
        others = Pieces.of(*([*chain(xs[0], *xs[2:])] for xs in (starts, nbytes)))
        guards = [guard for xs in lists if (guard := compat.tensor_guard(xs))]
        if others and len(guards) == len(lists):
            small = lists[_LARGE:] if purpose.fused else []
            storages = storage_sizes(chain(*lists[:_LARGE]))
            offsets = array("q", list(map(_offset, lists[1])))
            numbers = memory._replace(tensors=StepTensors([], [], [], [], [], []))
            self._found = _Found(purpose, guards, small, numbers, starts, storages, offsets, nbytes[1], others)


_offset: Callable[[Tensor], int] = Tensor.storage_offset  # type: ignore[assignment]


def _compare(found: _Found, lists: Sequence[Sequence[Tensor]]) -> _Found | None:
    """What is found of tensors that are like those of before and lie as apart from each other; else None."""
    before, starts = found.starts, []
    same = [None] * (len(lists) - len(found.small)) + [*found.small]
    for xs, guard, known in zip(lists, found.guards, same, strict=True):  # by list: it stays in the processor's cache
        starts.append(addresses(xs))  # raises for what no guard can look at
        alike = compat.are_as_guarded(guard, xs) if known is None else all(map(is_, xs, known)) and guard.check(*xs)
        if not alike:
            return None
    # A storage that shrinks moves; but when it moves twice, perhaps to where it was.
    if storage_sizes(chain(*lists[:_LARGE])) != found.storages:
        return None
    if starts == before:
        return found
    grads = starts[1]
    if [starts[0], *starts[2:]] != [before[0], *before[2:]] or array("q", map(_offset, lists[1])) != found.grad_offsets:
        return None
    if found.purpose.scaled and Pieces.of(grads, found.grad_bytes) is None:  # else they may share with each other
        return None
    if not _are_clear(found, lists[0][0], grads):
        return None
    pointers = [*found.memory.pointers[:1], grads, *found.memory.pointers[2:]]
    return found._replace(starts=starts, memory=found.memory._replace(pointers=pointers))


def _are_clear(found: _Found, param: Tensor, grads: "array[int]") -> bool:
    if found.purpose.fused and param.is_cpu:
        from adarem.optim.kernels import cpu, fused  # here: others need no compiler

        if fused.available("cpu"):
            return cpu.are_clear(found.others, grads, found.grad_bytes)
    return found.others.are_clear_of(grads, found.grad_bytes)
