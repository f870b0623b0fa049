"""What the optimizer does to the weights at every N-th step, for steps.jsonl.

All values are computed on the device, in operations that ask for none of them. They travel to the host in one copy, and
are read at the next watched step or at the epoch's end, when the copy has long arrived: the loop waits for nothing. No
training value is written and no random number drawn, so that a watched run ends with the same bits. Parameters and
gradients are the same on every rank, so rank 0 watches for all; the loss is that of its own part of the batch.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from adarem.optim import AdaRem, agreement, compat
from adarem.run.config import MOST_WATCHED

MOST_GROUPS = 12  # of layers
_DIGITS = 6  # significant ones of a value: float32 has hardly more


def interval(every: int, total_steps: int) -> int:
    """Steps between two watched ones: ``every``, doubled until there are at most MOST_WATCHED of them; 0: none."""
    while every and total_steps // every > MOST_WATCHED:
        every *= 2
    return every


def layer_groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Parameters by the part of the network that they belong to, at most MOST_GROUPS of them, in the network's order.

    The parts are the network's children; one that holds more than half of all tensors is replaced by its own children.
    Where these are too many, neighbours are taken together: ``features.0-2``.

    Args:
        names: of the parameters, as ``named_parameters`` gives them.
    """
    groups = {"": list(names)}
    while True:
        largest = max(groups, key=lambda name: len(groups[name]))
        parts = _children(largest, groups[largest])
        if len(groups[largest]) * 2 <= len(names) or parts.keys() == {largest}:
            return groups
        room = MOST_GROUPS - (len(groups) - 1)
        split = {largest: parts if len(parts) <= room else _joined(parts, room)}
        groups = {new: of for name in groups for new, of in split.get(name, {name: groups[name]}).items()}
        if len(parts) > room:
            return groups


def _children(prefix: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Names below a module by the next word of their path."""
    depth = prefix.count(".") + 2 if prefix else 1
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return found


def _joined(parts: Mapping[str, list[str]], room: int) -> dict[str, list[str]]:
    """Neighbours together, so that there are ``room``, each of about the same number of parts."""
    order, found = list(parts), {}
    for k in range(room):
        own = order[k * len(order) // room : (k + 1) * len(order) // room]
        name = own[0] if len(own) == 1 else f"{own[0]}-{own[-1].rpartition('.')[2]}"
        found[name] = [p for part in own for p in parts[part]]
    return found


class _OfB(NamedTuple):
    """Sums of b over one parameter's elements."""

    positive: float  # elements with b > 0
    total: float
    norm: float  # root of the sum of b²
    weight: float  # λᵏ


@dataclass(frozen=True)
class _Pending:
    """A watched step whose values may not have arrived on the host yet."""

    step: int
    lr: float
    values: Tensor  # float64: rows of the parameters' values, then two numbers; on the host once the event is done
    event: Any  # torch.cuda.Event; None on the CPU, where values are there at once
    has_gradient: Sequence[bool]  # by parameter
    of_b: Sequence[int]  # places of the parameters that have a b


class StepWatch:
    """Watches the optimizer of one run. A watched step calls, in this order, ``see_gradients``, ``before_step``,
    ``after_step``.

    Keeps one copy of the trainable parameters.

    Args:
        model: whose trainable parameters are watched.
        optimizer: of the run; of AdaRem and AdaRem-S, b is watched too.
        scaler: of the run's gradients.
        every: steps between two watched ones, at least 1.
        write: takes the record of each watched step, in their order.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        scaler: GradScaler,
        every: int,
        write: Callable[[Mapping[str, object]], None],
    ) -> None:
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._parameters: list[Tensor] = list(named.values())
        place = {name: i for i, name in enumerate(named)}
        self._groups = {name: [place[p] for p in of] for name, of in layer_groups(list(named)).items() if of}
        self._place = {p: i for i, p in enumerate(self._parameters)}
        self._sizes = [p.numel() for p in self._parameters]
        self._optimizer, self._scaler, self._every, self._write = optimizer, scaler, every, write
        self._before: list[Tensor] = []  # the parameters before the step; memory that is kept
        self._pending: deque[_Pending] = deque()
        self._rows: list[Tensor] = []  # of this step: one value for each parameter
        self._has_gradient: list[bool] = []
        self._of_b: list[int] = []
        self._scale = torch.empty(0)

    def due(self, step: int) -> bool:
        """Whether the step that completes ``step`` steps is watched."""
        return step % self._every == 0

    @torch.no_grad()
    def see_gradients(self) -> None:
        """After the backward pass, before gradients are unscaled or clipped. Writes the watched steps that arrived."""
        self._read(wait=False)
        device = self._parameters[0].device
        self._scale = self._scaler.scale(torch.ones((), device=device))  # a device value; get_scale would wait for it
        self._has_gradient = [p.grad is not None for p in self._parameters]
        zero = torch.zeros((), device=device)
        norms = iter(_norms([_values(p.grad) for p in self._parameters if p.grad is not None]))
        self._rows = [torch.stack([next(norms) if has else zero for has in self._has_gradient]) / self._scale]

    @torch.no_grad()
    def before_step(self, *, unscaled: bool) -> None:
        """Right before the optimizer's step; ``unscaled``: gradients are not multiplied by the scaler's scale."""
        if not self._before:
            self._before = [torch.empty_like(p) for p in self._parameters]
        compat.foreach_copy_(self._before, self._parameters)
        self._rows.append(torch.stack(_norms(self._before)))
        self._of_b = []
        if isinstance(self._optimizer, AdaRem):
            sums = []
            for a in agreement(self._optimizer, None if unscaled else self._scale):
                self._of_b.append(self._place[a.param])
                sums.append((torch.count_nonzero(a.b > 0), a.b.sum(), torch.linalg.vector_norm(a.b), a.weight))
            self._rows += [torch.stack(column) for column in zip(*sums, strict=True)]

    @torch.no_grad()
    def after_step(self, step: int, lr: float, totals: Tensor) -> None:
        """After the optimizer's step.

        Args:
            step: optimizer steps completed.
            lr: of the step.
            totals: of this rank's part of the batch: the sum of losses first, the count last. On the device.
        """
        compat.foreach_sub_(self._before, self._parameters)
        gradients, weights, *of_b = self._rows
        updates = torch.stack(_norms(self._before))
        rows = [gradients, weights, updates, *of_b, totals[:1], totals[-1:]]
        values, event = torch.cat([_on(gradients.device, row.double()) for row in rows]), None
        if values.is_cuda:
            on_device, values = values, torch.empty_like(values, device="cpu", pin_memory=True)
            values.copy_(on_device, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch annotates no part of it
            event.record()
        self._pending.append(_Pending(step, lr, values, event, self._has_gradient, self._of_b))
        self._rows = []

    def flush(self) -> None:
        """Writes what is not written yet, and waits for it: where the loop waits for the device anyway."""
        self._read(wait=True)

    def _read(self, *, wait: bool) -> None:
        while self._pending:
            event = self._pending[0].event
            if event is not None and wait:
                event.synchronize()
            elif event is not None and not event.query():
                return
            self._write(self._record(self._pending.popleft()))

    def _record(self, seen: _Pending) -> dict[str, object]:
        numbers, n, k = seen.values.tolist(), len(self._parameters), len(seen.of_b)
        gradients, weights, updates = (numbers[i * n : (i + 1) * n] for i in range(3))
        columns = [numbers[3 * n + i * k : 3 * n + (i + 1) * k] for i in range(4)]
        of_b = {place: _OfB(*values) for place, *values in zip(seen.of_b, *columns, strict=True)}

        def over(places: Sequence[int]) -> dict[str, float | None]:
            update, weight = _norm([updates[i] for i in places]), _norm([weights[i] for i in places])
            found = {
                "grad_norm": _short(_norm([gradients[i] for i in places if seen.has_gradient[i]])),
                "update_norm": _short(update),
                "weight_norm": _short(weight),
                "update_to_weight": _short(update / weight) if weight else None,
            }
            return found | self._of_rates({i: of_b[i] for i in places if i in of_b})

        loss_sum, count = numbers[-2:]
        return {
            "step": seen.step,
            "loss": _short(loss_sum / count) if count else None,
            "lr": _short(seen.lr),
            **over(range(n)),
            "layers": {name: over(places) for name, places in self._groups.items()},
        }

    def _of_rates(self, of_b: Mapping[int, _OfB]) -> dict[str, float | None]:
        """Of b over all elements that have one, and the deviation of their rates, as a share of the scheduled rate."""
        elements = sum(self._sizes[i] for i in of_b)
        if not elements:
            return {}
        sums = of_b.values()
        mean = sum(b.weight * b.total for b in sums) / elements
        squares = [b.weight * b.norm for b in sums]
        variance = sum(x * x for x in squares) / elements - mean * mean
        return {
            "b_positive": _short(sum(b.positive for b in sums) / elements),
            "b_mean": _short(sum(b.total for b in sums) / elements),
            "rate_spread": _short(math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan),
        }


def _values(grad: Tensor) -> Tensor:
    return grad.coalesce().values() if grad.is_sparse else grad


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    """0-dim each; of 16-bit tensors in float32."""
    if any(t.dtype.itemsize < 4 for t in tensors):
        return [torch.linalg.vector_norm(t, dtype=torch.float32 if t.dtype.itemsize < 4 else None) for t in tensors]
    return list(compat.foreach_norm(tensors)) if tensors else []


def _on(device: torch.device, values: Tensor) -> Tensor:
    """AdaRem's counts may be on the host: copied from pinned memory, for which nobody waits."""
    return values if values.device == device else values.pin_memory().to(device, non_blocking=True)


def _norm(of_parts: Sequence[float]) -> float:
    """Of all parts together. NaN if any is."""
    return math.sqrt(sum(x * x for x in of_parts))


def _short(value: float) -> float | None:
    """None of what is not finite, which JSON has no number for."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
