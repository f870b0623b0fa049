"""Figures of a search: best of k trials, the settings that were tried, the figure against the learning rate."""

import math
import re
import textwrap
from typing import TYPE_CHECKING

from adarem.report.figures.settings_tried import draw_settings
from adarem.report.figures.style import ALARM, LONGEST_TITLE, Frame, Legend, frame, of_optimizer
from adarem.report.search.learning_rate import sensitivity
from adarem.report.search.trials import OptimizerSearch, Search, Span
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

BEST_OF_K = (
    "Line: mean of the best of k trials over all sets of k of the finished ones, without replacement (Dodge et al. "
    "2019, unbiased as in Tang et al. 2020); band: quartiles. A diverged trial is worse than all others: the mean "
    "begins where not all k can have diverged, the thin line before it is the median."
)
RATE = (
    "Each point is a trial, ★ the best; at the edge × diverged, ○ stopped early, | not finished, ▽ far worse. Thick "
    "line: the best other settings, at every learning rate tried with them. Thin line, where no other trial has those: "
    "the best of each trial and its two neighbours by learning rate, whose other settings differ."
)
COLUMNS = 2
TALL = 4.0  # inches of a row, of curves that lie close


def figure_names(search: Search) -> list[str]:
    """File names, without ending, in the order of ``figures``."""
    several = len(search.models) > 1
    names = [f"search-{what}{f'-{m}' if several else ''}" for what in ("settings", "lr") for m in search.models]
    return ["search-best-of-k", *(re.sub(r"[^A-Za-z0-9_.=+-]+", "_", name) for name in names)]


def figures(table: Table, search: Search, stamp: str, data: str) -> list["Figure"]:
    """Best of k over all networks; then for each network what was tried, and the learning rate.

    Args:
        stamp: goes before each title.
        data: the label of the data set.
    """
    on = f" on {data}" if data else ""

    def title(what: str) -> str:
        room = LONGEST_TITLE - len(stamp) - len(what) - 2
        return f"{stamp}{textwrap.shorten(table.heading, max(room, 20), placeholder=' …')}. {what}"

    found = [_best_of_k(table, search, title(f"What k trials find{on}"))]
    for draw, what in ((draw_settings, "What was tried"), (_learning_rate, "Sensitivity to the learning rate")):
        found += [draw(table, search, m, title(f"{what} with {table.labels.model(m)}{on}")) for m in search.models]
    return found


class _Curve:
    """The curve of one optimizer on one network."""

    def __init__(self, table: Table, search: Search, part: OptimizerSearch) -> None:
        self.part, self.label = part, _entry(table, search, part)
        self.style = of_optimizer(part.optimizer, table.columns)

    def draw(self, ax: "Axes") -> "Line2D":
        """The mean with its quartiles; where all k may have diverged, the median alone."""
        curve, style = self.part.best_of_k, self.style
        k = [b.k for b in curve]
        mean, worse, median, better = (
            [math.nan if v is None else v for v in values]
            for values in (
                [b.mean for b in curve],
                [b.worse_quartile for b in curve],
                [b.median if i == 0 or curve[i - 1].mean is None else None for i, b in enumerate(curve)],
                [b.better_quartile for b in curve],
            )
        )
        (line,) = ax.plot(
            k, mean, color=style.color, linestyle=style.line, linewidth=1.7, marker=style.marker, markersize=4,
            markevery=max(1, len(k) // 6), label=self.label, zorder=3,
        )  # fmt: skip
        if sum(map(math.isfinite, mean)) == 1:  # of one point no line is drawn
            ax.plot(k, mean, color=style.color, marker=".", zorder=3)
        if curve and curve[0].mean is None:
            ax.plot(k, median, color=style.color, linewidth=0.7, zorder=3)
        ax.fill_between(k, worse, better, color=style.color, alpha=0.1, linewidth=0)
        return line

    @property
    def last(self) -> float | None:
        """The figure of all trials; None of none."""
        return self.part.best_of_k[-1].mean if self.part.best_of_k else None

    @property
    def in_view(self) -> list[float]:
        """What the axis of the metric has to show."""
        values = [v for b in self.part.best_of_k for v in (b.mean, b.worse_quartile, b.median, b.better_quartile)]
        return [v for v in values if v is not None]


def _best_of_k(table: Table, search: Search, title: str) -> "Figure":
    from matplotlib.ticker import AutoLocator

    models = search.models
    columns = min(COLUMNS, len(models)) or 1
    entries = list(dict.fromkeys(_entry(table, search, part) for part in search.parts))
    framed = frame(table, -(-len(models) // columns), columns, title, 0.22, BEST_OF_K, entries, TALL)
    legend = Legend()
    for ax, model in zip(_panels(framed, len(models)), models, strict=True):
        curves = [_Curve(table, search, part) for part in search.of(model)]
        for curve in curves:
            legend.add(curve.label, curve.draw(ax), 1)
        figures = [b for curve in curves for b in curve.part.best_of_k]
        if not figures:
            _say(ax, "no trial is finished")
        of_trials = search.span_of_k(model)
        out = [c for c in curves if of_trials is not None and of_trials.is_beyond(c.last)]
        in_view = [v for c in curves if c not in out for v in c.in_view]
        if of_trials is not None and in_view:
            _set_figure_axis(ax, Span(min(in_view), max(in_view), of_trials.log))
        if out:
            names = ", ".join(
                f"{table.labels.optimizer(c.part.optimizer)} ({c.part.best_of_k[-1].mean:.4g})" for c in out
            )
            ax.text(0.98, 0.04, f"out of view: {names}", ha="right", fontsize=8, transform=ax.transAxes)
        ax.set_title(table.labels.model(model), fontsize=10, y=1.0)
        ax.set_xlabel("k, number of trials", fontsize=9)
        rungs = {part.first_rung for part in search.of(model)} - {None}
        ax.set_ylabel(search.metric.label + (f" after {min(filter(None, rungs))} epochs" if rungs else ""), fontsize=9)
        locator = AutoLocator()
        locator.set_params(integer=True)
        ax.xaxis.set_major_locator(locator)
        if figures:
            ax.set_xlim(0.5, max(b.k for b in figures) + 0.5)
    legend.draw(table, framed.figure)
    return framed.figure


def _entry(table: Table, search: Search, part: OptimizerSearch) -> str:
    """An optimizer; with its number of trials where there is one network."""
    name = table.labels.optimizer(part.optimizer)
    return f"{name} ({part.counts})" if len(search.models) == 1 else name


def _learning_rate(table: Table, search: Search, model: str, title: str) -> "Figure":
    parts = search.of(model)
    framed = frame(table, -(-len(parts) // COLUMNS), COLUMNS, title, caption=RATE, entries=[])
    span = search.span(model)
    for i, (ax, part) in enumerate(zip(_panels(framed, len(parts)), parts, strict=True)):
        ax.set_title(f"{table.labels.optimizer(part.optimizer)}, {part.counts_text}", fontsize=10, y=1.0)
        if i % COLUMNS == 0:
            ax.set_ylabel(search.metric.label, fontsize=9)
        if i >= len(parts) - COLUMNS:
            ax.set_xlabel("learning rate", fontsize=9)
        _set_figure_axis(ax, span)
        _draw_rates(ax, table, part, span)
    return framed.figure


def _draw_rates(ax: "Axes", table: Table, part: OptimizerSearch, span: Span | None) -> None:
    from matplotlib.transforms import blended_transform_factory

    found = sensitivity(part)
    if found is None:
        _say(ax, "its learning rate is not varied")
        return
    dimension = next(d for d in part.dimensions if d.key == "optimizer.lr")
    style = of_optimizer(part.optimizer, table.columns)
    if dimension.scale == "log":
        ax.set_xscale("log")
        _plain_rates(ax)
        ax.set_xlim(dimension.low / 1.3, dimension.high * 1.3)
    on_line = [p for p in found.points if p.line is not None]
    ax.plot(
        [p.rate for p in on_line], [p.line for p in on_line if p.line is not None], color=style.color, zorder=3,
        linewidth=1.8 if found.exact else 0.8, linestyle="-" if found.exact else (0, (4, 2)),
    )  # fmt: skip
    done = [p for p in found.points if p.trial.figure is not None]
    ax.plot(
        [p.rate for p in done], [p.trial.figure for p in done if p.trial.figure is not None], marker="o",
        markersize=4.5, color=style.color, markeredgecolor="white", markeredgewidth=0.5, linestyle="none", zorder=4,
        alpha=0.85,
    )  # fmt: skip
    best = next((p for p in done if p.trial is part.best), None)
    if best is not None and best.trial.figure is not None:
        ax.plot(
            best.rate, best.trial.figure, color=style.color, marker="*", markersize=14, markeredgecolor="black",
            markeredgewidth=0.8, linestyle="none", zorder=6,
        )  # fmt: skip
    edge = blended_transform_factory(ax.transData, ax.transAxes)
    at = 0.97 if part.metric.lower_is_better else 0.03
    at_edge = {
        "x": (ALARM, [p.rate for p in found.points if p.trial.state == "diverged"]),
        "o": ("#777777", [p.rate for p in found.points if p.trial.state == "stopped"]),
        "|": ("#777777", [p.rate for p in found.points if p.trial.state == "unfinished"]),
        "v": (style.color, [p.rate for p in done if span is not None and span.is_beyond(p.trial.figure)]),
    }
    for marker, (color, rates) in at_edge.items():
        ax.plot(
            rates, [at] * len(rates), marker=marker, color=color, markersize=5 if marker == "o" else 7,
            linestyle="none", markerfacecolor="white", transform=edge, clip_on=False, zorder=5,
        )  # fmt: skip
    if not done:
        _say(ax, "every finished trial diverged" if part.diverged else "no trial is finished")


def _plain_rates(ax: "Axes") -> None:
    """Numbers instead of powers of ten, as few as fit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.xaxis.set_major_locator(LogLocator(numticks=6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _set_figure_axis(ax: "Axes", span: Span | None) -> None:
    """The axis of the metric."""
    if span is None:
        return
    if span.log:
        ax.set_yscale("log")
        ax.set_ylim(span.low / 1.2, span.high * 1.2)
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
        return
    pad = 0.08 * (span.high - span.low or abs(span.high) or 1.0)
    ax.set_ylim(span.low - pad, span.high + pad)


def _panels(framed: Frame, n: int) -> list["Axes"]:
    """The first ``n`` panels; those that are left over are taken out."""
    every = [ax for row in framed.axes for ax in row]
    for ax in every[n:]:
        ax.remove()
    return every[:n]


def _say(ax: "Axes", text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="#777", fontsize=9)
