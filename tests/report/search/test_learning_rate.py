"""The line against the learning rate: exact where a grid allows it, and said where it is not."""

from adarem.report.load import load_sweep
from adarem.report.search.learning_rate import sensitivity
from adarem.report.search.trials import OptimizerSearch, search_of
from tests.support.searches import write_search


def part_of(dirs, trials, **more) -> OptimizerSearch:
    search = search_of(load_sweep(write_search(dirs[0], {"sgdm": trials}, **more)))
    assert search is not None
    return search.parts[0]


def test_a_grid_has_the_best_other_settings_at_every_rate(dirs) -> None:
    figures = {(0.1, 0.5): 50.0, (0.2, 0.5): 70.0, (0.4, 0.5): "diverged", (0.1, 0.9): 60.0, (0.2, 0.9): 65.0}
    found = sensitivity(part_of(dirs, [({"lr": lr, "momentum": m}, f) for (lr, m), f in figures.items()]))
    assert found is not None and found.exact
    assert [(p.rate, p.line) for p in found.points if p.line is not None] == [(0.1, 50.0), (0.2, 70.0)]
    assert [p.rate for p in found.points] == [0.1, 0.1, 0.2, 0.2, 0.4]


def test_of_drawn_trials_the_best_among_neighbours(dirs) -> None:
    rows = [({"lr": 0.1 * (i + 1), "momentum": 0.5 + 0.01 * i}, f) for i, f in enumerate([10.0, 40.0, 20.0, 5.0, 6.0])]
    found = sensitivity(part_of(dirs, rows[::-1], draw={"trials": 5}))
    assert found is not None and not found.exact and "other settings differ" in found.rule
    assert [p.line for p in found.points] == [40.0, 40.0, 40.0, 20.0, 6.0]


def test_lower_is_better(dirs) -> None:
    rows = [({"lr": 0.1 * (i + 1), "momentum": 0.5 + 0.01 * i}, f) for i, f in enumerate([90.0, 80.0, 95.0])]
    found = sensitivity(part_of(dirs, rows, draw={"trials": 3}, metric="val_perplexity"))
    assert found is not None and [p.line for p in found.points] == [80.0, 80.0, 80.0]


def test_one_trial_and_only_diverged_ones(dirs) -> None:
    assert sensitivity(part_of(dirs, [({"lr": 0.1}, 50.0)])) is None


def test_every_trial_diverged(dirs) -> None:
    found = sensitivity(part_of(dirs, [({"lr": lr}, "diverged") for lr in (0.1, 0.2)]))
    assert found is not None and [p.line for p in found.points] == [None, None]
