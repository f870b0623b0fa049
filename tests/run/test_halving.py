"""Which trials train on: pure decisions, and the same read from run directories."""

import dataclasses
import itertools
import math
import random
from fractions import Fraction
from pathlib import Path

import pytest
from scipy.stats import kendalltau

from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.halving import (
    Place,
    Reached,
    Rung,
    better_share,
    budget,
    decide,
    kendall_tau,
    place_of,
    read_places,
    read_rungs,
)
from adarem.run.selection import Agreement, ReachedRung, read_selection, select, write_selection
from adarem.run.sweep import Halving, SweepSpec, read_sweep, write_sweep
from tests.support.sweeps import make_config

NAN, INF = math.nan, math.inf
THIRD = Fraction(1, 3)
HALVING = Halving((2, 5))


@pytest.mark.parametrize(
    ("figures", "lower", "kept"),
    [
        ([], False, []),
        ([1.0], False, [0]),
        ([1.0, 2.0], False, [1]),
        ([1.0, 2.0, 3.0], False, [2]),
        ([1.0, 2.0, 3.0, 0.0], False, [2, 1]),  # a share that is no number of trials is rounded up
        ([1.0, 2.0, 3.0, 0.0], True, [3, 0]),
        ([5.0, 5.0, 5.0], False, [0]),  # of equal ones the first
        ([5.0, 5.0, 5.0], True, [0]),
        ([NAN], False, []),
        ([NAN, INF, -INF], True, []),  # all diverged: nothing goes on
        ([NAN, -INF, 3.0], True, [2]),
        ([NAN, INF, 3.0], False, [2]),
        ([NAN, NAN, NAN, NAN, NAN, 1.0], False, [5]),  # two places, and one that can take one
        ([0.0, -0.0, -1.0], True, [2]),
    ],
)
def test_the_better_share(figures: list[float], lower: bool, kept: list[int]) -> None:
    assert better_share(figures, THIRD, lower_is_better=lower) == kept


@pytest.mark.parametrize("n", range(1, 40))
def test_as_many_go_on_as_the_share_says(n: int) -> None:
    figures = random.Random(n).choices(range(5), k=n)
    kept = better_share(figures, THIRD, lower_is_better=False)
    assert len(set(kept)) == -(-n // 3) and sorted(kept) != [] and all(0 <= i < n for i in kept)
    assert min(figures[i] for i in kept) >= max((f for i, f in enumerate(figures) if i not in kept), default=0)
    assert len(better_share(figures, Fraction("0.3"), lower_is_better=True)) == math.ceil(Fraction(3 * n, 10))


def trials(*figures: tuple[float | None, ...], passed: tuple[int, ...] = ()) -> list[Reached]:
    passed = passed or (0,) * len(figures)
    return [Reached(f, p) for f, p in zip(figures, passed, strict=True)]


def test_a_rung_is_decided_once_every_trial_is_there() -> None:
    waiting = trials((1.0, None), (2.0, None), (None, None))
    assert decide(waiting, HALVING, lower_is_better=False) == [Rung(2, (0, 1, 2), None)]
    complete = trials((1.0, None), (2.0, None), (0.0, None))
    assert decide(complete, HALVING, lower_is_better=False) == [Rung(2, (0, 1, 2), (1,)), Rung(5, (1,), None)]
    assert decide(complete, HALVING, lower_is_better=True)[0].goes_on == (2,)
    last = trials((1.0, None), (2.0, 9.0), (0.0, None))
    assert decide(last, HALVING, lower_is_better=False)[1] == Rung(5, (1,), (1,))


def test_ties_and_divergence() -> None:
    tied = decide(trials(*[(7.0, None)] * 6), HALVING, lower_is_better=False)
    assert tied[0] == Rung(2, tuple(range(6)), (0, 1), ties=4)
    lost = decide(trials((NAN, NAN), (NAN, NAN)), HALVING, lower_is_better=False)
    assert lost == [Rung(2, (0, 1), ()), Rung(5, (), ())]  # both decided, and nothing waits for ever
    later = decide(trials((3.0, NAN), (1.0, None), (2.0, None)), HALVING, lower_is_better=False)
    assert later[1] == Rung(5, (0,), ())  # diverged beyond the first rung: nothing takes its place


def test_more_trials_move_none_that_went_on() -> None:
    before = trials((5.0, None), (1.0, None), (2.0, None))
    assert decide(before, HALVING, lower_is_better=False)[0].goes_on == (0,)
    # The first is past the rung; six better ones come, the last of which is not there yet.
    figures = [(5.0, None), (1.0, None), (2.0, None), *[(float(10 + i), None) for i in range(5)], (None, None)]
    passed = (1, *[0] * 8)
    assert decide(trials(*figures, passed=passed), HALVING, lower_is_better=False) == [Rung(2, tuple(range(9)), None)]
    figures[-1] = (20.0, None)
    after = decide(trials(*figures, passed=passed), HALVING, lower_is_better=False)[0].goes_on
    assert after == (8, 7, 6, 0)


def test_a_decision_does_not_depend_on_who_asks_when() -> None:
    """Whatever the order in which trials train on, the same ones do: their records beyond a rung change nothing."""
    figures = [(float(f), float(-f)) for f in random.Random(1).sample(range(100), 10)]
    first = decide(trials(*[(f, None) for f, _ in figures]), HALVING, lower_is_better=False)[0].goes_on
    assert first is not None
    for gone_on in itertools.product((0, 1), repeat=len(first)):
        passed = [0] * 10
        for trial, on in zip(first, gone_on, strict=True):
            passed[trial] = on
        reached = trials(
            *[(f, later if passed[i] else None) for i, (f, later) in enumerate(figures)], passed=tuple(passed)
        )
        assert decide(reached, HALVING, lower_is_better=False)[0].goes_on == first


def test_the_budget() -> None:
    assert budget(16, Halving((10, 30)), 100) == 16 * 10 + 6 * 20 + 2 * 70 == 420
    assert budget(16, None, 100) == 1600
    assert budget(1, Halving((10, 30)), 100) == 100
    assert budget(4, Halving((3,), "1/2"), 10) == 12 + 14
    assert Halving((1,), 0.3).share == Fraction(3, 10)


@pytest.mark.parametrize("seed", range(20))
def test_tau_is_scipys(seed: int) -> None:
    draw = random.Random(seed)
    a, b = ([float(draw.randint(0, 6)) for _ in range(draw.randint(2, 9))] for _ in range(2))
    a, b = a[: len(b)], b[: len(a)]
    theirs = kendalltau(a, b).statistic
    ours = kendall_tau(a, b)
    assert math.isnan(theirs) if ours is None else ours == pytest.approx(theirs)


def test_tau_without_an_order_is_none() -> None:
    assert kendall_tau([], []) is kendall_tau([1.0], [2.0]) is kendall_tau([1.0, 1.0], [1.0, 2.0]) is None


# Run directories.

LRS = (0.1, 0.2, 0.3, 0.4)


def config(lr: float, *, optimizer: str = "sgdm", model: str = "resnet18", seed: int = 1000) -> RunConfig:
    changed = {"data": {"holdout": 0.04}, "scale": {"epochs": 8}}
    made = make_config(model, optimizer, seed, data="digits", overrides={"optimizer.lr": lr}, changed=changed)
    return dataclasses.replace(made, overrides={"optimizer.lr": str(lr)})


def spec(runs: tuple[str, ...], halving: Halving | None = HALVING) -> SweepSpec:
    axes = {"model": ("resnet18",), "optimizer": ("sgdm", "adam")}
    search = {o: {"optimizer.lr": LRS} for o in axes["optimizer"]}
    return SweepSpec("search", axes, ("holdout_top1",), "t", seeds=(1000,), search=search, runs=runs, halving=halving)


def record(run: RunDir, *, top1: dict[int, float] | None = None, until: int = 0, why: str | None = None) -> None:
    """As a run leaves it that trained ``until`` this epoch and was evaluated after some."""
    for epoch in range(1, until + 1):
        run.append_metrics({"epoch": epoch, "split": "train", "loss": 1.0})
    for epoch, value in (top1 or {}).items():
        run.append_metrics({"epoch": epoch, "split": "holdout", "top1": value})
    if until == 8:
        run.write_result({"status": "done", "holdout_top1": (top1 or {})[8]})
    elif why:
        run.end_attempt(run.start_attempt({}), why)


def planned(folder: Path, **more: object) -> dict[float, RunDir]:
    configs = {lr: config(lr, **more) for lr in LRS}  # type: ignore[arg-type]
    runs = {lr: RunDir(folder / c.run_name) for lr, c in configs.items()}
    before = read_sweep(folder).runs if (folder / "grid.yaml").exists() else ()
    write_sweep(folder, spec((*before, *(run.path.name for run in runs.values()))))
    for lr, run in runs.items():
        run.freeze(configs[lr])
    return runs


def states(folder: Path, runs: dict[float, RunDir]) -> list[tuple[str, int]]:
    places = read_places(folder, read_sweep(folder))
    assert all(place_of(run) == places[run.path.name] for run in runs.values())
    return [(places[run.path.name].state, places[run.path.name].until) for run in runs.values()]


def test_a_search_from_its_first_run_to_its_selection(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    assert states(tmp_path, runs) == [("due", 2)] * 4
    for lr, value in ((0.1, 10.0), (0.2, 40.0), (0.3, 30.0)):
        record(runs[lr], until=2, top1={1: 99.0, 2: value}, why="paused")
    assert runs[0.1].status() == "paused"
    assert states(tmp_path, runs) == [("paused", 2)] * 3 + [("due", 2)]
    place = place_of(runs[0.1])
    assert place and place.text() == "paused at 2 of 8 epochs"
    assert place.waiting() == f"; waits for 1 runs to come there: {runs[0.4].path.name}"

    record(runs[0.4], until=2, why="failed")  # without a figure: it holds the rung up, and is due again
    assert states(tmp_path, runs) == [("paused", 2)] * 3 + [("due", 2)]
    record(runs[0.4], until=2, top1={2: 20.0}, why="paused")
    assert states(tmp_path, runs) == [("stopped", 2), ("due", 5), ("due", 5), ("stopped", 2)]
    assert place_of(runs[0.1]) == Place("stopped", 2, 8) and place_of(runs[0.1]).text() == "stopped at rung 2"  # type: ignore[union-attr]

    record(runs[0.2], until=5, top1={5: 50.0}, why="paused")
    record(runs[0.3], until=4, why="interrupted")
    assert states(tmp_path, runs) == [("stopped", 2), ("paused", 5), ("due", 5), ("stopped", 2)]
    record(runs[0.3], until=5, top1={5: 60.0}, why="paused")
    assert states(tmp_path, runs) == [("stopped", 2), ("stopped", 5), ("due", 8), ("stopped", 2)]
    with pytest.raises(UserError, match="1 of 4 runs of the search are not finished"):
        select(tmp_path)
    record(runs[0.3], until=8, top1={8: 61.0})

    found = read_selection(write_selection(tmp_path, select(tmp_path))).selection
    chosen = found.selected["resnet18"]["sgdm"]
    assert chosen.best and chosen.best.settings == {"optimizer.lr": 0.3} and chosen.next is None
    assert chosen.halved and chosen.trials.planned == 4
    assert chosen.halved.rungs == (ReachedRung(2, 4), ReachedRung(5, 2), ReachedRung(8, 1))
    assert (chosen.halved.epochs, chosen.halved.full_epochs) == (2 + 5 + 8 + 2, 32)
    assert chosen.halved.agreement == (Agreement(2, 5, 2, -1.0), Agreement(2, 8, 1, None), Agreement(5, 8, 1, None))
    assert "4, 2 and 1 trials at epochs 2, 5 and 8 (17 epochs in place of 32), too few" in chosen.text()
    assert "; after 2 and 5 epochs the better 1/3" in found.rule


def test_networks_and_optimizers_are_never_pooled(tmp_path: Path) -> None:
    sgdm, adam = planned(tmp_path), planned(tmp_path, optimizer="adam")
    for i, (a, b) in enumerate(zip(sgdm.values(), adam.values(), strict=True)):
        record(a, until=2, top1={2: 90.0 + i}, why="paused")
        if i < 3:
            record(b, until=2, top1={2: 10.0 + i}, why="paused")
    assert [state for state, _ in states(tmp_path, sgdm)] == ["stopped", "stopped", "due", "due"]
    assert [state for state, _ in states(tmp_path, adam)] == ["paused"] * 3 + ["due"]
    assert {cell: rungs.decided for cell, rungs in read_rungs(tmp_path, read_sweep(tmp_path)).items()} == {
        ("resnet18", "adam"): False,
        ("resnet18", "sgdm"): False,
    }


def test_diverged_and_removed_runs(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    for run in (runs[0.3], runs[0.4]):
        run.write_result({"status": "diverged", "epoch": 1})
    record(runs[0.1], until=2, top1={2: 1.0}, why="paused")
    config_file = runs[0.2].config_file
    kept = config_file.read_text()
    config_file.unlink()  # what it would come to is not known
    assert states(tmp_path, {0.1: runs[0.1]}) == [("paused", 2)]
    config_file.write_text("damaged: [")
    assert states(tmp_path, {0.1: runs[0.1]}) == [("paused", 2)]
    config_file.write_text(kept)
    record(runs[0.2], until=2, top1={2: 1.0}, why="paused")
    assert states(tmp_path, runs) == [("due", 5), ("due", 5), ("finished", 8), ("finished", 8)]


def test_a_trial_that_is_past_a_rung_is_not_held_up_by_new_ones(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    for i, run in enumerate(runs.values()):
        record(run, until=2, top1={2: float(i)}, why="paused")
    record(runs[0.4], until=3, why="interrupted")
    record(runs[0.3], until=5, top1={5: 1.0}, why="paused")
    new = config(0.9)
    write_sweep(tmp_path, spec((*read_sweep(tmp_path).runs, new.run_name)))
    RunDir(tmp_path / new.run_name).freeze(new)
    assert states(tmp_path, runs) == [("paused", 2), ("paused", 2), ("paused", 5), ("due", 5)]


def test_a_run_of_no_search_is_not_held_back(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    record(runs[0.1], until=2, top1={2: 1.0}, why="paused")
    write_sweep(tmp_path, spec(read_sweep(tmp_path).runs, halving=None))
    assert place_of(runs[0.1]) is None
    (tmp_path / "grid.yaml").unlink()
    assert place_of(runs[0.1]) is None


def test_runs_that_the_plan_no_longer_has_count_for_nothing(tmp_path: Path) -> None:
    runs = planned(tmp_path)
    names = read_sweep(tmp_path).runs
    write_sweep(tmp_path, spec(names[:2]))
    record(runs[0.1], until=2, top1={2: 1.0}, why="paused")
    record(runs[0.4], until=8, top1={2: 9.0, 5: 9.0, 8: 9.0})
    assert place_of(runs[0.4]) is None and place_of(runs[0.1]) == Place("paused", 2, 8, (runs[0.2].path.name,))
    record(runs[0.2], until=8, top1={2: 2.0, 5: 2.0, 8: 3.0})
    found = select(tmp_path)
    best = found.selected["resnet18"]["sgdm"].best
    assert best and best.figure == 3.0 and found.left_out == names[2:]
