"""Figure 1: the trajectories of single parameters through training, with path length l, displacement d, q = l / d."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adarem.report.figures.style import frame, of_optimizer
from adarem.report.load import Run, Trajectory
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHARACTERS = 130  # of 7 points that fit next to each other over the panels of a row
MAIN = 1  # which of the watched parameters Figure 1 shows: that of the network's middle


@dataclass(frozen=True)
class TrajectoryPanel:
    heading: str
    trajectory: Trajectory


@dataclass(frozen=True)
class RunRow:
    """A row of panels, all of one run."""

    run: Run
    panels: Sequence[TrajectoryPanel]


def over_training(table: Table, title: str) -> "Figure":
    """Figure 1 for each optimizer: the same parameter at the beginning, in the middle and at the end of training.

    The title names the parameter; where the optimizers have no seed in common, each panel names its own. The paper
    shows the first 2,000 iterations of one parameter under one optimizer.
    """
    runs = _one_run_per_optimizer(table)
    shown = [_main_parameter(run) for run in runs]
    alike = len(set(shown)) == 1
    rows = []
    for run, name in zip(runs, shown, strict=True):
        of = "" if alike else f"seed {run.config.seed}, {name}, "
        own = [t for t in run.trajectories if t.parameter == name]
        rows.append(RunRow(run, [TrajectoryPanel(f"{of}from iteration {t.from_step:,}", t) for t in own]))
    return _draw_rows(table, f"{title} ({shown[0]})" if alike else title, rows)


def by_parameter(table: Table, title: str) -> "Figure":
    """Every watched parameter over the first span of training, one row per optimizer."""
    rows = []
    for run in _one_run_per_optimizer(table):
        first = min(t.from_step for t in run.trajectories)
        own = [t for t in run.trajectories if t.from_step == first]
        rows.append(RunRow(run, [TrajectoryPanel(t.parameter.replace(".weight", ""), t) for t in own]))
    return _draw_rows(table, title, rows)


def _main_parameter(run: Run) -> str:
    names = list(dict.fromkeys(t.parameter for t in run.trajectories))
    return names[min(MAIN, len(names) - 1)]


def _one_run_per_optimizer(table: Table) -> list[Run]:
    """Of each optimizer one run with trajectories: without overrides where there is one, of one seed where possible.

    The seed is the first that every optimizer has; the watched parameters depend on it.
    """
    runs = sorted((r for r in table.sweep.runs if r.trajectories), key=lambda r: (r.overrides != "", r.config.seed))
    own = [of for name in table.columns if (of := [r for r in runs if r.config.optimizer.name == name])]
    shared = set.intersection(*({r.config.seed for r in of} for of in own)) if own else set()
    if shared:
        own = [[r for r in of if r.config.seed == min(shared)] for of in own]
    return [of[0] for of in own]


def path_length(trajectory: Trajectory) -> float:
    """l: the sum of all steps' lengths."""
    return float(np.abs(np.diff(trajectory.values)).sum())


def displacement(trajectory: Trajectory) -> float:
    """d: the distance from the first value to the last."""
    return float(abs(trajectory.values[-1] - trajectory.values[0]))


def lengths_text(trajectory: Trajectory) -> str:
    """``l = 6, d = 2, q = 3``; q is undefined where d is 0."""
    path, distance = path_length(trajectory), displacement(trajectory)
    q = f"{path / distance:.3g}" if distance else "undefined"
    return f"l = {path:.3g}, d = {distance:.3g}, q = {q}"


def _draw_rows(table: Table, title: str, rows: Sequence[RunRow]) -> "Figure":
    columns = max((len(row.panels) for row in rows), default=1)
    framed = frame(table, max(1, len(rows)), columns, title, gap=0.42)
    if not rows:
        framed.axes[0][0].text(0.5, 0.5, "no span of steps finished", ha="center", va="center", color="#777")
    for axes, row in zip(framed.axes, rows, strict=False):
        name = row.run.config.optimizer.name
        for ax, panel in zip(axes, row.panels, strict=False):
            _draw_panel(ax, panel.trajectory, of_optimizer(name, table.columns).color)
            ax.set_title(_panel_title(table.labels.optimizer(name), panel, columns), fontsize=7)
        for ax in axes[len(row.panels) :]:
            ax.set_visible(False)
        axes[0].set_ylabel("Value of the parameter", fontsize=8, labelpad=2)
    for ax in framed.axes[-1]:
        ax.set_xlabel("Iteration", fontsize=8)
    return framed.figure


def _draw_panel(ax: "Axes", trajectory: Trajectory, color: str) -> None:
    """The values, the first and the last marked, d between them."""
    y, steps = trajectory.values, trajectory.from_step + np.arange(len(trajectory.values))
    ax.plot(steps, y, color=color, linewidth=0.8, zorder=3)
    for at, marker in ((0, "o"), (-1, "s")):
        ax.axhline(y[at], color="#555", linewidth=0.7, linestyle="--", zorder=2)
        ax.plot(steps[at], y[at], marker=marker, color=color, markersize=4.5, markeredgecolor="black", zorder=5)
    if displacement(trajectory):
        x = steps[0] + 0.97 * (steps[-1] - steps[0])
        ax.annotate(
            "", xy=(x, y[-1]), xytext=(x, y[0]),
            arrowprops={"arrowstyle": "<->", "color": "#555", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    ax.locator_params("x", integer=True, nbins=4)
    ax.locator_params("y", nbins=5)
    ax.ticklabel_format(axis="y", useOffset=False, style="plain")
    ax.tick_params(labelsize=7)


def _panel_title(optimizer: str, panel: TrajectoryPanel, columns: int) -> str:
    """Optimizer, heading, then l, d and q, on as many lines as keep it over its panel."""
    width = CHARACTERS // columns
    first = f"{optimizer}, {panel.heading}"
    if len(first) > width:
        first = "\n".join([f"{optimizer},", *textwrap.wrap(panel.heading, width, break_long_words=False)])
    text = lengths_text(panel.trajectory)
    return f"{first}\n{text if len(text) <= width else text.replace(', q', chr(10) + 'q')}"
