"""What the figures draw: seeds joined on their epochs, the end of training, the paper's networks, captions."""

import json

import numpy as np
import pytest

from adarem.report.figures import oscillation
from adarem.report.figures.curves import curves, far_above
from adarem.report.figures.panels import PERPLEXITY, TEST_ERROR, TRAIN_LOSS, against_time, curve, last_third
from adarem.report.figures.write import draw_figures, figure_names, write_figures
from adarem.report.load import load_sweep
from adarem.report.tables.table import build, read_paper
from adarem.run.directory import RunDir
from tests.support.sweeps import diverge, finish, make_config, write_grid


def table(folder, dirs):
    sweep = load_sweep(folder)
    return build(sweep, read_paper(sweep.grid["paper"], dirs[1]))


def figures(t):
    return [named.figure for named in draw_figures(t)]


def time_panels(t):
    panels = against_time(TEST_ERROR, t.sweep.runs)
    return panels.wall, panels.device


def drawn(fig, panel):
    """Label to points, NaN where the line is broken."""
    lines = (line for line in fig.axes[panel].get_lines() if not line.get_label().startswith("_"))
    return {line.get_label(): line.get_xydata() for line in lines}


def lose(run: RunDir, epochs) -> None:
    """The metrics of these epochs become lines that no one can read."""
    records = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    lines = ["{cut" if r["epoch"] in epochs else json.dumps(r) for r in records]
    run.metrics_file.write_text("\n".join(lines) + "\n")


@pytest.fixture
def two_seeds(dirs):
    folder = write_grid(dirs[0], seeds=[0, 1])
    return folder, [finish(folder, make_config("resnet18", "sgdm", s), 70.0 + s, loss=1.0 + s) for s in (0, 1)]


def test_seeds_are_joined_on_the_epoch(dirs, two_seeds):
    """One of two seeds lost every other epoch up to the 50th: the mean is over the epochs that both have."""
    folder, runs = two_seeds
    lose(runs[1], range(1, 51))
    loss = drawn(curves(table(folder, dirs), [TRAIN_LOSS, TEST_ERROR], ""), 0)["SGDM (n=2)"]
    assert loss[:, 0].tolist() == list(range(51, 101))
    of_run = [[r["loss"] for r in run.metrics() if r["split"] == "train" and r["epoch"] > 50] for run in runs]
    assert loss[:, 1] == pytest.approx(np.mean(of_run, axis=0))


def test_no_line_leads_over_epochs_that_are_missing(dirs, two_seeds):
    folder, runs = two_seeds
    lose(runs[1], [*range(20, 31), 98, 100])
    fig = curves(table(folder, dirs), [TRAIN_LOSS, TEST_ERROR], "")
    x, y = drawn(fig, 0)["SGDM (n=2)"].T
    whole = [e for e in range(1, 98) if not 20 <= e <= 30] + [99]
    assert x[np.isfinite(x)].tolist() == whole
    breaks = np.flatnonzero(~np.isfinite(y))
    assert [x[i - 1] for i in breaks] == [19, 97]
    dots = [line.get_xdata().tolist() for line in fig.axes[0].get_lines() if line.get_marker() == "."]
    assert dots == [[99]]  # joined with nothing, and shown all the same


def test_the_legend_tells_how_many_seeds_the_panels_show(dirs, two_seeds):
    """One line, one entry: the second seed lost all of its last third."""
    folder, runs = two_seeds
    lose(runs[1], range(60, 101))
    finish(folder, make_config("resnet18", "adarem", overrides={"optimizer.lam": 0.9}), 70.0)
    fig = curves(table(folder, dirs), [TEST_ERROR, last_third(TEST_ERROR)], "")
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["SGDM (n=1 to 2)", "AdaRem (λ 0.9)"]


def test_evaluations_that_are_rare_are_no_gap():
    epochs = np.array([3.0, 6.0, 9.0, 10.0])
    assert curve(epochs, np.ones(4), epochs).with_gaps().epoch.tolist() == epochs.tolist()


def test_on_a_time_axis_an_epoch_stands_at_its_mean_time(dirs, two_seeds):
    """The second seed's machine is three times as slow; its first 50 epochs count in its time and in no mean."""
    folder, runs = two_seeds
    lines = [json.loads(line) for line in runs[1].metrics_file.read_text().splitlines()]
    for r in lines:
        r |= {k: 3 * r[k] for k in ("seconds_train", "seconds_checkpoint", "seconds_eval") if k in r}
        if r["split"] == "val" and r["epoch"] <= 50:
            r["top1"] = None
    runs[1].metrics_file.write_text("".join(json.dumps(r) + "\n" for r in lines))
    t = table(folder, dirs)
    x, y = drawn(curves(t, time_panels(t), ""), 0)["SGDM (n=2)"].T
    assert len(x) == 50
    assert (x[0], x[-1]) == pytest.approx((51 * 110 * 2 / 3600, 100 * 110 * 2 / 3600))
    assert y[-1] == pytest.approx(100 - 70.5)


def test_a_lost_record_ends_the_line_on_a_time_axis(dirs, two_seeds):
    """How long it took is unknown from there on, and no epoch is drawn at a time that leaves one out."""
    folder, runs = two_seeds
    lose(runs[1], [40])
    t = table(folder, dirs)
    by_time = drawn(curves(t, time_panels(t), ""), 0)["SGDM (n=2)"]
    assert len(by_time) == 39 and by_time[-1, 0] == pytest.approx(39 * 110 / 3600)


def test_the_last_third_has_an_axis_of_its_own(dirs):
    """A point of difference at the end is a good part of that panel; the beginning stands whole in the other."""
    folder = write_grid(dirs[0], seeds=[0])
    for optimizer, top1 in (("sgdm", 70.0), ("adarem", 71.0)):
        finish(folder, make_config("resnet18", optimizer), top1)
    t = table(folder, dirs)
    fig = figures(t)[0]
    loss, error, end = fig.axes
    assert loss.get_yscale() == "log" and error.get_yscale() == end.get_yscale() == "linear"
    assert end.get_title() == "Test error, last third"
    assert drawn(fig, 2)["SGDM"][:, 0].tolist() == list(range(67, 101))
    low, high = error.get_ylim()
    assert all(low < y < high for line in error.get_lines() for y in line.get_ydata())
    low, high = end.get_ylim()
    assert 1.0 / (high - low) > 0.1 and low > 20


def test_a_line_far_above_leaves_the_last_third_and_is_named(dirs):
    folder = write_grid(dirs[0], seeds=[0])
    for optimizer, top1 in (("sgdm", 70.0), ("adarem", 71.0), ("adam", 0.1)):
        finish(folder, make_config("resnet18", optimizer), top1)
    fig = curves(table(folder, dirs), [last_third(TEST_ERROR)], "")
    assert "above: Adam (99.9)" in [t.get_text() for t in fig.axes[0].texts]
    assert fig.axes[0].get_ylim()[1] < 40
    assert far_above({"a": np.array([1.0]), "b": np.array([9.0])}) == []  # of two, both stay


def test_a_spike_before_a_divergence_sets_no_scale(dirs):
    folder = write_grid(dirs[0], seeds=[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.0)
    run = diverge(folder, make_config("resnet18", "adam"), epoch=3)
    run.append_metrics({"epoch": 3, "split": "train", "loss": 1e9})
    ax = curves(table(folder, dirs), [TRAIN_LOSS, TEST_ERROR], "").axes[0]
    assert ax.get_ylim()[1] < 20


def test_figure5_shows_the_papers_networks_and_a_second_the_others(dirs):
    folder = write_grid(dirs[0], "table1", "digits", "rehearsal")
    for model in ("resnet50", "shufflenet_v2_0.5"):
        finish(folder, make_config(model, "sgdm", grid="table1", data="digits"), 95.0)
    t = table(folder, dirs)
    assert figure_names(t) == ["figure5", "figure5-others", "table1-time", "table1-time-others"]
    papers, others, *_ = figures(t)
    heads = [[ax.get_title() for ax in fig.axes[::3]] for fig in (papers, others)]
    assert heads[0] == [f"{m}: Train loss" for m in ("ResNet-18", "ResNet-50", "MobileNetV2-1.0")]
    assert heads[1] == [f"{m}: Train loss" for m in ("MobileNetV2-0.5", "ShuffleNetV2-1.0", "ShuffleNetV2-0.5")]
    assert "ShuffleNetV2-0.5 are in a second figure" in " ".join(texts(papers))
    assert "does not show" in " ".join(texts(others)) and "Figure 5, the other networks." in " ".join(texts(others))
    written = {p.name for p in write_figures(t, dirs[1])}
    assert written == {f"{name}.{ending}" for name in figure_names(t) for ending in ("png", "svg")}


def texts(fig):
    return [t.get_text().replace("\n", " ") for t in fig.texts]


def test_a_time_figure_says_what_wall_time_compares(dirs):
    folder = write_grid(dirs[0], seeds=[0])
    finish(folder, make_config("resnet18", "sgdm"), 70.0)
    by_epoch, time = figures(table(folder, dirs))
    caveat = "compare only runs that had machines of one kind to themselves"
    assert caveat in " ".join(texts(time)) and caveat not in " ".join(texts(by_epoch))


def test_the_lambda_grid_is_called_by_words(dirs):
    folder = write_grid(dirs[0], "lambda", "digits", "rehearsal")
    finish(folder, make_config("resnet18", "adarem", grid="lambda", data="digits"), 95.0)
    t = table(folder, dirs)
    assert t.title.startswith("REHEARSAL of Section 4.1.1: how often λ is multiplied. Test accuracy of ResNet-18")
    for fig in figures(t):
        assert fig.texts[0].get_text().startswith("REHEARSAL of Section 4.1.1: how often λ is multiplied. T")


def titles_fit(fig) -> bool:
    """No title of a panel reaches another title, a panel or the image's edge."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(fig).draw()
    boxes = [ax.title.get_window_extent() for ax in fig.axes]
    inside = max(b.x1 for b in boxes) < fig.bbox.x1 - 5 and max(b.y1 for b in boxes) < fig.bbox.y1
    apart = not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    return inside and apart and not any(a.overlaps(ax.bbox) for a in boxes for ax in fig.axes)


def test_titles_of_the_curves_fit(dirs):
    for grid, model in (("table1", "shufflenet_v2_1.0"), ("table2", "resnet18")):
        folder = write_grid(dirs[0], grid, "digits", "rehearsal")
        finish(folder, make_config(model, "sgdm", grid=grid, data="digits"), 95.0)
        assert all(map(titles_fit, figures(table(folder, dirs))))
    t = table(folder, dirs)
    assert titles_fit(curves(t, [TRAIN_LOSS, PERPLEXITY, last_third(PERPLEXITY)], ""))


def test_titles_of_figure_1_stay_over_their_panels(dirs):
    """Four watched parameters with long names beside each other."""
    folder = write_grid(dirs[0], "figure2", "digits", "rehearsal")
    for optimizer in ("sgdm", "adarem"):
        run = finish(folder, make_config("resnet18", optimizer, grid="figure2", data="digits"), 95.0)
        ways = [
            {
                "parameter": f"layer{k}.1.conv2.weight[323, 251, 1, 1]",
                "from_step": at,
                "values": [0.0, 3.2e-4, -1.234e-5],
            }
            for k in range(4)
            for at in (0, 73, 147)
        ]
        run.append_oscillation({"epoch": 1, "step": 23, "q_mean": 50.0, "trajectories": ways})
    t = table(folder, dirs)
    assert titles_fit(oscillation.by_parameter(t, "")) and titles_fit(oscillation.over_training(t, ""))
