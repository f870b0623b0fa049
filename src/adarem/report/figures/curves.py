"""Training curves: one row of panels per network, one line per optimizer and overrides."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from adarem.report.figures.panels import FloatArray, Panel, mean_curve
from adarem.report.figures.style import CurveStyle, Legend, all_overrides, frame, of_optimizer, palette
from adarem.report.load import Run
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

OVERRIDES_MARKERS = ("", "^", "v", "D", "P", "*")  # by the place of the overrides among the table's
LONGEST_LABEL = 40  # characters
SPIKE = 3.0  # times the first value: what lies above, before a divergence, is left out of the axis
FAR = 2.0  # times the largest of all others: a line above that is left out of a panel that shows differences


@dataclass(frozen=True)
class LineOfTable:
    """One line of a figure: the runs of one optimizer with one set of overrides on one network."""

    label: str
    runs: Sequence[Run]
    style: CurveStyle


def curves(
    table: Table, panels: Sequence[Panel], title: str, models: Sequence[str] | None = None, caption: str = ""
) -> "Figure":
    """One row of panels per network of ``models`` (None: all of the table); the first panel of a row names it."""
    models = networks(table) if models is None else models
    legend = Legend()
    framed = frame(table, len(models), len(panels), title, 0.22 if len(panels) < 3 else 0.3, caption)
    for model, row in zip(models, framed.axes, strict=True):
        lines = _lines(table, model)
        for panel, ax in zip(panels, row, strict=True):
            _draw_panel(ax, panel, lines, legend)
            # With y given, matplotlib does not measure everything to find a place for the title.
            heading = f"{table.labels.model(model)}: {panel.title}" if ax is row[0] else panel.title
            ax.set_title(heading, fontsize=10 if len(panels) < 3 else 9, y=1.0)
            ax.set_ylabel(panel.y_label, fontsize=9)
            if row is framed.axes[-1]:
                ax.set_xlabel(panel.x_label, fontsize=9)
    legend.draw(table, framed.figure)
    return framed.figure


def networks(table: Table) -> list[str]:
    """The table's networks, in its order."""
    return list(dict.fromkeys(model for model, _, _ in table.rows))


def _lines(table: Table, model: str) -> list[LineOfTable]:
    """The lines of one network's panels."""
    found = []
    overrides = all_overrides(table)
    # Where a grid varies settings of one optimizer, the colours are those of the settings.
    one_optimizer = len(table.columns) == 1 and len(overrides) > 1
    for name in table.columns:
        for k, text in enumerate(overrides):
            label = table.labels.cell(name, text if len(overrides) > 1 else "")
            style = replace(of_optimizer(name, table.columns), emphasised=name in table.compared)
            if one_optimizer:
                label = table.labels.overrides(text) or label
                other = palette()[k % len(palette())]
                style = replace(style, color=other.color, line=other.line)
            if k > 0:
                style = replace(style, marker=OVERRIDES_MARKERS[k % len(OVERRIDES_MARKERS)] or style.marker)
            label = textwrap.shorten(label, LONGEST_LABEL, placeholder=" …")
            own = (model, name, text)
            runs = [r for r in table.sweep.runs if (r.config.model.name, r.config.optimizer.name, r.overrides) == own]
            found.append(LineOfTable(label, runs, style))
    return found


def _draw_panel(ax: "Axes", panel: Panel, lines: Sequence[LineOfTable], legend: Legend) -> None:
    from matplotlib.ticker import AutoLocator

    in_view = {line.label: _draw_line(ax, line, panel, legend) for line in lines}
    _set_y_axis(ax, panel, in_view)
    if panel.x_label in ("Epoch", "Step"):
        locator = AutoLocator()
        locator.set_params(integer=True)
        ax.xaxis.set_major_locator(locator)
    if not ax.get_lines():
        text = "not watched" if panel.x_label == "Step" else "not reached yet" if panel.span else "no epoch finished"
        ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="#777")


def _draw_line(ax: "Axes", line: LineOfTable, panel: Panel, legend: Legend) -> FloatArray:
    """Mean over the finished seeds with a band of ± one sample deviation; every other seed alone and thin.

    × marks where a run diverged. Returns every y that should be in view.
    """
    style = line.style
    in_view = [np.empty(0)]
    finished = [c for r in line.runs if r.status == "done" and len(c := panel.curve(r))]
    if finished:
        label = f"{line.label} (n={len(finished)})" if len(finished) > 1 else line.label
        mean = mean_curve(finished)
        shown = mean.with_gaps()
        drawn = _plot(
            ax, shown.x, shown.y, style, 1.9 if style.emphasised else 1.4, label, style.marker, max(1, len(mean) // 8)
        )
        legend.add(line.label, drawn, len(finished))
        if len(finished) > 1:
            low, high = shown.y - shown.deviation, shown.y + shown.deviation
            ax.fill_between(shown.x, low, high, color=style.color, alpha=0.18, linewidth=0)
        low, high = mean.y - mean.deviation, mean.y + mean.deviation
        in_view += [np.maximum(low, mean.y / 2) if panel.log else low, high]
    for r in line.runs:
        if r.status != "done" and len(own := panel.curve(r)):
            shown = own.with_gaps()
            unfinished = f"{line.label} ({r.state})"
            drawn = _plot(ax, shown.x, shown.y, style, 0.9, None if finished else unfinished)
            if not finished:
                legend.add(unfinished, drawn, 1)
            if r.status == "diverged":
                end = own.x[-1:], own.y[-1:]
                ax.plot(*end, color=style.color, marker="x", markersize=8, linestyle="none", zorder=6)
                own = own.only(own.y <= SPIKE * own.y[0])
            in_view.append(own.y)
    return np.concatenate(in_view)


def _plot(
    ax: "Axes",
    x: FloatArray,
    y: FloatArray,
    style: CurveStyle,
    width: float,
    label: str | None,
    marker: str = "",
    mark_every: int = 1,
) -> "Line2D":
    """A line, and a dot for each point that has no neighbour to be joined with."""
    zorder = 3 + style.emphasised
    (line,) = ax.plot(
        x, y, color=style.color, linestyle=style.line, linewidth=width, label=label, zorder=zorder, marker=marker,
        markersize=4, markevery=mark_every,
    )  # fmt: skip
    known = np.pad(np.isfinite(y), 1)
    if (lone := known[1:-1] & ~known[:-2] & ~known[2:]).any():
        ax.plot(x[lone], y[lone], color=style.color, marker=".", linestyle="none", zorder=zorder)
    return line


def far_above(in_view: Mapping[str, FloatArray]) -> list[str]:
    """Lines that lie completely above ``FAR`` times the largest value of all others, of which there are at least two.

    Args:
        in_view: label to the values of the line.
    """
    order = sorted((k for k, y in in_view.items() if len(y)), key=lambda k: float(in_view[k].min()))
    for i in range(2, len(order)):
        if in_view[order[i]].min() > FAR * max(in_view[k].max() for k in order[:i]):
            return order[i:]
    return []


def _set_y_axis(ax: "Axes", panel: Panel, in_view: Mapping[str, FloatArray]) -> None:
    """Shows all that is drawn except spikes; a panel of a part of training names the lines far above and omits them."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if panel.span and (above := far_above(in_view)):
        names = ", ".join(f"{k} ({in_view[k].min():.3g})" for k in above)
        ax.text(0.98, 0.97, f"above: {names}", ha="right", va="top", fontsize=7, transform=ax.transAxes)
        in_view = {k: y for k, y in in_view.items() if k not in above}
    y = np.concatenate([np.empty(0), *in_view.values()])
    y = y[y > 0] if panel.log else y
    if not len(y):
        return
    low, high = float(y.min()), float(y.max())
    if panel.log:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.1, high * 1.1)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)) if high > 6 * low else MaxNLocator(6))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter("{x:g}")
        return
    pad = 0.06 * (high - low or abs(high) or 1.0)
    ax.set_ylim(low - pad if low < 0 else max(0.0, low - pad), min(high + pad, panel.largest or math.inf))
