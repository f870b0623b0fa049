"""Curves: seeds joined on their epochs, gaps, bands, axes, legend, titles."""

import numpy as np
import pytest

from adarem.report.figures.curves import curves, far_above
from adarem.report.figures.panels import PERPLEXITY, TEST_ERROR, TRAIN_LOSS, last_third
from adarem.report.figures.write import draw_figures
from adarem.report.make import load_table
from adarem.run.directory import RunDir
from tests.support.figures import drawn, lose, titles_fit
from tests.support.sweeps import diverge, finish, make_config, start, write_epochs, write_grid


def test_figure4_is_the_metrics_two_panels_one_line_per_optimizer(dirs, table2_runs):
    fig = curves(load_table(table2_runs, dirs[1]), [TRAIN_LOSS, TEST_ERROR], "Figure 4")
    assert len(fig.axes) == 2
    loss, error = drawn(fig, 0), drawn(fig, 1)
    assert set(loss) == {"SGDM (n=3)", "AdaRem (n=3)"}
    run = RunDir(table2_runs / "resnet18-adarem-s1")
    train = [(r["epoch"], r["loss"]) for r in run.metrics() if r["split"] == "train"]
    assert loss["AdaRem (n=3)"] == pytest.approx(np.array(train))  # the three seeds have the same loss
    assert error["SGDM (n=3)"][-1] == pytest.approx([100, 100 - 70.6])
    assert error["AdaRem (n=3)"][-1] == pytest.approx([100, 100 - 71.2])
    band = fig.axes[1].collections[1].get_paths()[0].vertices
    at_end = band[band[:, 0] == 100][:, 1]
    assert (at_end.min(), at_end.max()) == pytest.approx((28.8 - 0.2, 28.8 + 0.2))


def test_figure5_has_one_row_per_network_and_a_stamp(dirs):
    folder = write_grid(dirs[0], "table1", "digits", "rehearsal")
    for model in ("resnet18", "mobilenet_v2_1.0"):
        for i, optimizer in enumerate(("sgdm", "adarem_s")):
            finish(folder, make_config(model, optimizer, grid="table1", data="digits"), 95.0 + i, 99.9)
    fig = curves(load_table(folder, dirs[1]), [TRAIN_LOSS, TEST_ERROR], "Figure 5")
    assert len(fig.axes) == 12
    assert all(any(t.get_text() == "REHEARSAL" for t in ax.texts) for ax in fig.axes)
    assert any("REHEARSAL, not a reproduction" in t.get_text() for t in fig.texts)


def test_unfinished_and_diverged_seeds_stay_out_of_the_mean(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1, 2])
    finish(folder, make_config("resnet18", "sgdm", 0), 70.0)
    diverge(folder, make_config("resnet18", "sgdm", 1), epoch=5)
    config = make_config("resnet18", "adam", 0)
    run = RunDir(folder / config.run_name)
    run.freeze(config)
    start(run, host="elsewhere")
    write_epochs(run, 12, 60.0)
    fig = curves(load_table(folder, dirs[1]), [TRAIN_LOSS, TEST_ERROR], "")
    error = drawn(fig, 1)
    assert error["SGDM"][-1] == pytest.approx([100, 30.0])
    assert len(error["Adam (ep 12/100)"]) == 12
    crosses = [line for line in fig.axes[1].get_lines() if line.get_marker() == "x"]
    assert [c.get_xdata().tolist() for c in crosses] == [[5]]


def test_seeds_are_joined_on_the_epoch(dirs, two_seeds):
    """One of two seeds lost every other epoch up to the 50th: the mean is over the epochs that both have."""
    folder, runs = two_seeds
    lose(runs[1], range(1, 51))
    loss = drawn(curves(load_table(folder, dirs[1]), [TRAIN_LOSS, TEST_ERROR], ""), 0)["SGDM (n=2)"]
    assert loss[:, 0].tolist() == list(range(51, 101))
    of_run = [[r["loss"] for r in run.metrics() if r["split"] == "train" and r["epoch"] > 50] for run in runs]
    assert loss[:, 1] == pytest.approx(np.mean(of_run, axis=0))


def test_no_line_leads_over_epochs_that_are_missing(dirs, two_seeds):
    folder, runs = two_seeds
    lose(runs[1], [*range(20, 31), 98, 100])
    fig = curves(load_table(folder, dirs[1]), [TRAIN_LOSS, TEST_ERROR], "")
    x, y = drawn(fig, 0)["SGDM (n=2)"].T
    kept = [e for e in range(1, 98) if not 20 <= e <= 30] + [99]
    assert x[np.isfinite(x)].tolist() == kept
    breaks = np.flatnonzero(~np.isfinite(y))
    assert [x[i - 1] for i in breaks] == [19, 97]
    dots = [line.get_xdata().tolist() for line in fig.axes[0].get_lines() if line.get_marker() == "."]
    assert dots == [[99]]  # joined with nothing, and shown all the same


def test_the_legend_says_how_many_seeds_the_panels_show(dirs, two_seeds):
    """One line, one entry: the second seed lost all of its last third."""
    folder, runs = two_seeds
    lose(runs[1], range(60, 101))
    finish(folder, make_config("resnet18", "adarem", overrides={"optimizer.lam": 0.9}), 70.0)
    fig = curves(load_table(folder, dirs[1]), [TEST_ERROR, last_third(TEST_ERROR)], "")
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["SGDM (n=1 to 2)", "AdaRem (λ 0.9)"]


def test_a_line_far_above_leaves_the_last_third_and_is_named(dirs):
    folder = write_grid(dirs[0], seeds=[0])
    for optimizer, top1 in (("sgdm", 70.0), ("adarem", 71.0), ("adam", 0.1)):
        finish(folder, make_config("resnet18", optimizer), top1)
    fig = curves(load_table(folder, dirs[1]), [last_third(TEST_ERROR)], "")
    assert "above: Adam (99.9)" in [t.get_text() for t in fig.axes[0].texts]
    assert fig.axes[0].get_ylim()[1] < 40
    assert far_above({"a": np.array([1.0]), "b": np.array([9.0])}) == []  # of two, both stay


def test_a_spike_before_a_divergence_sets_no_scale(dirs):
    folder = write_grid(dirs[0], seeds=[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.0)
    run = diverge(folder, make_config("resnet18", "adam"), epoch=3)
    run.append_metrics({"epoch": 3, "split": "train", "loss": 1e9})
    ax = curves(load_table(folder, dirs[1]), [TRAIN_LOSS, TEST_ERROR], "").axes[0]
    assert ax.get_ylim()[1] < 20


def test_titles_of_the_curves_fit(dirs):
    for grid, model in (("table1", "shufflenet_v2_1.0"), ("table2", "resnet18")):
        folder = write_grid(dirs[0], grid, "digits", "rehearsal")
        finish(folder, make_config(model, "sgdm", grid=grid, data="digits"), 95.0)
        assert all(map(titles_fit, (named.figure for named in draw_figures(load_table(folder, dirs[1])))))
    t = load_table(folder, dirs[1])
    assert titles_fit(curves(t, [TRAIN_LOSS, PERPLEXITY, last_third(PERPLEXITY)], ""))
