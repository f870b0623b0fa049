"""Panels: epochs, time axes with lost records, the last third."""

import json

import numpy as np
import pytest

from adarem.report.figures.curves import curves
from adarem.report.figures.panels import TEST_ERROR, against_time, curve
from adarem.report.figures.write import draw_figures
from adarem.report.make import load_table
from tests.support.figures import drawn, lose
from tests.support.sweeps import finish, make_config, write_grid


def time_panels(t):
    panels = against_time(TEST_ERROR, t.sweep.runs)
    return panels.wall, panels.device


def test_evaluations_that_are_rare_are_no_gap():
    epochs = np.array([3.0, 6.0, 9.0, 10.0])
    assert curve(epochs, np.ones(4), epochs).with_gaps().epoch.tolist() == epochs.tolist()


def test_time_axis_adds_training_evaluation_and_checkpoints(dirs, table2_runs):
    t = load_table(table2_runs, dirs[1])
    panels = against_time(TEST_ERROR, t.sweep.runs)
    run = t.sweep.runs[0]
    assert panels.wall.curve(run).x[-1] == pytest.approx(100 * (100.0 + 1.0 + 9.0) / 3600)
    assert panels.device.curve(run).x[-1] == pytest.approx(16 * 100 * 110.0 / 3600)
    assert "hours" in panels.wall.x_label and panels.device.x_label == "GPU hours"


def test_on_a_time_axis_an_epoch_is_at_its_mean_time(dirs, two_seeds):
    """The second seed's machine is three times as slow; its first 50 epochs count in its time and in no mean."""
    folder, runs = two_seeds
    lines = [json.loads(line) for line in runs[1].metrics_file.read_text().splitlines()]
    for r in lines:
        r |= {k: 3 * r[k] for k in ("seconds_train", "seconds_checkpoint", "seconds_eval") if k in r}
        if r["split"] == "val" and r["epoch"] <= 50:
            r["top1"] = None
    runs[1].metrics_file.write_text("".join(json.dumps(r) + "\n" for r in lines))
    t = load_table(folder, dirs[1])
    x, y = drawn(curves(t, time_panels(t), ""), 0)["SGDM (n=2)"].T
    assert len(x) == 50
    assert (x[0], x[-1]) == pytest.approx((51 * 110 * 2 / 3600, 100 * 110 * 2 / 3600))
    assert y[-1] == pytest.approx(100 - 70.5)


def test_a_lost_record_ends_the_line_on_a_time_axis(dirs, two_seeds):
    """How long it took is unknown from there on, and no epoch is drawn at a time that leaves one out."""
    folder, runs = two_seeds
    lose(runs[1], [40])
    t = load_table(folder, dirs[1])
    by_time = drawn(curves(t, time_panels(t), ""), 0)["SGDM (n=2)"]
    assert len(by_time) == 39 and by_time[-1, 0] == pytest.approx(39 * 110 / 3600)


def test_the_last_third_has_an_axis_of_its_own(dirs):
    """A point of difference at the end is a good part of that panel; the beginning is complete in the other."""
    folder = write_grid(dirs[0], seeds=[0])
    for optimizer, top1 in (("sgdm", 70.0), ("adarem", 71.0)):
        finish(folder, make_config("resnet18", optimizer), top1)
    t = load_table(folder, dirs[1])
    fig = draw_figures(t)[0].figure
    loss, error, end = fig.axes
    assert loss.get_yscale() == "log" and error.get_yscale() == end.get_yscale() == "linear"
    assert end.get_title() == "Test error, last third"
    assert drawn(fig, 2)["SGDM"][:, 0].tolist() == list(range(67, 101))
    low, high = error.get_ylim()
    assert all(low < y < high for line in error.get_lines() for y in line.get_ydata())
    low, high = end.get_ylim()
    assert 1.0 / (high - low) > 0.1 and low > 20
