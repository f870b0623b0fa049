"""What the last check of a group's tensors found, and whether it holds for the tensors of this step.

The usual step has the tensors of the last one, but for gradients that may lie elsewhere. To compare them takes a
fraction of the time of a check.
"""

from array import array
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

from torch import Tensor

from adarem.optim import compat
from adarem.optim.memory import Pieces, addresses, ends, extent, storage_sizes
from adarem.optim.step import Memory, StepTensors

_LARGE = 3  # params, grads and exp_avgs; what follows is 0-dim


class _Found(NamedTuple):
    purpose: tuple[object, ...]
    guard: compat.TensorGuard  # types, shapes, strides and devices
    memory: Memory
    starts: list[list[int]]  # addresses, list by list
    storages: list[int]  # bytes, of the large tensors
    offsets: list[int]  # of gradients in their storages
    grad_reaches: list[int]
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
            scalars: lists of 0-dim tensors that the step reads besides ``tensors``, one for each parameter, or none.
            purpose: the settings that a check's answer depends on.
        """
        found, lists = self._found, (*tensors, *scalars)
        if found is None or found.purpose != purpose or [*map(len, lists)] != [*map(len, found.starts)]:
            return None
        try:
            found = _compare(found, lists)
        except (TypeError, NotImplementedError, RuntimeError):  # no tensor, or one without memory
            found = None
        self._found = found
        return None if found is None else found.memory._replace(tensors=tensors)

    def remember(self, memory: Memory, scalars: Sequence[Sequence[Tensor]], purpose: tuple[object, ...]) -> None:
        """Takes in what a check found, from the second time on that it finds the same: a first may be the last."""
        lists = (*memory.tensors, *scalars)
        seen = (purpose, addresses(lists[0]))
        again, self._looked_at = seen == self._looked_at, seen
        if not again or not memory.pointers:
            return
        starts = [addresses(xs) for xs in lists]
        reaches = [[abs(extent(x.size(), x.stride())) for x in xs] for xs in lists]
        stops = [ends(*of) for of in zip(starts, reaches, lists, strict=True)]
        others = Pieces.of(*(chain(xs[0], *xs[2:]) for xs in (starts, stops)))
        guard = compat.tensor_guard([*chain(*lists)]) if others else None
        if others and guard:
            storages = storage_sizes(chain(*lists[:_LARGE]))
            self._found = _Found(
                purpose, guard, memory, starts, storages, list(map(_offset, lists[1])), reaches[1], others
            )


_offset: Callable[[Tensor], int] = Tensor.storage_offset  # type: ignore[assignment]


def _compare(found: _Found, lists: Sequence[Sequence[Tensor]]) -> _Found | None:
    """What is found of tensors that are like those of before and lie as apart from each other; else None."""
    before, starts = found.starts, [addresses(xs) for xs in lists]  # raises for what no guard can look at
    if not compat.are_as_guarded(found.guard, [*chain(*lists)]):
        return None
    # A storage that shrinks moves; but then another time, perhaps to where it was.
    if storage_sizes(chain(*lists[:_LARGE])) != found.storages:
        return None
    if starts == before:
        return found
    if starts[0] != before[0] or starts[2:] != before[2:] or list(map(_offset, lists[1])) != found.offsets:
        return None
    stops = ends(starts[1], found.grad_reaches, lists[1])
    if Pieces.of(starts[1], stops) is None or not found.others.are_clear_of(starts[1], stops):
        return None
    pointers = list(found.memory.pointers)
    pointers[1] = array("Q", starts[1])
    return found._replace(starts=starts, memory=found.memory._replace(pointers=pointers))
