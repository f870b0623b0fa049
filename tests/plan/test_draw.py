"""Trials out of ranges: as many for each optimizer, within the ranges, and where they were when there are more."""

import math
from pathlib import Path

import pytest

from adarem.plan.draw import drawn
from adarem.plan.plan import Plan, make_plan
from adarem.run.errors import UserError
from adarem.run.sweep import Draw, Halving, read_sweep

RANGES = {
    "optimizer.lr": {"log_uniform": [0.01, 1.0]},
    "optimizer.momentum": {"uniform": [0.5, 0.95]},
    "optimizer.nesterov": {"choice": [True, False]},
    "optimizer.weight_decay": [0.0, 1e-4, 1e-3],
}


@pytest.mark.parametrize("method", ["sobol", "halton"])
def test_more_trials_leave_the_first_ones_in_place(method: str) -> None:
    few, many = (drawn("grid.search.sgdm", RANGES, Draw(method, n, 3)) for n in (5, 64))  # type: ignore[arg-type]
    assert few == {key: values[:5] for key, values in many.items()}
    assert all(len(values) == 64 for values in many.values())
    backwards = dict(reversed(list(RANGES.items())))
    assert drawn("x", backwards, Draw(method, 5, 3)) == few  # type: ignore[arg-type]
    assert drawn("x", RANGES, Draw(method, 5, 4)) != few  # type: ignore[arg-type]
    lr = [float(v) for v in many["optimizer.lr"]]  # type: ignore[arg-type]
    assert min(lr) >= 0.01 and max(lr) <= 1.0
    assert abs(sum(map(math.log10, lr)) / 64 + 1.0) < 0.05  # half of them below the geometric mean
    momentum = [float(v) for v in many["optimizer.momentum"]]  # type: ignore[arg-type]
    assert min(momentum) >= 0.5 and max(momentum) <= 0.95 and abs(sum(momentum) / 64 - 0.725) < 0.02
    assert many["optimizer.nesterov"].count(True) in range(28, 37)
    assert {*many["optimizer.weight_decay"]} == {0.0, 1e-4, 1e-3}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"log_unifrom": [0.1, 1.0]}, "grid.search.sgdm.k.log_unifrom: no such range; did you mean 'log_uniform'?"),
        ({"log_uniform": [0.0, 1.0]}, "needs .lowest, highest., above 0"),
        ({"uniform": [1.0, 1.0]}, "needs .lowest, highest."),
        ({"uniform": [1.0]}, "needs .lowest, highest."),
        ({"uniform": 1.0}, "needs a list, for instance"),
        ({"uniform": ["a", "b"]}, "grid.search.sgdm.k.uniform='a': needs float"),
        ({"choice": []}, "needs a list"),
        ({"uniform": [0, 1], "choice": [1]}, "needs one of log_uniform, uniform, choice"),
        (3, "grid.search.sgdm.k=3: needs one of log_uniform, uniform, choice"),
    ],
)
def test_what_is_no_range_is_one_line(value: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        drawn("grid.search.sgdm", {"k": value}, Draw())


def plan(tmp_path: Path, *overrides: str) -> Plan:
    words = ["grid=table2_search", "data=digits", "optimizer=sgdm,adam", f"runs_dir={tmp_path}", *overrides]
    return make_plan(words)


def test_a_search_is_extended_without_new_runs_for_old_trials(tmp_path: Path) -> None:
    first = plan(tmp_path, "grid.draw.trials=2")
    first.write()
    more = plan(tmp_path, "grid.draw.trials=3")
    more.write()
    assert [r.config.optimizer.name for r in more.runs] == ["sgdm"] * 3 + ["adam"] * 3
    assert sum(r.new for r in more.runs) == 2
    assert {r.run.path for r in first.runs} < {r.run.path for r in more.runs}
    spec = read_sweep(first.folder)
    assert spec.draw == Draw("sobol", 3, 0)
    assert spec.ranges["sgdm"]["optimizer.lr"] == {"log_uniform": (0.04, 4.0)}
    assert len(spec.search["adam"]["optimizer.beta1"]) == 3
    assert all(r.config.data.evaluated_on == "holdout" and r.config.seed == 1000 for r in more.runs)
    assert first.folder.name == "table2_search-digits"


def test_a_range_without_a_draw_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sgdm.optimizer.lr=\{.*\}: a range needs grid.draw, for instance"):
        plan(tmp_path, "~grid.draw")
    with pytest.raises(UserError, match="grid.draw.method=sobl: did you mean 'sobol'"):
        plan(tmp_path, "grid.draw.method=sobl")
    with pytest.raises(UserError, match="grid.draw.trials=0: needs 1 or more"):
        plan(tmp_path, "grid.draw.trials=0")


@pytest.mark.parametrize("grid", ["table1_search", "table2_search"])
def test_the_shipped_searches_are_fair(grid: str, tmp_path: Path) -> None:
    """Each optimizer of the table gets as many trials, and seeds that the table does not have."""
    search = make_plan([f"grid={grid}", "data=digits", "model=resnet18", "grid.draw.trials=2", f"runs_dir={tmp_path}"])
    table = make_plan([f"grid={grid.removesuffix('_search')}", "data=digits", f"runs_dir={tmp_path}"])
    trials = [r.config.optimizer.name for r in search.runs]
    also = {"sgd"} if grid == "table2_search" else set()  # of Figures 1 and 2, whose settings are from that search
    assert {*trials} == {*table.spec.optimizers} | also and {trials.count(o) for o in trials} == {2}
    assert search.spec.halving == Halving((1, 3))  # of the rehearsal's ten epochs; 10 and 30 of 100
    assert not {*search.spec.seeds} & {*table.spec.seeds} and search.spec.models == ("resnet18",)
