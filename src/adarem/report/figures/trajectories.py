"""Figure 1: the way of single parameters through training, with path length l, displacement d and q = l / d."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adarem.report.figures import draw
from adarem.report.load import Run
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTERS = 130  # of 7 points that fit side by side over the panels of a row
MAIN = 1  # which of the watched parameters Figure 1 shows: that of the network's middle


@dataclass(frozen=True)
class Way:
    """One parameter's values over one span of a run: before its first step, and after each."""

    parameter: str
    from_step: int
    values: np.ndarray

    @property
    def path(self) -> float:
        return float(np.abs(np.diff(self.values)).sum())

    @property
    def displacement(self) -> float:
        return float(abs(self.values[-1] - self.values[0]))

    @property
    def text(self) -> str:
        q = f"{self.path / self.displacement:.3g}" if self.displacement else "undefined"
        return f"l = {self.path:.3g}, d = {self.displacement:.3g}, q = {q}"


def ways(run: Run) -> list[Way]:
    """What ``oscillation.jsonl`` holds of single parameters, in the order of the run."""
    return [Way(t.parameter, t.from_step, t.values) for t in run.trajectories]


def _first_runs(table: Table) -> list[Run]:
    """A run of each optimizer, with its grid's own settings where there are such, all of one seed where that can be.

    The seed is the first that every optimizer has; which parameters are watched depends on it.
    """
    runs = sorted((r for r in table.sweep.runs if ways(r)), key=lambda r: (r.overrides != "", r.config.seed))
    own = [of for name in table.columns if (of := [r for r in runs if r.config.optimizer.name == name])]
    shared = set.intersection(*({r.config.seed for r in of} for of in own)) if own else set()
    if shared:
        own = [[r for r in of if r.config.seed == min(shared)] for of in own]
    return [of[0] for of in own]


def _panel(ax: "Axes", way: Way, color: str) -> None:
    """The way, its start and end, d between them."""
    y, steps = way.values, way.from_step + np.arange(len(way.values))
    ax.plot(steps, y, color=color, linewidth=0.8, zorder=3)
    for at, marker in ((0, "o"), (-1, "s")):
        ax.axhline(y[at], color="#555", linewidth=0.7, linestyle="--", zorder=2)
        ax.plot(steps[at], y[at], marker=marker, color=color, markersize=4.5, markeredgecolor="black", zorder=5)
    if way.displacement:
        x = steps[0] + 0.97 * (steps[-1] - steps[0])
        ax.annotate(
            "", xy=(x, y[-1]), xytext=(x, y[0]),
            arrowprops={"arrowstyle": "<->", "color": "#555", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    ax.xaxis.get_major_locator().set_params(integer=True, nbins=4)
    ax.yaxis.get_major_locator().set_params(nbins=5)
    ax.ticklabel_format(axis="y", useOffset=False, style="plain")
    ax.tick_params(labelsize=7)


def _title(optimizer: str, head: str, way: Way, columns: int) -> str:
    """Optimizer, head, then l, d and q, on as many lines as keep it over its panel."""
    letters = LETTERS // columns
    first = f"{optimizer}, {head}"
    if len(first) > letters:
        first = "\n".join([f"{optimizer},", *textwrap.wrap(head, letters, break_long_words=False)])
    text = way.text if len(way.text) <= letters else way.text.replace(", q", "\nq")
    return f"{first}\n{text}"


def _grid_of_panels(table: Table, title: str, rows: Sequence[tuple[Run, Sequence[tuple[str, Way]]]]) -> "Figure":
    """A row a run, a panel a way under its head."""
    columns = max((len(panels) for _, panels in rows), default=1)
    fig, axes = draw.frame(table, max(1, len(rows)), columns, title, between=0.42)
    if not rows:
        axes[0][0].text(0.5, 0.5, "no span of steps finished", ha="center", va="center", color="#777")
    for of_row, (run, panels) in zip(axes, rows, strict=False):
        name = run.config.optimizer.name
        color = draw.STYLES.get(name, ("#666666", "-"))[0]
        for ax, (head, way) in zip(of_row, panels, strict=False):
            _panel(ax, way, color)
            ax.set_title(_title(table.labels.optimizer(name), head, way, columns), fontsize=7)
        for ax in of_row[len(panels) :]:
            ax.set_visible(False)
        of_row[0].set_ylabel("Value of the parameter", fontsize=8, labelpad=2)
    for ax in axes[-1]:
        ax.set_xlabel("Iteration", fontsize=8)
    return fig


def over_training(table: Table, title: str) -> "Figure":
    """Figure 1 for each optimizer: the same parameter at the beginning, in the middle and at the end of training.

    The title names the parameter, or each panel its own where the optimizers have no seed in common. The paper shows
    the first 2,000 iterations of one parameter under one optimizer.
    """
    found = []
    for run in _first_runs(table):
        names = list(dict.fromkeys(w.parameter for w in ways(run)))
        found.append((run, names[min(MAIN, len(names) - 1)]))
    shown = {name for _, name in found}
    rows = []
    for run, name in found:
        of = f"seed {run.config.seed}, {name}, " if len(shown) > 1 else ""
        own = [w for w in ways(run) if w.parameter == name]
        rows.append((run, [(f"{of}from iteration {w.from_step:,}", w) for w in own]))
    return _grid_of_panels(table, f"{title} ({shown.pop()})" if len(shown) == 1 else title, rows)


def by_parameter(table: Table, title: str) -> "Figure":
    """Every watched parameter over the first span of training, a row an optimizer."""
    rows = []
    for run in _first_runs(table):
        own = ways(run)
        first = min(w.from_step for w in own)
        rows.append((run, [(w.parameter.replace(".weight", ""), w) for w in own if w.from_step == first]))
    return _grid_of_panels(table, title, rows)
