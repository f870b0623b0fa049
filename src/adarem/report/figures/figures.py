"""Which figures a grid has, and what is drawn in them: the paper's, the end of training, and the same against time."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adarem.report.figures import draw, trajectories
from adarem.report.figures.draw import Panel, Points
from adarem.report.load import Run
from adarem.report.tables import times
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATE, ON_THE_RIGHT = "last third", "On the right: the last third of training."
SEEDS = "Each line is the mean over the finished seeds, at the epochs that all of them have; bands are ± one deviation."
TIME = (
    "Wall time is that of training, evaluation and checkpoints. It is also of the machine and of what else ran there: "
    "it compares only runs that had like machines to themselves."
)


def _by_epoch(run: Run, split: str, key: str) -> Points:
    epochs, values = run.curve(split, key).T
    return np.column_stack([epochs, values, epochs])


def train_loss(run: Run) -> Points:
    return _by_epoch(run, "train", "loss")


def test_error(run: Run) -> Points:
    return _by_epoch(run, "val", "top1") * [1.0, -1.0, 1.0] + [0.0, 100.0, 0.0]


def q_mean(run: Run) -> Points:
    return _by_epoch(run, "oscillation", "q_mean")


def q_median(run: Run) -> Points:
    return _by_epoch(run, "oscillation", "q_median_with_gradient")


def perplexity(run: Run) -> Points:
    return _by_epoch(run, "val", "perplexity")


LOSS = Panel("Train loss (log scale)", "Epoch", train_loss, log=True)
CURVES = [LOSS, Panel("Test error (%)", "Epoch", test_error, largest=100.0)]
TEXT = [LOSS, Panel("Validation perplexity (log scale)", "Epoch", perplexity, log=True)]
Q = [
    Panel("Q, mean of l / d (all that moved)", "Epoch", q_mean),
    Panel("Median of l / d (with a gradient)", "Epoch", q_median),
]


def late(panel: Panel) -> Panel:
    """The same over the last third of training on a linear axis, which the beginning does not stretch."""

    def points(run: Run) -> Points:
        whole = panel.points(run)
        return whole[3 * whole[:, -1] > 2 * run.config.scale.epochs]

    return panel._replace(y_label=panel.y_label.replace(" (log scale)", ""), points=points, log=False, span=LATE)


def _time_panels(runs: list[Run], of: Panel) -> list[Panel]:
    """A panel against wall time and against device time; minutes where all of it is short."""
    unit, factor = times.unit(runs)

    def against(run: Run, column: int) -> Points:
        hours, curve = run.hours, of.points(run)
        at = np.searchsorted(hours[:, 0], curve[:, -1])
        return np.column_stack([factor * hours[at, column], curve[:, 1:]])

    def wall(run: Run) -> Points:
        return against(run, 1)

    def devices(run: Run) -> Points:
        return against(run, 2)

    return [
        of._replace(x_label=f"Wall time ({unit})", points=wall),
        of._replace(x_label=f"{times.device(runs)} {unit}", points=devices),
    ]


def is_q(table: Table) -> bool:
    """Whether the grid is about oscillation, Figures 1 and 2."""
    return "q_mean" in table.sweep.grid["metrics"]


def _curves_name(table: Table) -> str:
    return str(table.sweep.grid.get("figure") or f"{table.name}-curves")


def _parts(table: Table) -> list[tuple[str, list[str], str]]:
    """The networks of one figure each: ending of its file's name, networks, a sentence for the caption.

    Those that the paper's figure shows stand in it as there; the table's others get a second figure.
    """
    name, models = _curves_name(table), draw.networks(table)
    shown = [m for m in table.paper.stated.figures.get(name, models) if m in models]
    rest = [m for m in models if m not in shown]
    if not shown or not rest:
        return [("", shown or rest, "")]
    others = ", ".join(map(table.labels.model, rest))
    return [
        ("", shown, f"The networks of the paper's {_words(name)}; {others} stand in a second figure."),
        ("-others", rest, f"Networks of {table.heading} that the paper's {_words(name)} does not show."),
    ]


def _words(name: str) -> str:
    return name.replace("figure", "Figure ")


def names(table: Table) -> list[str]:
    """File names, without ending, of a table's figures."""
    if is_q(table):
        return ["figure1", "figure1-parameters", "figure2"]
    endings = [ending for ending, _, _ in _parts(table)]
    return [f"{name}{ending}" for name in (_curves_name(table), f"{table.name}-time") for ending in endings]


def write_figures(table: Table, folder: Path) -> list[Path]:
    """The paper's figures of this grid: Figures 1 and 2 for Q, else the curves, with those against time beside them."""
    data = next((r.config.data.label for r in table.sweep.runs), "")
    stamp = "REHEARSAL of " if table.sweep.rehearsal else ""
    if is_q(table):
        figures = [
            trajectories.over_training(table, f"{stamp}Figure 1. One parameter's way through training"),
            trajectories.by_parameter(table, f"{stamp}Figure 1 for each watched parameter, first iterations"),
            draw.curves(table, Q, f"{stamp}Figure 2. q = l / d, path / displacement of each parameter, on {data}"),
        ]
    else:
        figures = _curves_and_times(table, stamp, data)
    return [p for fig, name in zip(figures, names(table), strict=True) for p in draw.save(fig, folder / name)]


def _curves_and_times(table: Table, stamp: str, data: str) -> list["Figure"]:
    runs, name = table.sweep.runs, _curves_name(table)
    panels = TEXT if any(r.config.data.kind != "images" for r in runs) else CURVES
    wall, devices = _time_panels(runs, panels[1])
    what = panels[1].title
    head = _words(name) if name.startswith("figure") else table.heading
    seeds = SEEDS if any(len(c.values) > 1 for c in table.cells) else ""
    figures = []
    for of, title, text, caption in (
        ([*panels, late(panels[1])], head, f"Train loss and {what.lower()} on {data}", ON_THE_RIGHT),
        ([wall, devices, late(wall)], table.heading, f"{what} against time on {data}", f"{ON_THE_RIGHT} {TIME}"),
    ):
        for ending, models, sentence in _parts(table):
            full = f"{stamp}{title}{', the other networks' if ending else ''}. {text}"
            told = " ".join(filter(None, (sentence, caption, seeds)))
            figures.append(draw.curves(table, of, full, models, told))
    return figures
