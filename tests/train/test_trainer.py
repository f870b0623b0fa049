"""A step in parts: the same step as without, and that of as many ranks."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.train.distributed.context import RankContext
from adarem.train.distributed.data_parallel import normalised_together
from adarem.train.metrics import EpochTimer
from adarem.train.seeding import seed_generators
from adarem.train.train import _build, _check_host
from tests.support.accumulation import RECIPE, difference, on_ranks, train_steps
from tests.support.host_waits import HostWaits
from tests.support.training import NeverStop, StopAtStep, assert_same_bits, figures, final_state

ALONE = RankContext(0, 1, 0, torch.device("cpu"), ("here",))


@pytest.mark.parametrize(
    "optimizer",
    ["adarem_s", *(pytest.param(o, marks=pytest.mark.slow) for o in ("sgdm", "pytorch_optimizer:ScheduleFreeSGD"))],
)
def test_parts_take_the_step_of_the_complete_batch(optimizer: str, tiny_run: Callable[..., Path]) -> None:
    """Without BatchNorm, to float64's rounding: weight decay, clipping, label smoothing and totals included."""
    settings = (*RECIPE, f"optimizer={optimizer}", "optimizer.lr=0.1")
    complete = train_steps(tiny_run(*settings, folder="complete"), torch.float64)
    parts = train_steps(tiny_run(*settings, "scale.micro_batch_size=32"), torch.float64)
    assert difference(parts, complete) < 1e-12


@pytest.mark.slow
def test_parts_take_the_step_of_as_many_ranks(tiny_run: Callable[..., Path]) -> None:
    """With BatchNorm, its running statistics and dropout, to float64's rounding: the same images go together."""

    def run(ranks: int, micro: int | None) -> dict[str, torch.Tensor]:
        parts = (f"scale.micro_batch_size={micro}",) if micro else ()
        settings = ("model=mobilenet_v2_0.5", "optimizer=sgd", f"cluster.ranks_per_node={ranks}", *parts)
        path = tiny_run(*settings, folder=f"{ranks} {micro}")
        return train_steps(path, torch.float64) if ranks == 1 else on_ranks(path, torch.float64, ranks)

    two, four = run(2, None), run(2, 72)
    assert difference(run(1, 144), two) < 1e-9 and difference(run(1, 72), four) < 1e-9
    assert difference(two, four) > 1e-4  # other images together are another training
    assert two["exchanges"] == four["exchanges"] > 0  # the gradient is exchanged once a step, however many the parts


def test_a_run_in_parts_is_interrupted_resumed_and_recorded(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    settings = ("scale.micro_batch_size=96", "optimizer=adarem", "train.oscillation=true")
    complete, broken = RunDir(tiny_run(*settings, folder="complete")), RunDir(tiny_run(*settings))
    assert run_here(complete.path) == exitcodes.OK
    for looks in (2, 3):
        assert run_here(broken.path, StopAtStep(looks)) == exitcodes.REQUEUE
    assert run_here(broken.path) == exitcodes.OK
    assert figures(complete) == figures(broken)
    assert_same_bits(final_state(complete), final_state(broken))
    result = complete.result()
    assert result is not None and result["batch_norm_images"] == 96 and result["steps"] == 8
    assert [a["images_per_pass"] for a in broken.attempts()] == [96, 96, 96]
    train = [m for m in complete.metrics() if m["split"] == "train"]
    assert {(m["images"], m["batch_norm_images"]) for m in train} == {(4 * 288, 96)}


def test_a_loss_that_is_not_finite_in_one_part_ends_the_run(
    tiny_run: Callable[..., Path], run_here: Callable[..., int]
) -> None:
    run = RunDir(tiny_run("optimizer=sgd", "optimizer.lr=1e30", "scale.micro_batch_size=144"))
    assert run_here(run.path) == exitcodes.DIVERGED


def test_fp16s_scale_changes_once_a_step(tiny_run: Callable[..., Path]) -> None:
    """An overflow in one part leaves the step out and halves the scale once."""
    run = RunDir(tiny_run("scale.micro_batch_size=96", "optimizer=sgd"))
    trainer = _build(run, run.config(), ALONE)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    loss, calls = trainer.task.loss, []

    def overflowing(network, batch):  # type: ignore[no-untyped-def]
        calls.append(len(batch.inputs.labels))
        value, totals = loss(network, batch)
        return (value * math.inf if len(calls) == 2 else value), totals

    trainer.task.loss = overflowing  # type: ignore[method-assign]
    before = [p.detach().clone() for p in trainer.model.parameters()]
    with trainer.task.batches(0, 0) as batches:
        trainer._step(trainer.model, next(batches))
        assert calls == [96, 96, 96] and trainer.scaler.get_scale() == 2.0**7
        assert all(map(torch.equal, before, trainer.model.parameters()))
        trainer._step(trainer.model, next(batches))
    assert trainer.scaler.get_scale() == 2.0**7 and not all(map(torch.equal, before, trainer.model.parameters()))


def test_ranks_that_cannot_have_the_parts_are_refused(tiny_run: Callable[..., Path]) -> None:
    config = RunDir(tiny_run("cluster.ranks_per_node=2", "scale.micro_batch_size=144")).config()
    _check_host(config, ALONE)  # one rank takes the step of two
    with pytest.raises(UserError, match=r"^scale.micro_batch_size=144: does not divide 72, .* size of 4; take 72$"):
        _check_host(config, replace(ALONE, world_size=4))


def test_the_numbers_drawn_are_those_after_manual_seed() -> None:
    for seed in (0, 7, 2**40 + 3):
        torch.manual_seed(seed)
        expected = torch.rand(5), torch.randn(3)
        seed_generators(seed, torch.device("cpu"))
        assert all(map(torch.equal, expected, (torch.rand(5), torch.randn(3))))


@pytest.mark.parametrize(
    "settings",
    [
        ("optimizer=adarem", "scale.micro_batch_size=96", "train.clip_grad_norm=1", "train.watch_every=2"),
        ("optimizer=adarem_s", "train.oscillation=true", "train.watch_every=1"),
        ("optimizer=adam", "scale.precision=bf16", "train.watch_every=2"),
    ],
)
def test_the_loop_asks_for_no_value_but_the_running_loss_and_what_was_watched_before(
    settings: tuple[str, ...], tiny_run: Callable[..., Path]
) -> None:
    run = RunDir(tiny_run(*settings))
    trainer = _build(run, run.config(), ALONE)
    with HostWaits() as waits:
        trainer._train_epoch(trainer.model, 0, EpochTimer(), NeverStop(), lambda progress: None)
    # The optimizers' state on the CPU is read there. AsyncLossReader and StepWatch on a GPU look whether the values
    # have arrived. The reader fills buffers on the host.
    of_loop = {place for place in waits.found if not place.startswith("optim/")}
    readers = {"train/metrics.py: _read", "train/watch.py: _record", "data/ffcv/reader.py: _start_next"}
    assert of_loop == readers, waits.found
    assert waits.found["train/watch.py: _record"] == len(run.read_steps().records) > 0  # once each, in one piece
    assert "optim/watch.py: agreement" not in waits.found and "optim/watch.py: _b" not in waits.found
    with HostWaits() as waits:
        loss = torch.ones(3, requires_grad=True).sum()
        assert loss > 0 and loss.tolist() == 3.0 and len(torch.nonzero(loss.detach())) == 1
    assert sum(waits.found.values()) >= 3


def test_what_a_batch_norm_sees() -> None:
    assert normalised_together(nn.Linear(2, 2), 64, 4) is None
    assert normalised_together(nn.Sequential(nn.BatchNorm2d(2)), 64, 4) == 64
    assert normalised_together(nn.Sequential(nn.BatchNorm2d(2), nn.SyncBatchNorm(2)), 64, 4) == 256
