"""Averaging of the parameters once validation stops improving: the averaging half of NT-ASGD.

Merity et al. 2017, "Regularizing and Optimizing LSTM Language Models", algorithm 1. Their code switches to
torch.optim.ASGD with lambd = 0, which takes plain SGD's steps and averages their iterates, without the first two of the
algorithm's mean. Here the averaging works with any optimizer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

import torch
from torch import Tensor, nn

from adarem.optim import compat


class AverageState(TypedDict):
    """A ``NonMonotoneAverage`` in a checkpoint."""

    losses: list[float]
    mean: list[Tensor]
    count: int


class NonMonotoneAverage:
    """Running mean of a model's parameters, from the first validation loss that is no better than an old one.

    Args:
        model: the network, not wrapped.
        patience: evaluations. Averaging begins after one that is worse than the best of those before the last
            ``patience``; the authors use 5.
    """

    def __init__(self, model: nn.Module, patience: int) -> None:
        assert patience >= 1
        self._params = [p for p in model.parameters() if p.requires_grad]
        self._patience = patience
        self._losses: list[float] = []
        self._mean: list[Tensor] = []  # empty until the averaging begins
        self._count = 0
        self._step_began = False  # and its outcome is not part of the mean yet

    @property
    def active(self) -> bool:
        return bool(self._mean)

    def before_step(self) -> None:
        """Called before every optimizer step; includes the parameters that the step before left."""
        self._include_last_step()
        self._step_began = True

    @torch.no_grad()
    def _include_last_step(self) -> None:
        if self._step_began and self.active:
            self._count += 1
            compat.foreach_lerp_(self._mean, [p.detach() for p in self._params], 1.0 / self._count)
        self._step_began = False

    def observe(self, loss: float) -> None:
        """Takes the loss of an evaluation, which may begin the averaging."""
        self._include_last_step()
        if not self.active and len(self._losses) > self._patience and loss > min(self._losses[: -self._patience]):
            self._mean, self._count = [p.detach().clone() for p in self._params], 1
        self._losses.append(loss)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The model with the mean as its parameters, where there is one."""
        self._include_last_step()
        if not self.active:
            yield
            return
        kept = [p.detach().clone() for p in self._params]
        compat.foreach_copy_([p.detach() for p in self._params], self._mean)
        try:
            yield
        finally:
            compat.foreach_copy_([p.detach() for p in self._params], kept)

    def state_dict(self) -> AverageState:
        self._include_last_step()
        return {"losses": list(self._losses), "mean": list(self._mean), "count": self._count}

    def load_state_dict(self, state: AverageState) -> None:
        self._losses, self._count, self._step_began = list(state["losses"]), state["count"], False
        self._mean = [m.to(p.device) for m, p in zip(state["mean"], self._params, strict=False)]
