"""What the last check of a group's tensors found, and whether it holds for the tensors of this step.

The usual step has the tensors of the last one, but for gradients that may lie elsewhere. To compare them takes a
fraction of the time of a check.
"""

from array import array
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from torch import Tensor

from adarem.optim import compat
from adarem.optim.memory import Pieces, Storages, addresses, ends, extent
from adarem.optim.step import Memory, StepTensors

_LARGE = 3  # params, grads and exp_avgs; what follows is 0-dim


class _Found(NamedTuple):
    purpose: tuple[object, ...]
    guard: compat.TensorGuard  # types, shapes, strides and devices
    memory: Memory
    pointers: "list[array[int]]"
    storages: Storages  # of the large tensors
    grad_reaches: "list[int]"
    others: Pieces  # of all but the gradients


class LastCheck:
    """Of one group. It keeps numbers and no tensors, so that what is replaced or moved away is freed as without it."""

    def __init__(self) -> None:
        self._found: _Found | None = None
        self._looked_at: tuple[object, ...] = ()

    def recall(
        self, tensors: StepTensors, scalars: Sequence[Sequence[Tensor]], purpose: tuple[object, ...]
    ) -> Memory | None:
        """What the last check found, if it would find that again; else None.

        Args:
            scalars: lists of 0-dim tensors that the step writes besides ``tensors``, one for each parameter, or none.
            purpose: the settings that a check's answer depends on.
        """
        found, lists = self._found, (*tensors, *scalars)
        if found is None or found.purpose != purpose or [*map(len, lists)] != [*map(len, found.pointers)]:
            return None
        try:
            pointers = _compare(found, lists)
        except (TypeError, NotImplementedError, RuntimeError):  # no tensor, or one without memory
            pointers = None
        if pointers is None:
            self._found = None
            return None
        self._found = found._replace(pointers=pointers)
        return found.memory._replace(tensors=tensors, pointers=pointers[: len(tensors)])

    def remember(self, memory: Memory, scalars: Sequence[Sequence[Tensor]], purpose: tuple[object, ...]) -> None:
        """Takes in what a check found, from the second time on that it finds the same: a first may be the last."""
        lists = (*memory.tensors, *scalars)
        seen = (purpose, addresses(lists[0]).tobytes())
        again, self._looked_at = seen == self._looked_at, seen
        if not again or not memory.pointers:
            return
        pointers = [addresses(xs) for xs in lists]
        reaches = [[abs(extent(x.size(), x.stride())) for x in xs] for xs in lists]
        stops = [ends(*of) for of in zip(pointers, reaches, lists, strict=True)]
        others = Pieces.of(*(chain(xs[0], *xs[2:]) for xs in (pointers, stops)))
        guard = compat.tensor_guard([*chain(*lists)]) if others else None
        if others and guard:
            storages = Storages.of([*chain(*lists[:_LARGE])])
            self._found = _Found(purpose, guard, memory, pointers, storages, reaches[1], others)


def _compare(found: _Found, lists: Sequence[Sequence[Tensor]]) -> "list[array[int]] | None":
    """Addresses of tensors that are like those of before and lie as apart from each other; else None."""
    pointers = [addresses(xs) for xs in lists]
    everything, large = [*chain(*lists)], [*chain(*lists[:_LARGE])]
    if not compat.are_as_guarded(found.guard, everything) or Storages.of(large) != found.storages:
        return None
    before = found.pointers
    if pointers[0] != before[0] or pointers[2:] != before[2:]:
        return None
    if pointers[1] != before[1]:
        last = ends(pointers[1], found.grad_reaches, lists[1])
        if Pieces.of(pointers[1], last) is None or not found.others.are_clear_of(pointers[1], last):
            return None
    return pointers
