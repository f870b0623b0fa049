"""How much parameters oscillate: the paper's index Q (section 3.2.2, Figures 1 and 2).

For each single parameter the path length l is the distance that it travelled since the window's start and the
displacement d the distance from there to where it is; q = l / d, and Q is the mean of q. The mean is ruled by those
that came back to where they began, so the median, the ratio of the sums and the share of parameters left out (d = 0)
stand beside it. A parameter that never gets a gradient, such as a tap of a kernel that sees padding only, is moved by
what the optimizer makes of weight decay alone; so those that do get one are told apart, and the mean of the others is
kept too. Tracking observes and never steers; it makes the host wait for the device only at a window's end.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Of the network's weights but the last, where the watched ones lie: early, in the middle and late.
_DEPTHS = (1 / 6, 3 / 6, 5 / 6)


class OscillationTracker:
    """Follows every trainable parameter of a model, step by step.

    Keeps three float32 copies of the parameters (start, previous, path) and a byte for each on its gradient. Under DDP
    one rank tracks for all, since the parameters are the same everywhere.

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
        self._steps = 0  # of the window under way
        self._watch = _Watch(named, seed, total_steps, watched_steps)

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
        torch._foreach_sub_(self._previous, now)
        torch._foreach_abs_(self._previous)
        torch._foreach_add_(self._path, self._previous)
        torch._foreach_copy_(self._previous, now)
        self._steps += 1
        self._watch.observe()

    @torch.no_grad()
    def end_window(self) -> dict[str, Any]:
        """Q and its companions over the window, and the trajectories finished in it; then a new window begins here.

        Returns:
            ``q_mean`` (the paper's Q) and ``q_median`` over parameters with d > 0, ``q_mean_with_gradient`` and
            ``q_median_with_gradient`` over those of them that got a gradient in the window, ``q_mean_without_gradient``
            over the others, None where there are none;
            ``q_of_sums`` (sum of l over sum of d), ``share_left_out`` (parameters with d = 0),
            ``share_without_gradient``, ``parameters``, ``window_steps``, and ``trajectories``: for each watched
            parameter its ``parameter`` (name and place), ``from_step`` (steps done before) and ``values`` (there and
            after each step).
        """
        ratios, of_driven, path_sum, distance_sum, left_out, idle, count = [], [], 0.0, 0.0, 0, 0, 0
        for start, now, path, driven in zip(self._start, self._previous, self._path, self._driven, strict=True):
            distance = (now.double() - start.double()).abs_().flatten()
            length = path.double().flatten()
            moved = distance > 0
            ratios.append((length[moved] / distance[moved]).cpu())
            of_driven.append(driven.flatten()[moved].cpu())
            path_sum += float(length.sum())
            distance_sum += float(distance.sum())
            left_out += int((~moved).sum())
            idle += int((~driven).sum())
            count += distance.numel()
        q = torch.cat(ratios) if ratios else torch.empty(0, dtype=torch.float64)
        moved_driven = torch.cat(of_driven) if ratios else torch.empty(0, dtype=torch.bool)
        q_driven, q_idle = q[moved_driven], q[~moved_driven]
        record = {
            "q_mean": float(q.mean()) if q.numel() else None,
            "q_median": float(q.median()) if q.numel() else None,
            "q_mean_with_gradient": float(q_driven.mean()) if q_driven.numel() else None,
            "q_median_with_gradient": float(q_driven.median()) if q_driven.numel() else None,
            "q_mean_without_gradient": float(q_idle.mean()) if q_idle.numel() else None,
            "q_of_sums": path_sum / distance_sum if distance_sum else None,
            "share_left_out": left_out / count if count else None,
            "share_without_gradient": idle / count if count else None,
            "parameters": count,
            "window_steps": self._steps,
            "trajectories": self._watch.take(),
        }
        for start, now, path, driven in zip(self._start, self._previous, self._path, self._driven, strict=True):
            start.copy_(now)
            path.zero_()
            driven.zero_()
        self._steps = 0
        return record

    def state_dict(self) -> dict[str, Any]:
        return {
            "start": self._start,
            "previous": self._previous,
            "path": self._path,
            "driven": self._driven,
            "steps": self._steps,
            "watch": self._watch.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, theirs in (
            (self._start, state["start"]),
            (self._previous, state["previous"]),
            (self._path, state["path"]),
            (self._driven, state["driven"]),
        ):
            for tensor, saved in zip(mine, theirs, strict=True):
                tensor.copy_(saved)
        self._steps = state["steps"]
        self._watch.load_state_dict(state["watch"])


def watched_places(named: list[tuple[str, nn.Parameter]], seed: int) -> list[tuple[str, nn.Parameter, tuple[int, ...]]]:
    """Which single parameters are watched: a function of the model and the seed, the same for every optimizer.

    One entry of an early, a middle and a late weight (tensors of two dimensions or more) and of the last one, the
    classifier; of a kernel its centre tap, which sees the image wherever the outer taps see padding only.

    Returns:
        Name with the place (``layer2.0.conv1.weight[17, 5, 1, 1]``), tensor, place.
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
        place = (*channels, *(size // 2 for size in p.shape[2:]))
        found.append((f"{name}[{', '.join(map(str, place))}]", p, place))
    return found


class _Watch:
    """The values of the watched parameters at each step of three spans, kept on the device until a window ends."""

    def __init__(self, named: list[tuple[str, nn.Parameter]], seed: int, total_steps: int, watched_steps: int) -> None:
        self._places = watched_places(named, seed)
        length = min(watched_steps, total_steps // 3) if self._places else 0
        self._length = length
        self._begins = [0, (total_steps - length) // 2, total_steps - length] if length else []
        self._step = 0  # steps of the run that were observed
        self._rows: list[Tensor] = []  # of the span under way
        self._done: list[tuple[int, Tensor]] = []  # first step and rows of spans since the last window's end
        self._note_begin()

    def _row(self) -> Tensor:
        return torch.stack([p.detach()[place].float() for _, p, place in self._places])

    def _note_begin(self) -> None:
        if self._step in self._begins:
            self._rows = [self._row()]

    def observe(self) -> None:
        self._step += 1
        if self._rows:
            self._rows.append(self._row())
            if len(self._rows) == self._length + 1:
                self._done.append((self._step - self._length, torch.stack(self._rows)))
                self._rows = []
        self._note_begin()

    def take(self) -> list[dict[str, Any]]:
        """The spans that ended since it was last asked, a record for each watched parameter."""
        done, self._done = self._done, []
        return [
            {"parameter": name, "from_step": begin, "values": [_short(v) for v in values]}
            for begin, rows in done
            for (name, *_), values in zip(self._places, rows.T.tolist(), strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"step": self._step, "rows": list(self._rows), "done": list(self._done)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = self._places[0][1].device if self._places else None
        self._step = state["step"]
        self._rows = [r.to(device, copy=True) for r in state["rows"]]
        self._done = [(begin, rows.to(device, copy=True)) for begin, rows in state["done"]]


def _short(value: float) -> float:
    """The same float32 with no more digits than tell it from the next: half the bytes in JSON."""
    return float(f"{value:.9g}")
