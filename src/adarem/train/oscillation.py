"""How much parameters oscillate: the paper's index Q (section 3.2.2, Figures 1 and 2).

For each single parameter, the path length l is the distance that it travelled since the window's start, and the
displacement d is the distance from its start to its end; q = l / d, and Q is the mean of q. The parameters that came
back near their start dominate the mean, so each record also has the median, the ratio of the sums, and the share of
parameters left out (d = 0). A parameter that never gets a gradient, such as a kernel's tap that sees padding only, is
moved by weight decay alone; so the record separates parameters with a gradient from those without. Tracking changes
nothing in training; it makes the host wait for the device only at a window's end.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from adarem.optim import compat

# Where the watched ones lie among the network's weights but the last: early, in the middle and late.
_DEPTHS = (1 / 6, 3 / 6, 5 / 6)


class Trajectory(TypedDict):
    """One watched parameter over one span of steps."""

    parameter: str  # name and index: layer2.0.conv1.weight[17, 5, 1, 1]
    from_step: int  # steps done before
    values: list[float]  # at the span's start and after each of its steps


class OscillationWindow(TypedDict):
    """One record of oscillation.jsonl. A statistic over no parameters is None."""

    q_mean: float | None  # the paper's Q, over parameters with d > 0
    q_median: float | None
    q_mean_with_gradient: float | None  # over those of them that got a gradient within the window
    q_median_with_gradient: float | None
    q_mean_without_gradient: float | None  # over the others
    q_of_sums: float | None  # sum of l over sum of d
    share_left_out: float | None  # of parameters with d = 0
    share_without_gradient: float | None
    parameters: int
    window_steps: int
    trajectories: list[Trajectory]  # finished within the window


class SpanState(TypedDict):
    """A finished span of the watched entries in a checkpoint."""

    from_step: int
    values: Tensor  # [steps + 1, watched entries]


class TrajectoryState(TypedDict):
    """The watched entries in a checkpoint."""

    step: int
    rows: list[Tensor]  # of the current span
    done: list[SpanState]


class OscillationState(TypedDict):
    """An ``OscillationTracker`` in a checkpoint; one tensor for each parameter."""

    start: list[Tensor]
    previous: list[Tensor]
    path: list[Tensor]
    driven: list[Tensor]
    steps: int  # of the current window
    trajectories: TrajectoryState


class OscillationTracker:
    """Follows every trainable parameter of a model, step by step.

    Keeps three float32 copies of the parameters (start, previous, path), and for each parameter one byte that says
    whether it got a gradient. Under DDP one rank tracks for all, since the parameters are the same everywhere.

    Args:
        named_parameters: those to track; order matters for ``state_dict``.
        seed: chooses which entries of the watched tensors have their trajectory kept.
        total_steps: of the run, of which the first, the middle and the last ``watched_steps`` are kept.
        watched_steps: no more than a third of ``total_steps`` is taken; 0 keeps none.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        seed: int = 0,
        total_steps: int = 0,
        watched_steps: int = 2000,
    ) -> None:
        named = [(name, p) for name, p in named_parameters if p.requires_grad]
        self._parameters = [p for _, p in named]
        self._start = [p.detach().float().clone() for p in self._parameters]
        self._previous = [p.clone() for p in self._start]
        self._path = [torch.zeros_like(p) for p in self._start]
        self._driven = [torch.zeros_like(p, dtype=torch.bool) for p in self._start]
        self._steps = 0  # of the current window
        self._trajectories = _TrajectoryRecorder(named, seed, total_steps, watched_steps)

    @torch.no_grad()
    def see_gradients(self) -> None:
        """Between the backward pass and the optimizer's step, which may change gradients. No host synchronisation."""
        for driven, p in zip(self._driven, self._parameters, strict=True):
            if p.grad is not None:
                driven.logical_or_(p.grad)

    @torch.no_grad()
    def observe(self) -> None:
        """After each optimizer step. No host synchronisation."""
        now = [p.detach().float() for p in self._parameters]
        compat.foreach_sub_(self._previous, now)
        compat.foreach_abs_(self._previous)
        compat.foreach_add_(self._path, self._previous)
        compat.foreach_copy_(self._previous, now)
        self._steps += 1
        self._trajectories.observe()

    @torch.no_grad()
    def end_window(self) -> OscillationWindow:
        """Q and its companions over the window, and the trajectories finished in it; then a new window begins."""
        ratios, with_gradient = [], []
        path_sum = distance_sum = 0.0
        left_out = without_gradient = count = 0
        for start, now, path, driven in zip(self._start, self._previous, self._path, self._driven, strict=True):
            distance = (now.double() - start.double()).abs_().flatten()
            length = path.double().flatten()
            moved = distance > 0
            ratios.append((length[moved] / distance[moved]).cpu())
            with_gradient.append(driven.flatten()[moved].cpu())
            path_sum += float(length.sum())
            distance_sum += float(distance.sum())
            left_out += int((~moved).sum())
            without_gradient += int((~driven).sum())
            count += distance.numel()
        q = torch.cat(ratios) if ratios else torch.empty(0, dtype=torch.float64)
        mask = torch.cat(with_gradient) if ratios else torch.empty(0, dtype=torch.bool)
        record: OscillationWindow = {
            "q_mean": _mean(q),
            "q_median": _median(q),
            "q_mean_with_gradient": _mean(q[mask]),
            "q_median_with_gradient": _median(q[mask]),
            "q_mean_without_gradient": _mean(q[~mask]),
            "q_of_sums": path_sum / distance_sum if distance_sum else None,
            "share_left_out": left_out / count if count else None,
            "share_without_gradient": without_gradient / count if count else None,
            "parameters": count,
            "window_steps": self._steps,
            "trajectories": self._trajectories.take(),
        }
        for start, now, path, driven in zip(self._start, self._previous, self._path, self._driven, strict=True):
            start.copy_(now)
            path.zero_()
            driven.zero_()
        self._steps = 0
        return record

    def state_dict(self) -> OscillationState:
        return {
            "start": self._start,
            "previous": self._previous,
            "path": self._path,
            "driven": self._driven,
            "steps": self._steps,
            "trajectories": self._trajectories.state_dict(),
        }

    def load_state_dict(self, state: OscillationState) -> None:
        for mine, theirs in (
            (self._start, state["start"]),
            (self._previous, state["previous"]),
            (self._path, state["path"]),
            (self._driven, state["driven"]),
        ):
            for tensor, saved in zip(mine, theirs, strict=True):
                tensor.copy_(saved)
        self._steps = state["steps"]
        self._trajectories.load_state_dict(state["trajectories"])


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if values.numel() else None


def _median(values: Tensor) -> float | None:
    return float(values.median()) if values.numel() else None


class WatchedEntry(NamedTuple):
    """One single parameter whose trajectory is kept."""

    label: str  # the tensor's name and the index
    tensor: nn.Parameter
    at: tuple[int, ...]  # the index


def watched_entries(named: Sequence[tuple[str, nn.Parameter]], seed: int) -> list[WatchedEntry]:
    """Which single parameters are watched: a function of the model and the seed, the same for every optimizer.

    One entry of an early, a middle and a late weight (tensors of two dimensions or more) and of the last one, the
    classifier; of a kernel its centre tap, which sees the image wherever the outer taps see padding only.
    """
    weights = [(name, p) for name, p in named if p.dim() >= 2 and p.numel()]
    if not weights:
        return []
    inner = weights[:-1]
    chosen = dict.fromkeys([int(depth * len(inner)) for depth in _DEPTHS if inner] + [len(weights) - 1])
    generator = torch.Generator().manual_seed(seed)
    found = []
    for name, p in (weights[i] for i in chosen):
        channels = [int(torch.randint(size, (), generator=generator)) for size in p.shape[:2]]
        index = (*channels, *(size // 2 for size in p.shape[2:]))
        found.append(WatchedEntry(f"{name}[{', '.join(map(str, index))}]", p, index))
    return found


class _Span(NamedTuple):
    from_step: int
    values: Tensor  # [steps + 1, watched entries]


class _TrajectoryRecorder:
    """The watched entries at each step of three spans of the run, kept on the device until a window ends."""

    def __init__(
        self, named: Sequence[tuple[str, nn.Parameter]], seed: int, total_steps: int, watched_steps: int
    ) -> None:
        self._entries = watched_entries(named, seed)
        length = min(watched_steps, total_steps // 3) if self._entries else 0
        self._length = length
        self._begins = [0, (total_steps - length) // 2, total_steps - length] if length else []
        self._step = 0  # steps of the run that were observed
        self._rows: list[Tensor] = []  # of the current span
        self._done: list[_Span] = []  # since the last window's end
        self._begin_span()

    def _row(self) -> Tensor:
        return torch.stack([e.tensor.detach()[e.at].float() for e in self._entries])

    def _begin_span(self) -> None:
        if self._step in self._begins:
            self._rows = [self._row()]

    def observe(self) -> None:
        """After each optimizer step. No host synchronisation."""
        self._step += 1
        if self._rows:
            self._rows.append(self._row())
            if len(self._rows) == self._length + 1:
                self._done.append(_Span(self._step - self._length, torch.stack(self._rows)))
                self._rows = []
        self._begin_span()

    def take(self) -> list[Trajectory]:
        """The spans that ended since the last call, one record for each watched entry."""
        done, self._done = self._done, []
        return [
            {"parameter": entry.label, "from_step": span.from_step, "values": [_short(v) for v in values]}
            for span in done
            for entry, values in zip(self._entries, span.values.T.tolist(), strict=True)
        ]

    def state_dict(self) -> TrajectoryState:
        done: list[SpanState] = [{"from_step": span.from_step, "values": span.values} for span in self._done]
        return {"step": self._step, "rows": list(self._rows), "done": done}

    def load_state_dict(self, state: TrajectoryState) -> None:
        device = self._entries[0].tensor.device if self._entries else None
        self._step = state["step"]
        self._rows = [r.to(device, copy=True) for r in state["rows"]]
        self._done = [_Span(span["from_step"], span["values"].to(device, copy=True)) for span in state["done"]]


def _short(value: float) -> float:
    """The same float32 with the fewest digits that identify it: half the bytes in JSON."""
    return float(f"{value:.9g}")
