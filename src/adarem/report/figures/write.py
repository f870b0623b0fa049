"""Which figures a sweep has: the paper's, and the same against time; and writing them."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.report.figures import oscillation, search
from adarem.report.figures.curves import curves, networks
from adarem.report.figures.panels import (
    HELD_OUT_ERROR,
    OSCILLATION,
    PERPLEXITY,
    TEST_ERROR,
    TRAIN_LOSS,
    Panel,
    against_time,
    last_third,
)
from adarem.report.figures.steps import watched_steps
from adarem.report.figures.style import LONGEST_TITLE, own_look, save
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ON_THE_RIGHT = "On the right: the last third of training."
SEEDS = "Each line is the mean over the finished seeds, at the epochs that all of them have; bands are ± one deviation."
TIME = (
    "Wall time covers training, evaluation and checkpoints. It depends on the machine and on what else ran there: "
    "compare only runs that had machines of one kind to themselves."
)


@dataclass(frozen=True)
class Part:
    """The networks that one figure shows."""

    ending: str  # of the file's name
    models: Sequence[str]
    sentence: str  # for the caption


@dataclass(frozen=True)
class NamedFigure:
    name: str  # of its files, without ending
    figure: "Figure"


def write_figures(table: Table, folder: Path) -> list[Path]:
    """Writes the figures of a sweep, each as PNG and SVG, and returns their paths."""
    with own_look():
        return [path for named in draw_figures(table) for path in save(named.figure, folder / named.name)]


def figure_names(table: Table) -> list[str]:
    """File names, without ending, of a table's figures, that of the watched steps left out, which not all have."""
    if is_about_oscillation(table):
        return ["figure1", "figure1-parameters", "figure2"]
    if table.search is not None:
        return search.figure_names(table.search)
    endings = [part.ending for part in _parts(table)]
    return [f"{name}{ending}" for name in (_curves_name(table), f"{table.name}-time") for ending in endings]


def is_about_oscillation(table: Table) -> bool:
    """Whether the grid is that of Figures 1 and 2."""
    return "q_mean" in table.sweep.spec.metrics


def has_times(table: Table) -> bool:
    """Whether a sweep's cells are held against each other by time to accuracy: not those of a search, nor of Q."""
    return table.search is None and not is_about_oscillation(table)


def draw_figures(table: Table) -> list[NamedFigure]:
    """Figures 1 and 2 of a grid about Q, those of a search, else the curves against epoch and time; in the order of
    ``figure_names``. Then that of the watched steps, where there are any.
    """
    data = next((r.config.data.label for r in table.sweep.runs), "")
    stamp = "REHEARSAL of " if table.sweep.rehearsal else ""
    if is_about_oscillation(table):
        figures = [
            oscillation.over_training(table, f"{stamp}Figure 1. One parameter through training"),
            oscillation.by_parameter(table, f"{stamp}Figure 1 for each watched parameter, first iterations"),
            curves(table, OSCILLATION, f"{stamp}Figure 2. q = l / d, path / displacement of each parameter, on {data}"),
        ]
    elif table.search is not None:
        figures = search.figures(table, table.search, stamp, data)
    else:
        figures = _curves_and_times(table, stamp, data)
    found = [NamedFigure(name, figure) for name, figure in zip(figure_names(table), figures, strict=True)]
    room = LONGEST_TITLE - len(f"{stamp}. What each step does, on {data}")
    heading = textwrap.shorten(table.heading, max(room, 20), placeholder=" …")
    steps = watched_steps(table, f"{stamp}{heading}. What each step does, on {data}")
    return [*found, *([NamedFigure(f"{table.name}-steps", steps)] if steps else [])]


def _curves_and_times(table: Table, stamp: str, data: str) -> list["Figure"]:
    quality = TEST_ERROR
    if any(r.config.data.kind != "images" for r in table.sweep.runs):
        quality = PERPLEXITY
    elif table.sweep.spec.metrics[0].startswith("holdout_"):
        quality = HELD_OUT_ERROR
    time, name, what = against_time(quality, table.sweep.runs), _curves_name(table), quality.title
    heading = _in_words(name) if name.startswith("figure") and table.sweep.spec.paper else table.heading
    by_epoch: list[Panel] = [TRAIN_LOSS, quality, last_third(quality)]
    by_time: list[Panel] = [time.wall, time.device, last_third(time.wall)]
    seeds = SEEDS if any(len(c.values) > 1 for c in table.cells) else ""
    figures = []
    for panels, title, text, caption in (
        (by_epoch, heading, f"Train loss and {what.lower()} on {data}", ON_THE_RIGHT),
        (by_time, table.heading, f"{what} against time on {data}", f"{ON_THE_RIGHT} {TIME}"),
    ):
        for part in _parts(table):
            others = ", the other networks" if part.ending else ""
            room = LONGEST_TITLE - len(f"{stamp}{others}. {text}")  # a study's heading is its title
            full = f"{stamp}{textwrap.shorten(title, max(room, 20), placeholder=' …')}{others}. {text}".replace(
                " …. ", " … "
            )
            sentences = " ".join(filter(None, (part.sentence, caption, seeds)))
            figures.append(curves(table, panels, full, part.models, sentences))
    return figures


def _parts(table: Table) -> list[Part]:
    """The networks of the paper's figure, as in that figure; and the table's others, which get a second figure."""
    name, models = _curves_name(table), networks(table)
    shown = [m for m in table.paper.stated.figures.get(name, models) if m in models]
    rest = [m for m in models if m not in shown]
    if not shown or not rest:
        return [Part("", shown or rest, "")]
    others = ", ".join(map(table.labels.model, rest))
    figure = _in_words(name)
    return [
        Part("", shown, f"The networks of the paper's {figure}; {others} are in a second figure."),
        Part("-others", rest, f"Networks of {table.heading} that the paper's {figure} does not show."),
    ]


def _curves_name(table: Table) -> str:
    return table.sweep.spec.figure or f"{table.name}-curves"


def _in_words(name: str) -> str:
    return name.replace("figure", "Figure ")
