"""Figures of a search."""

import numpy as np
import pytest

from adarem.report.figures import search as figures
from adarem.report.make import load_table
from tests.support.figures import drawn, texts, titles_fit
from tests.support.searches import write_search


def draw(dirs, trials, **more):
    table = load_table(write_search(dirs[0], trials, **more), dirs[1])
    found = figures.figures(table, table.search, "", "the digits")
    return table, dict(zip(figures.figure_names(table.search), found, strict=True))


def test_the_curve_is_the_mean_of_the_best_of_k(dirs) -> None:
    rows = [({"lr": 0.1 * 2**i}, 50.0 + i) for i in range(5)]
    table, found = draw(dirs, {"sgdm": rows, "adam": [(rows[0][0], "diverged"), *rows[1:]]})
    lines = drawn(found["search-best-of-k"], 0)
    part = table.search.part("resnet18", "sgdm")
    assert lines["SGDM (5)"] == pytest.approx(np.array([(b.k, b.mean) for b in part.best_of_k]))
    assert np.isnan(lines["Adam (5, 1 div.)"][0, 1]) and lines["Adam (5, 1 div.)"][-1, 1] == 54.0
    assert "Dodge et al. 2019" in " ".join(texts(found["search-best-of-k"]))


def test_many_trials_with_three_settings(dirs) -> None:
    rng = np.random.default_rng(0)
    names = {
        "sgdm": "momentum",
        "adam": "beta1",
        "adamw": "beta1",
        "adabound": "gamma",
        "rmsprop": "alpha",
        "adarem": "beta",
    }
    trials = {}
    for optimizer, third in names.items():
        places = rng.uniform(0.01, 1, size=(16, 3)).round(5)
        rows = [({"lr": a, "weight_decay": b, third: c}, float(rng.integers(40, 50))) for a, b, c in places.tolist()]
        trials[optimizer] = [(rows[0][0], "diverged"), (rows[1][0], "planned"), (rows[2][0], 1.0), *rows[3:]]
    _, found = draw(dirs, trials, draw={"trials": 16})
    assert list(found) == ["search-best-of-k", "search-settings", "search-lr"]
    for figure in found.values():
        assert titles_fit(figure)
    assert "across its settings" in " ".join(texts(found["search-settings"]))
    first = found["search-settings"].axes[0]
    marks = [t.get_text() for t in first.get_xticklabels()]
    assert marks == ["learning\nrate", "momentum", "weight\ndecay", "Held-out\ntop-1"]
    assert [t.get_text() for t in first.texts].count("div.") == 1


def test_two_settings_of_a_grid_are_a_heat_map(dirs) -> None:
    places = [(lr, m) for lr in (0.1, 0.2, 0.4) for m in (0.5, 0.9)]
    rows = [({"lr": lr, "momentum": m}, "diverged" if lr + m > 1.2 else 50 + 10 * lr + m) for lr, m in places]
    _, found = draw(dirs, {"sgdm": rows})
    panel = found["search-settings"].axes[0]
    (image,) = panel.images
    shown = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
    assert shown == pytest.approx(np.array([[51.5, 52.5, 54.5], [51.9, 52.9, np.nan]]), nan_ok=True)
    assert "×" in [t.get_text() for t in panel.texts]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("learning rate", "momentum")


def test_two_drawn_settings_are_points_on_the_colour_of_the_nearest(dirs) -> None:
    rows = [({"lr": 0.1, "momentum": 0.5}, 50.0), ({"lr": 1.0, "momentum": 0.9}, 60.0)]
    rows += [({"lr": 0.3, "momentum": 0.6}, "diverged"), ({"lr": 0.2, "momentum": 0.8}, "planned")]
    _, found = draw(dirs, {"sgdm": rows}, draw={"trials": 4})
    panel = found["search-settings"].axes[0]
    image = panel.images[0].get_array()
    assert (image[0, 0], image[-1, -1]) == (50.0, 60.0)
    points = {(line.get_marker(), tuple(xy)) for line in panel.lines for xy in line.get_xydata().round(3).tolist()}
    log3, log2 = round(float(np.log10(3)), 3), round(float(np.log10(2)), 3)
    assert points == {("o", (0.0, 0.0)), ("o", (1.0, 1.0)), ("x", (log3, 0.25)), (".", (log2, 0.75))}


ODD = {
    "one trial": [({"lr": 0.1}, 50.0)],
    "no setting": [({}, 50.0)],
    "none finished": [({"lr": 0.1}, "planned"), ({"lr": 0.2}, "planned")],
    "all diverged": [({"lr": lr, "momentum": lr}, "diverged") for lr in (0.1, 0.2)],
    "three settings, equal figures": [({"lr": lr, "momentum": lr, "weight_decay": lr}, 50.0) for lr in (0.1, 0.2)],
    "one far off": [({"lr": lr, "momentum": 0.5}, f) for lr, f in ((0.1, 50.0), (0.2, 50.0), (0.4, 1e7))],
}


@pytest.mark.parametrize(
    ("case", "metric", "draw_out"),
    [
        *((case, "holdout_top1", None) for case in ODD),
        ("one far off", "val_perplexity", None),
        ("all diverged", "val_perplexity", {"trials": 2}),
        ("three settings, equal figures", "val_perplexity", {"trials": 2}),
    ],
)
def test_odd_searches_are_drawn(dirs, case, metric, draw_out) -> None:
    trials = {"sgdm": ODD[case], "adam": [({"lr": 0.3}, 40.0)]}
    _, found = draw(dirs, trials, metric=metric, draw=draw_out)
    assert len(found) == 3 and all(titles_fit(figure) for figure in found.values())


def test_each_network_has_its_figures(dirs) -> None:
    rows = [({"lr": lr}, 50.0 + lr) for lr in (0.1, 0.2)]
    _, found = draw(dirs, {"sgdm": rows}, models=("resnet18", "resnet50"))
    of_networks = [f"search-{what}-{model}" for what in ("settings", "lr") for model in ("resnet18", "resnet50")]
    assert list(found) == ["search-best-of-k", *of_networks]
    assert len(found["search-best-of-k"].axes) == 2
