"""Which figures a grid has, and what is drawn in them: the paper's, and the same against time."""

from pathlib import Path

import numpy as np

from adarem.report import draw
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
    return run.curve("oscillation", "q_median")


def perplexity(run: Run) -> Points:
    return run.curve("val", "perplexity")


CURVES: list[Panel] = [("Train loss", "Epoch", train_loss, None), ("Test error (%)", "Epoch", test_error, 100.0)]
TEXT: list[Panel] = [("Train loss", "Epoch", train_loss, None), ("Validation perplexity", "Epoch", perplexity, None)]
Q: list[Panel] = [
    ("Mean of path / displacement", "Epoch", q_mean, None),
    ("Median of path / displacement", "Epoch", q_median, None),
]


def _hours(run: Run) -> Points:
    """Epoch and the hours of training, evaluation and checkpoints up to its end, lost attempts left out."""
    epochs = np.union1d(run.column("train", "epoch"), run.column("val", "epoch"))
    spent = np.zeros(len(epochs))
    for split, key in (("train", "seconds_train"), ("train", "seconds_checkpoint"), ("val", "seconds_eval")):
        at = np.searchsorted(epochs, run.column(split, "epoch"))
        spent[at] += np.nan_to_num(run.column(split, key)) / 3600.0
    return np.column_stack([epochs, np.cumsum(spent)])


def _world(run: Run) -> int:
    return int(run.result.get("world_size") or run.config.cluster.world_size)


def _time_panels(runs: list[Run], of: Panel) -> list[Panel]:
    """The last panel of the curves against wall time and against device time; minutes where all of it is short."""
    y_label, _, points, below = of
    longest = max((h[-1, 1] for r in runs if len(h := _hours(r))), default=0.0)
    unit, factor = ("hours", 1.0) if longest >= 2 else ("minutes", 60.0)
    device = "GPU" if any(r.config.cluster.device == "cuda" for r in runs) else "CPU rank"

    def wall(run: Run) -> Points:
        hours, curve = _hours(run), points(run)
        at = np.searchsorted(hours[:, 0], curve[:, 0])
        return np.column_stack([factor * hours[at, 1], curve[:, 1]])

    def devices(run: Run) -> Points:
        return wall(run) * [_world(run), 1.0]

    return [
        (y_label, f"Wall time of training, evaluation, checkpoints ({unit})", wall, below),
        (y_label, f"{device} {unit}", devices, below),
    ]


def _is_q(table: Table) -> bool:
    return "q_mean" in table.campaign.grid["metrics"]


def names(table: Table) -> list[str]:
    """File names, without ending, of a table's figures."""
    if _is_q(table):
        return ["figure1", "figure2"]
    return [str(table.campaign.grid.get("figure") or f"{table.name}-curves"), f"{table.name}-time"]


def write_figures(table: Table, folder: Path) -> list[Path]:
    """The paper's figures of this grid: Figures 1 and 2 for Q, else the curves, with those against time beside them."""
    first, second = (folder / n for n in names(table))
    runs = table.campaign.runs
    data = next((r.config.data.label for r in runs), "")
    stamp = "REHEARSAL of " if table.campaign.rehearsal else ""
    if _is_q(table):
        figures = [
            draw.trajectories(table, f"{stamp}Figure 1. One parameter's way through training"),
            draw.curves(table, Q, f"{stamp}Figure 2. q = path / displacement of each parameter, on {data}"),
        ]
    else:
        panels = TEXT if any(r.config.data.kind != "images" for r in runs) else CURVES
        what = panels[1][0].split(" (")[0].lower()
        head = first.name.replace("figure", "Figure ") if first.name.startswith("figure") else table.name
        time = f"{stamp}{table.paper.source or table.name}: {what} against time on {data}"
        figures = [
            draw.curves(table, panels, f"{stamp}{head}. Train loss and {what} on {data}"),
            draw.curves(table, _time_panels(runs, panels[1]), time),
        ]
    return [p for fig, stem in zip(figures, (first, second), strict=True) for p in draw.save(fig, stem)]
