"""Optimizers that are evaluated at an average: the point, BatchNorm's statistics there, and the way back."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adarem.run.directory import RunDir
from adarem.train.checkpoint import _to_host
from adarem.train.distributed.context import RankContext
from adarem.train.evaluation_point import BATCH_NORM_BATCHES, modes_of
from adarem.train.train import _build
from adarem.train.trainer import Trainer
from tests.support.training import assert_same_bits

ALONE = RankContext(0, 1, 0, torch.device("cpu"), ("here",))
SETTINGS = ("optimizer=pytorch_optimizer:ScheduleFreeSGD", "optimizer.lr=0.5")


@pytest.fixture
def trainer(tiny_run: Callable[..., Path]) -> Trainer:
    """After two of an epoch's four steps."""
    run = RunDir(tiny_run(*SETTINGS))
    made = _build(run, run.config(), ALONE)
    with made.task.batches(0, 0) as batches:
        for _ in range(2):
            made._step(made.model, next(batches))
    return made


def everything(trainer: Trainer) -> object:
    return _to_host([trainer.model.state_dict(), trainer.optimizer.state_dict()])


def batch_norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


def test_the_average_differs_and_the_training_point_comes_back_to_the_bit(trainer: Trainer) -> None:
    before = everything(trainer)
    weight = next(trainer.model.parameters())
    training = weight.detach().clone()
    with trainer._point.applied(0):
        assert not torch.equal(weight, training)
        assert not any(group["train_mode"] for group in trainer.optimizer.param_groups)
        state = trainer.optimizer.state[weight]
        state["z"].mul_(1.1)  # also from a class that changes its state
    assert_same_bits(everything(trainer), before)
    trainer.optimizer.eval()
    trainer.optimizer.train()
    assert not torch.equal(weight, training)  # the class's own way back is not exact


def test_statistics_are_the_plain_mean_over_the_epochs_first_batches(trainer: Trainer) -> None:
    """Against means and variances of each layer's input, batch by batch, in float64."""
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in batch_norms(trainer.model)}
    with trainer._point.applied(0):
        found = {n: (m.running_mean.clone(), m.running_var.clone()) for n, m in batch_norms(trainer.model).items()}
        hooks = [
            m.register_forward_pre_hook(
                lambda _, x, name=name: seen[name].append(
                    (x[0].double().mean((0, 2, 3)), x[0].double().var((0, 2, 3), unbiased=True))
                )
            )
            for name, m in batch_norms(trainer.model).items()
        ]
        with trainer.task.batches(0, 0) as batches, torch.no_grad():
            trainer.model.train()
            for batch in batches:
                trainer.task.loss(trainer.model, batch)
        for hook in hooks:
            hook.remove()
    assert trainer._point.batch_norm_batches == 4 <= BATCH_NORM_BATCHES
    for name, batches_seen in seen.items():
        assert len(batches_seen) == 4
        for statistic, values in zip(found[name], zip(*batches_seen, strict=True), strict=True):
            expected = torch.stack(values).mean(0)
            torch.testing.assert_close(statistic.double(), expected, rtol=1e-4, atol=1e-5)


def test_statistics_depend_on_the_epoch_and_on_nothing_of_before(trainer: Trainer) -> None:
    found = []
    for epoch in (0, 1, 0):
        with trainer._point.applied(epoch):
            found.append([m.running_var.clone() for m in batch_norms(trainer.model).values()])
        torch.manual_seed(epoch + 7)
    assert_same_bits(found[0], found[2])
    assert not torch.equal(found[0][0], found[1][0])


def test_other_optimizers_are_left_alone(tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tiny_run())
    made = _build(run, run.config(), ALONE)
    monkeypatch.setattr(made.task, "batches", None)
    before = everything(made)
    with made._point.applied(0):
        assert_same_bits(everything(made), before)
    assert (made._point.averages, made._point.batch_norm_batches) == (False, 0)


def test_modes_need_both() -> None:
    class Half(torch.optim.SGD):
        def train(self) -> None: ...

    assert modes_of(Half) is None and modes_of(torch.optim.SGD) is None
