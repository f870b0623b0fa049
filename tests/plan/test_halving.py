"""Rungs of a planned search: in epochs, checked, with their budget."""

from dataclasses import replace

import pytest

from adarem.plan.halving import budget_text, settle
from adarem.run.config import RunConfig
from adarem.run.errors import UserError
from adarem.run.sweep import Halving, SweepSpec
from tests.support.sweeps import make_config


def configs(epochs: int = 100, eval_every: int = 1, trials: int = 16) -> list[RunConfig]:
    changed = {"scale": {"epochs": epochs}, "train": {"eval_every": eval_every}}
    return [
        make_config("resnet18", optimizer, overrides={"optimizer.lr": 0.1 + i / 100}, changed=changed)
        for optimizer in ("sgdm", "adam")
        for i in range(trials)
    ]


def spec(rungs: tuple[int | float, ...], keep: str | float = "1/3", metric: str = "holdout_top1") -> SweepSpec:
    axes = {"model": ("resnet18",), "optimizer": ("sgdm", "adam")}
    search = {"sgdm": {"optimizer.lr": (0.1,)}}
    return SweepSpec("search", axes, (metric,), search=search, halving=Halving(rungs, keep))


@pytest.mark.parametrize(
    ("rungs", "epochs", "eval_every", "found"),
    [
        ((10, 30), 100, 1, (10, 30)),
        ((0.1, 0.3), 100, 1, (10, 30)),
        ((0.1, 0.3), 10, 1, (1, 3)),
        ((0.1, 0.3), 3, 1, (1,)),  # two shares are the same epoch
        ((0.1, 0.3), 1, 1, None),  # no epoch before the last
        ((0.1, 0.3), 100, 4, (8, 32)),
        ((0.001, 0.3), 100, 5, (5, 30)),
        ((0.1, 30), 100, 1, (10, 30)),
        ((8, 16), 100, 8, (8, 16)),
    ],
)
def test_rungs_become_epochs(
    rungs: tuple[int | float, ...], epochs: int, eval_every: int, found: tuple[int, ...] | None
) -> None:
    settled = settle(spec(rungs), configs(epochs, eval_every, 2))
    assert settled == (Halving(found) if found else None)
    assert settled is None or all(type(rung) is int for rung in settled.rungs)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (spec(()), "grid.halving.rungs=[]: needs epochs from 1 to 99 in order, or shares"),
        (spec((30, 10)), "rungs=[30, 10]: needs epochs from 1 to 99 in order"),
        (spec((10, 10)), "in order"),
        (spec((0,)), "from 1 to 99"),
        (spec((-3,)), "from 1 to 99"),
        (spec((10, 100)), "from 1 to 99"),
        (spec((1.5,)), "from 1 to 99"),
        (spec((10,), "0"), "grid.halving.keep=0: needs a share of the trials between 0 and 1, such as 1/3"),
        (spec((10,), 1.0), "keep=1.0: needs a share"),
        (spec((10,), "1/0"), "keep=1/0: needs a share"),
        (spec((10,), "third"), "keep=third: needs a share"),
        (spec((10,), "-1/3"), "keep=-1/3: needs a share"),
        (spec((10,), metric="q_mean"), "q_mean has no figure after each epoch"),
        (replace(spec((10,)), search={}), "grid.halving: the grid has no search"),
    ],
)
def test_what_is_no_halving_is_one_line(changed: SweepSpec, words: str) -> None:
    with pytest.raises(UserError) as e:
        settle(changed, configs(trials=2))
    assert words in str(e.value) and "\n" not in str(e.value)


def test_rungs_are_evaluated_and_the_same_for_every_run() -> None:
    with pytest.raises(UserError, match="eval_every=4 evaluates nothing after epoch 10; give multiples of 4"):
        settle(spec((10,)), configs(eval_every=4, trials=2))
    with pytest.raises(UserError, match="runs differ in scale.epochs"):
        settle(spec((10,)), [*configs(100, trials=2), *configs(90, trials=2)])


def test_the_budget_is_said() -> None:
    assert budget_text(spec((10, 30)), configs()) == (
        "halving: after 10 and 30 epochs the better 1/3 of each optimizer's trials on a network goes on; at most 840 "
        "epochs in place of 3,200"
    )
    assert budget_text(replace(spec((10,)), halving=None), configs(trials=1)) is None
