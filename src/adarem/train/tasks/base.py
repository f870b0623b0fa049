"""What the trainer asks of a task. It knows nothing else of images or words."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from adarem.run.config import EvaluationSplit, RunConfig
from adarem.run.records import JsonRecord
from adarem.train.distributed.context import RankContext


@dataclass(frozen=True)
class TaskInfo:
    """What does not change during a run."""

    unit: Literal["images", "tokens"]  # what is counted
    totals: tuple[str, ...]  # columns of the running totals; the sum of losses first, the count last
    primary_metric: str  # by which the best epoch is found: a key of Evaluation.metrics and of catalog.METRICS
    clip_norm: float  # of the network's recipe: largest norm of the complete gradient; 0 clips nothing
    steps_per_epoch: int
    evaluated_on: EvaluationSplit  # in training
    fingerprint: Mapping[str, JsonRecord]  # of each split's data; the keys are those of the data's JSON file


@dataclass
class Batch:
    """This rank's part of a global batch."""

    inputs: object  # what the task's loss reads: its own ImageInputs or TextInputs
    count: int  # images or tokens, over all ranks
    lr_factor: float = 1.0  # on the scheduled learning rate


class Part(NamedTuple):
    """One of several equal parts of a rank's batch, each passed through the network on its own."""

    batch: Batch
    rank: int  # that would have had this part, were there as many ranks as parts in all


@dataclass(frozen=True)
class Evaluation:
    """Of the complete validation set."""

    loss: float  # mean
    metrics: Mapping[str, float]  # top1 and top5 in percent, or perplexity
    count: int  # of images or tokens
    correct: Mapping[str, np.ndarray] | None = None  # top1, top5: bool [images], in data set order


@dataclass(frozen=True)
class FinalResult:
    """What a finished run reports next to its losses."""

    metrics: Mapping[str, float]
    evaluation: Mapping[str, object]  # how the metrics were measured
    summary: str  # one line


class Task(Protocol):
    """ImageTask and LanguageTask."""

    @property
    def info(self) -> TaskInfo: ...

    def build_model(self) -> nn.Module:
        """A freshly initialised network on the CPU; the same seed gives the same weights on every machine and rank."""
        ...

    def example_input(self) -> Tensor:
        """A batch in the shape of training's, the same on every rank; every parameter bears on the output."""
        ...

    def batches(self, epoch: int, start_step: int) -> AbstractContextManager[Iterator[Batch]]:
        """This rank's batches of an epoch (0 is the first) from a step on; leaving early leaks nothing."""
        ...

    def parts(self, batch: Batch, count: int) -> Iterator[Part]:
        """A batch in ``count`` parts of one size, each what one of ``count`` times as many ranks would have had.

        The mean of their losses is the loss of the batch.
        """
        ...

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss to differentiate, and this rank's totals: float64 [len(info.totals)] on the device."""
        ...

    def metrics(self, totals: Tensor) -> dict[str, float]:
        """Totals over all ranks to loss, metrics and count."""
        ...

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Evaluates the complete validation set, each image or token once. Every rank must call."""
        ...

    def final(self, model: nn.Module, evaluation: Evaluation, best: float) -> FinalResult:
        """The result of a finished run. Every rank must call.

        Args:
            model: after the last step.
            evaluation: of that model.
            best: the best value of the primary metric over all evaluations.
        """
        ...

    def state_dict(self) -> Mapping[str, object]:
        """What continuing within an epoch needs, for all ranks. Every rank must call."""
        ...

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Takes over the state of a checkpoint, made by any number of ranks."""
        ...


_AS_IT_IS = nullcontext()
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(config: RunConfig, context: RankContext) -> AbstractContextManager[object]:
    """The config's precision, as a context manager."""
    if config.scale.precision == "fp32":
        return _AS_IT_IS
    return torch.autocast(context.device.type, dtype=_AUTOCAST[config.scale.precision])
