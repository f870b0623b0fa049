"""Which figures a grid has, and what is drawn in them: the paper's, and the same against time."""

from pathlib import Path

import numpy as np

from adarem.report import draw, times, trajectories
from adarem.report.cells import Table
from adarem.report.collect import Run
from adarem.report.draw import Panel, Points


def train_loss(run: Run) -> Points:
    return run.curve("train", "loss")


def test_error(run: Run) -> Points:
    return run.curve("val", "top1") * [1.0, -1.0] + [0.0, 100.0]


def q_mean(run: Run) -> Points:
    return run.curve("oscillation", "q_mean")


def q_median(run: Run) -> Points:
    return run.curve("oscillation", "q_median_with_gradient")


def perplexity(run: Run) -> Points:
    return run.curve("val", "perplexity")


CURVES: list[Panel] = [("Train loss", "Epoch", train_loss, None), ("Test error (%)", "Epoch", test_error, 100.0)]
TEXT: list[Panel] = [("Train loss", "Epoch", train_loss, None), ("Validation perplexity", "Epoch", perplexity, None)]
Q: list[Panel] = [
    ("Q, mean of l / d (all that moved)", "Epoch", q_mean, None),
    ("Median of l / d (with a gradient)", "Epoch", q_median, None),
]


def _time_panels(runs: list[Run], of: Panel) -> list[Panel]:
    """The last panel of the curves against wall time and against device time; minutes where all of it is short."""
    y_label, _, points, below = of
    unit, factor = times.unit(runs)
    device = times.device(runs)

    def against(run: Run, column: int) -> Points:
        hours, curve = run.hours, points(run)
        at = np.searchsorted(hours[:, 0], curve[:, 0])
        return np.column_stack([factor * hours[at, column], curve[:, 1]])

    def wall(run: Run) -> Points:
        return against(run, 1)

    def devices(run: Run) -> Points:
        return against(run, 2)

    return [
        (y_label, f"Wall time of training, evaluation, checkpoints ({unit})", wall, below),
        (y_label, f"{device} {unit}", devices, below),
    ]


def is_q(table: Table) -> bool:
    """Whether the grid is about oscillation, Figures 1 and 2."""
    return "q_mean" in table.campaign.grid["metrics"]


def names(table: Table) -> list[str]:
    """File names, without ending, of a table's figures."""
    if is_q(table):
        return ["figure1", "figure1-parameters", "figure2"]
    return [str(table.campaign.grid.get("figure") or f"{table.name}-curves"), f"{table.name}-time"]


def write_figures(table: Table, folder: Path) -> list[Path]:
    """The paper's figures of this grid: Figures 1 and 2 for Q, else the curves, with those against time beside them."""
    stems = [folder / n for n in names(table)]
    runs = table.campaign.runs
    data = next((r.config.data.label for r in runs), "")
    stamp = "REHEARSAL of " if table.campaign.rehearsal else ""
    if is_q(table):
        figures = [
            trajectories.over_training(table, f"{stamp}Figure 1. One parameter's way through training"),
            trajectories.by_parameter(table, f"{stamp}Figure 1 for each watched parameter, first iterations"),
            draw.curves(table, Q, f"{stamp}Figure 2. q = l / d, path / displacement of each parameter, on {data}"),
        ]
    else:
        panels = TEXT if any(r.config.data.kind != "images" for r in runs) else CURVES
        what = panels[1][0].split(" (")[0].lower()
        head = stems[0].name.replace("figure", "Figure ") if stems[0].name.startswith("figure") else table.name
        time = f"{stamp}{table.paper.source or table.name}: {what} against time on {data}"
        figures = [
            draw.curves(table, panels, f"{stamp}{head}. Train loss and {what} on {data}"),
            draw.curves(table, _time_panels(runs, panels[1]), time),
        ]
    return [p for fig, stem in zip(figures, stems, strict=True) for p in draw.save(fig, stem)]
