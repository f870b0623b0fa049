"""Where a run is evaluated: at its parameters, or where an optimizer with train() and eval() has its average.

Schedule-free optimizers take gradients at one point and are judged at another, which eval() puts into the parameters.
Their train() leads back by rounded arithmetic, so the training point is copied and restored: a run that is evaluated,
interrupted or resumed goes on with the same bits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

from adarem.optim import compat
from adarem.train.distributed.context import RankContext
from adarem.train.tasks.base import Batch, Task

# Training batches, the first of the epoch, over which BatchNorm's statistics are estimated at the averaged point; all
# of them where an epoch has fewer.
BATCH_NORM_BATCHES = 64


class Modes(Protocol):
    """An optimizer that switches between the point of its gradients and the point that it recommends."""

    def train(self) -> object: ...

    def eval(self) -> object: ...


def modes_of(optimizer: object) -> Modes | None:
    """An optimizer, or a class of them, as one with train() and eval(); None where it lacks one of them."""
    has_both = callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))
    return cast(Modes, optimizer) if has_both else None


class EvaluationPoint:
    """Switches an optimizer with train() and eval() around an evaluation; does nothing around that of any other.

    Args:
        model: the network, not wrapped; its optimizer is at the start of a run.
        parts: a batch of a step in the parts that pass through the network one by one; seeds what each draws.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        task: Task,
        context: RankContext,
        parts: Callable[[Batch, int], Iterator[Batch]],
    ) -> None:
        self._model, self._optimizer, self._task, self._context = model, optimizer, task, context
        self._parts = parts
        self._modes = modes_of(optimizer)
        self._norms = [m for m in model.modules() if isinstance(m, compat.BatchNorm) and m.running_mean is not None]
        if self._modes is not None:
            self._modes.train()  # some refuse their first step without it

    @property
    def averages(self) -> bool:
        """Whether the optimizer has a point of its own to be evaluated at."""
        return self._modes is not None

    @property
    def batch_norm_batches(self) -> int:
        """Over how many global batches BatchNorm's statistics are estimated; 0 where there is nothing to estimate."""
        return min(BATCH_NORM_BATCHES, self._task.info.steps_per_epoch) if self.averages and self._norms else 0

    @contextmanager
    def applied(self, epoch: int) -> Iterator[None]:
        """The model as the optimizer wants it evaluated after an epoch (0 is the first). Every rank must call.

        Parameters, buffers and the optimizer's state are afterwards what they were, to the bit.
        """
        optimizer, modes = self._optimizer, self._modes
        if modes is None:
            yield
            return
        kept_model = [t.detach().clone() for t in self._tensors()]
        kept_state = {p: _copied(state) for p, state in optimizer.state.items()}
        kept_groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        modes.eval()
        try:
            self._estimate_batch_norm(epoch)
            yield
        finally:
            modes.train()
            with torch.no_grad():
                for tensor, kept in zip(self._tensors(), kept_model, strict=True):
                    tensor.copy_(kept)
                for p, state in kept_state.items():
                    _restore(optimizer.state[p], state)
            for group, kept_group in zip(optimizer.param_groups, kept_groups, strict=True):
                group.update(kept_group)

    def _tensors(self) -> list[Tensor]:
        return [*self._model.parameters(), *self._model.buffers()]

    def _estimate_batch_norm(self, epoch: int) -> None:
        """The plain mean of each batch's statistics, over batches and ranks: running ones are of the training point."""
        if not self.batch_norm_batches:
            return
        first_step = epoch * self._task.info.steps_per_epoch
        network = _AsInTraining(self._model, self._task)
        with self._task.batches(epoch, 0) as batches:
            update_bn(self._training_passes(islice(batches, self.batch_norm_batches), first_step), network)
        for norm in self._norms:
            for statistic in (norm.running_mean, norm.running_var):
                if statistic is not None:
                    statistic.copy_(self._context.sum(statistic.double()) / self._context.world_size)

    def _training_passes(self, batches: Iterator[Batch], first_step: int) -> Iterator[Batch]:
        """What passed through the network in the training steps from ``first_step`` on."""
        for step, batch in enumerate(batches, first_step):
            for part in self._parts(batch, step):
                self._context.heartbeat.repeat()
                yield part


class _AsInTraining(nn.Module):
    """The forward pass of a training step."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self._task = model, task

    def forward(self, batch: Batch) -> None:
        self._task.loss(self.model, batch)


def _copied(state: object) -> object:
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {k: _copied(v) for k, v in state.items()}
    return state


def _restore(state: object, kept: object) -> None:
    """Gives a parameter's state its kept values; tensors stay the ones that they are."""
    assert isinstance(state, dict) and isinstance(kept, dict)
    for k, v in kept.items():
        if isinstance(v, Tensor) and isinstance(state.get(k), Tensor):
            state[k].copy_(v)
        elif isinstance(v, dict):
            _restore(state[k], v)
        else:
            state[k] = v
