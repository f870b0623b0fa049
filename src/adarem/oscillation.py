"""How much parameters oscillate: the paper's index Q (section 3.2.2, Figures 1 and 2).

For each single parameter the path length l is the distance that it travelled since the window's start and the
displacement d the distance from there to where it is; q = l / d, and Q is the mean of q. The mean is ruled by those
that came back to where they began, so the median, the ratio of the sums and the share of parameters left out (d = 0)
stand beside it. Tracking observes and never steers; it makes the host wait for the device only at a window's end.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class OscillationTracker:
    """Follows every trainable parameter of a model, step by step.

    Keeps three float32 copies of the parameters (start, previous, path). Under DDP one rank tracks for all, since the
    parameters are the same everywhere.

    Args:
        parameters: those to track; order matters for ``state_dict``.
        watched: how many single parameters have their trajectory kept, spread evenly over all of them.
        watched_steps: for how many steps from the run's first; 0 keeps none.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, watched: int = 8, watched_steps: int = 2000) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._start = [p.detach().float().clone() for p in self._parameters]
        self._previous = [p.clone() for p in self._start]
        self._path = [torch.zeros_like(p) for p in self._start]
        self._steps = 0  # of the window under way
        self._watch = _Watch(self._parameters, watched, watched_steps)

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
        """Q and its companions over the window, and the trajectories recorded in it; then a new window begins here.

        Returns:
            ``q_mean`` (the paper's Q) and ``q_median`` over parameters with d > 0, None where there are none;
            ``q_of_sums`` (sum of l over sum of d), ``share_left_out`` (parameters with d = 0), ``parameters``,
            ``window_steps``, and ``trajectories`` (a list of values a step for each watched parameter).
        """
        ratios, path_sum, distance_sum, left_out, count = [], 0.0, 0.0, 0, 0
        for start, now, path in zip(self._start, self._previous, self._path, strict=True):
            distance = (now.double() - start.double()).abs_().flatten()
            length = path.double().flatten()
            moved = distance > 0
            ratios.append((length[moved] / distance[moved]).cpu())
            path_sum += float(length.sum())
            distance_sum += float(distance.sum())
            left_out += int((~moved).sum())
            count += distance.numel()
        q = torch.cat(ratios) if ratios else torch.empty(0, dtype=torch.float64)
        record = {
            "q_mean": float(q.mean()) if q.numel() else None,
            "q_median": float(q.median()) if q.numel() else None,
            "q_of_sums": path_sum / distance_sum if distance_sum else None,
            "share_left_out": left_out / count if count else None,
            "parameters": count,
            "window_steps": self._steps,
            "trajectories": self._watch.take(),
        }
        for start, now, path in zip(self._start, self._previous, self._path, strict=True):
            start.copy_(now)
            path.zero_()
        self._steps = 0
        return record

    def state_dict(self) -> dict[str, Any]:
        return {
            "start": self._start,
            "previous": self._previous,
            "path": self._path,
            "steps": self._steps,
            "watch": self._watch.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mine, theirs in (
            (self._start, state["start"]),
            (self._previous, state["previous"]),
            (self._path, state["path"]),
        ):
            for tensor, saved in zip(mine, theirs, strict=True):
                tensor.copy_(saved)
        self._steps = state["steps"]
        self._watch.load_state_dict(state["watch"])


class _Watch:
    """The values of a few single parameters at each step, kept on the device until a window ends."""

    def __init__(self, parameters: list[nn.Parameter], watched: int, steps: int) -> None:
        sizes = torch.tensor([p.numel() for p in parameters])
        ends = torch.cumsum(sizes, 0)
        total = int(ends[-1]) if len(ends) else 0
        # the middle of each of `watched` equal parts of the flattened parameters
        flat = [(2 * i + 1) * total // (2 * watched) for i in range(min(watched, total))]
        self._places = []
        for index in flat:
            tensor = int(torch.searchsorted(ends, index, right=True))
            offset = index - int(ends[tensor] - sizes[tensor])
            place = torch.unravel_index(torch.tensor(offset), parameters[tensor].shape)
            self._places.append((parameters[tensor], tuple(int(i) for i in place)))
        self._left = steps if self._places else 0
        self._rows: list[Tensor] = []

    def observe(self) -> None:
        if self._left > 0:
            self._rows.append(torch.stack([p.detach()[place].float() for p, place in self._places]))
            self._left -= 1

    def take(self) -> list[list[float]]:
        """One list of values for each watched parameter; empty once the run is past the steps to watch."""
        rows, self._rows = self._rows, []
        return torch.stack(rows).T.tolist() if rows else []

    def state_dict(self) -> dict[str, Any]:
        return {"left": self._left, "rows": list(self._rows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._left, self._rows = state["left"], [r.clone() for r in state["rows"]]
