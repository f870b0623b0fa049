"""The trials of a search out of its runs."""

import dataclasses

import pytest

from adarem.report.load import load_sweep
from adarem.report.search.trials import Search, search_of, span_in_view
from adarem.run.catalog import METRICS
from adarem.run.selection import select
from adarem.run.sweep import spec_from_dict, spec_to_dict, write_sweep
from tests.support.searches import write_search

GRID = [
    ({"lr": lr, "weight_decay": wd}, 90 - abs(10 * lr - 4) - wd * 1e4) for lr in (0.1, 0.4, 1.6) for wd in (1e-4, 1e-3)
]


def read(folder) -> Search:
    search = search_of(load_sweep(folder))
    assert search is not None
    return search


def test_the_best_so_far_is_what_selection_takes(dirs) -> None:
    trials = {"sgdm": GRID, "adarem": [*GRID[:3], (GRID[3][0], "diverged"), *GRID[4:]]}
    folder = write_search(dirs[0], trials)
    search, selected = read(folder), select(folder).selected["resnet18"]
    assert [(p.optimizer, len(p.trials), p.diverged) for p in search.parts] == [("sgdm", 6, 0), ("adarem", 6, 1)]
    for part in search.parts:
        assert part.chosen == selected[part.optimizer]
        assert part.best is not None and dict(part.best.settings) == part.chosen.best.settings
        assert [t.figure for t in part.trials if t.figure is not None] == sorted(
            (f for _, f in trials[part.optimizer] if f != "diverged"), reverse=True
        )
    assert search.parts[1].trials[-1].state == "diverged" and search.parts[1].counts == "6, 1 div."
    assert [(d.key, d.scale) for d in search.parts[0].dimensions] == [
        ("optimizer.lr", "log"),
        ("optimizer.weight_decay", "log"),
    ]


def test_lower_is_better(dirs) -> None:
    trials = {"adam": [({"lr": 0.1}, 90.0), ({"lr": 0.2}, 80.0), ({"lr": 0.4}, "diverged"), ({"lr": 0.8}, 1e6)]}
    (part,) = read(write_search(dirs[0], trials, metric="val_perplexity")).parts
    assert [t.figure for t in part.trials] == [80.0, 90.0, 1e6, None]
    pairs = (3 * 80.0 + 2 * 90.0 + 1e6) / 6  # of the best of two; the sixth holds the worst and the diverged one
    assert [b.mean for b in part.best_of_k[1:3]] == pytest.approx([pairs, (3 * 80.0 + 90.0) / 4])
    assert part.best_of_k[0].mean is None and part.best_of_k[-1].mean == 80.0


def test_unfinished_trials_count_for_nothing(dirs) -> None:
    trials = {
        "sgdm": [({"lr": 0.1}, 50.0), ({"lr": 0.2}, "planned"), ({"lr": 0.4}, 60.0)],
        "adam": [({"lr": 0.1}, "planned")],
    }
    search = read(write_search(dirs[0], trials))
    sgdm, adam = search.parts
    assert (sgdm.counts, adam.counts, adam.best, len(adam.best_of_k)) == ("2 of 3", "0 of 1", None, 0)
    assert [b.k for b in sgdm.best_of_k] == [1, 2] and sgdm.trials[-1].state == "unfinished"
    assert sgdm.chosen.edges == {"optimizer.lr": "highest"}


def test_runs_that_the_plan_no_longer_has_count_for_nothing(dirs) -> None:
    folder = write_search(dirs[0], {"sgdm": [({"lr": 0.1}, 50.0), ({"lr": 0.2}, 99.0)]})
    sweep = load_sweep(folder)
    write_sweep(folder, dataclasses.replace(sweep.spec, runs=sweep.spec.runs[:1]))
    (part,) = read(folder).parts
    assert [t.figure for t in part.trials] == [50.0] and part.dimensions == []


def test_drawn_ranges_are_the_axes(dirs) -> None:
    rows = [({"lr": 0.2, "beta": 0.9}, 80.0), ({"lr": 0.3, "beta": 0.95}, 70.0)]
    ranges = {"adarem": {"lr": {"log_uniform": [0.04, 4.0]}, "beta": {"uniform": [0.8, 0.999]}}}
    search = read(write_search(dirs[0], {"adarem": rows}, draw={"trials": 2}, ranges=ranges))
    rate, beta = search.parts[0].dimensions
    assert search.drawn and (rate.scale, rate.low, rate.high, beta.scale) == ("log", 0.04, 4.0, "linear")
    assert rate.place(0.4) == pytest.approx(0.5) and beta.place(0.8) == 0 and rate.label == "learning rate"
    assert beta.label == "β"


def test_a_setting_in_words_is_a_category(dirs) -> None:
    rows = [({"lr": 0.2, "scope": scope}, 80.0 + len(scope)) for scope in ("tensor", "model")]
    (part,) = read(write_search(dirs[0], {"adarem": rows})).parts
    (scope,) = part.dimensions
    assert (scope.scale, scope.values, scope.place("tensor")) == ("category", ("model", "tensor"), 1.0)


def test_what_is_no_search_has_no_trials(table2_runs) -> None:
    assert search_of(load_sweep(table2_runs)) is None


def test_a_far_worse_figure_moves_no_axis() -> None:
    top1, perplexity = METRICS["top1"], METRICS["perplexity"]
    span = span_in_view([96.0, 95.0, 94.0, 93.0, 92.0, 10.0], top1)
    assert span is not None and 85 < span.low < 92 and span.high == 96.0 and span.is_beyond(10.0)
    span = span_in_view([80.0, 85.0, 90.0, 95.0, 1e9], perplexity)
    assert span is not None and span.log and span.low == pytest.approx(80) and 95 < span.high < 200
    assert span_in_view([], top1) is None and span_in_view([5.0], top1).low == 5.0


def test_halving_compares_at_the_first_rung(dirs) -> None:
    folder = write_search(dirs[0], {"sgdm": [({"lr": lr}, 50.0 + 100 * lr) for lr in (0.1, 0.2, 0.4)]})
    spec = load_sweep(folder).spec
    raw = {**spec_to_dict(spec), "halving": {"rungs": [2], "keep": "1/3"}}
    write_sweep(folder, spec_from_dict(raw))
    for name in spec.runs[:2]:  # as a run is that stopped at epoch 2
        run = folder / name
        (run / "result.json").unlink()
        lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "metrics.jsonl").write_text("".join(lines[:4]))
    (part,) = read(folder).parts
    assert [t.state for t in part.trials] == ["done", "stopped", "stopped"]
    assert [t.epochs for t in part.trials] == [10, 2, 2]
    assert (part.stopped, part.diverged, len(part.finished)) == (2, 0, 3)
    assert part.trials[1].value("optimizer.lr") == 0.2  # the better of those that stopped
    assert [b.mean for b in part.best_of_k] == pytest.approx([(60 + 70 + 90) / 3, (70 + 2 * 90) / 3, 90])
    assert part.counts_text == "3 trials, 2 stopped early"
