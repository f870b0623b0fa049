"""What a search tried, one panel per optimizer: a heat map of two settings, parallel coordinates of more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from adarem.report.figures.style import ALARM, frame
from adarem.report.search.trials import Dimension, OptimizerSearch, Search, Span, Trial
from adarem.report.tables.table import Table
from adarem.run.setting import Value
from adarem.run.sweep import setting_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

COLUMNS = 2
BAR = 0.75  # inches on the right for the colour bar
GREY = "#999999"
MOST_TICKS = 9  # values along an axis of a heat map that are written out
MOST_TEXTS = 60  # cells of a heat map with their figure in them
AREAS = 120  # points in each direction, of which each has the colour of the nearest trial
CAPTION = "Colour: {}, one scale for all panels, far worse ones at its end; black: the best. "
GRID = "× diverged, ep N stopped early after N epochs, – not finished. "
POINTS = (
    "Each point is a trial, and each place has the colour of the nearest one; × diverged, ○ stopped early, dot: not "
    "finished. "
)
PARALLEL = (
    "Each line is a trial, across its settings to its figure; red and dashed: diverged; grey: stopped early; dotted: "
    "not finished. "
)


@dataclass(frozen=True)
class _Colors:
    """The colours of the figures of one network."""

    norm: "Normalize"
    map: "Colormap"
    lower_is_better: bool

    def of(self, trial: Trial) -> tuple[float, float, float, float]:
        """Of a trial that has a figure."""
        red, green, blue, alpha = self.map(self._share(trial))
        return float(red), float(green), float(blue), float(alpha)

    def height(self, trial: Trial) -> float:
        """From 0, the worst, to 1."""
        return 1.0 - self._share(trial) if self.lower_is_better else self._share(trial)

    def _share(self, trial: Trial) -> float:
        return float(self.norm(np.array(math.nan if trial.figure is None else trial.figure)))


def draw_settings(table: Table, search: Search, model: str, title: str) -> "Figure":
    """What was tried with one network."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm, Normalize

    parts = search.of(model)
    lower = search.metric.lower_is_better
    span = search.span(model) or Span(0.0, 1.0, False)
    norm = (LogNorm if span.log else Normalize)(span.low, span.high, clip=True)
    # Yellow is good; for colour-blind readers, too.
    colors = _Colors(norm, colormaps["cividis_r" if lower else "cividis"], lower)
    kinds = {min(len(part.dimensions), 3) for part in parts}
    two = (GRID if not search.drawn else POINTS) if 2 in kinds else ""
    several = PARALLEL if 3 in kinds else ""
    caption = (CAPTION.format(search.metric.label) + two + several).strip()
    framed = frame(table, -(-len(parts) // COLUMNS), COLUMNS, title, 0.3, caption, entries=[])
    figure = framed.figure
    width = figure.get_figwidth()
    figure.subplots_adjust(right=1 - (0.15 + BAR) / width)
    every = [ax for row in framed.axes for ax in row]
    for ax in every[len(parts) :]:
        ax.remove()
    for ax, part in zip(every, parts, strict=False):
        ax.set_title(f"{table.labels.optimizer(part.optimizer)}, {part.counts_text}", fontsize=10, y=1.0)
        if len(part.dimensions) > 2:
            _parallel(ax, part, colors, span)
        elif len(part.dimensions) == 2 and search.drawn:
            _points(ax, part, colors)
        elif len(part.dimensions) == 2:
            _cells(ax, part, colors)
        else:
            _single(ax, part, search, colors)
    if search.span(model) is not None:
        box = every[0].get_position()
        bar = figure.add_axes((1 - (BAR - 0.05) / width, box.y0, 0.13 / width, box.height))
        figure.colorbar(ScalarMappable(norm, colors.map), cax=bar)
        bar.tick_params(labelsize=8)
        if isinstance(norm, LogNorm):
            bar.yaxis.set_major_formatter("{x:g}")
    return figure


def _points(ax: "Axes", part: OptimizerSearch, colors: _Colors) -> None:
    """Drawn trials of two settings."""
    x, y = part.dimensions
    done = [t for t in part.trials if t.figure is not None]
    ax.grid(False)
    places = np.array([(x.place(t.value(x.key)), y.place(t.value(y.key))) for t in done])
    if done:
        side = (np.arange(AREAS) + 0.5) / AREAS
        px, py = np.meshgrid(side, side)
        nearest = np.argmin((px[..., None] - places[:, 0]) ** 2 + (py[..., None] - places[:, 1]) ** 2, axis=-1)
        image = np.array([t.figure for t in done], dtype=float)[nearest]
        ax.imshow(
            image, origin="lower", extent=(0, 1, 0, 1), aspect="auto", cmap=colors.map, norm=colors.norm, alpha=0.45,
            interpolation="nearest", zorder=0,
        )  # fmt: skip
        for place, t in zip(places, done, strict=True):
            ax.plot(
                *place, marker="o", color=colors.of(t), markersize=7.5, markeredgecolor="white", markeredgewidth=0.9,
                zorder=3,
            )  # fmt: skip
        ax.plot(
            *places[0], marker="o", markersize=12, markerfacecolor="none", markeredgecolor="black", markeredgewidth=2.2,
            zorder=5,
        )  # fmt: skip
    for state, marker, color, size in (
        ("diverged", "x", ALARM, 8), ("stopped", "o", GREY, 5), ("unfinished", ".", "#555555", 5),
    ):  # fmt: skip
        own = [t for t in part.trials if t.state == state]
        ax.plot(
            [x.place(t.value(x.key)) for t in own], [y.place(t.value(y.key)) for t in own], marker=marker, color=color,
            markersize=size, markeredgewidth=2, markerfacecolor="white", linestyle="none", zorder=4,
        )  # fmt: skip
    ax.set_xlim(-0.04, 1.04)
    ax.set_ylim(-0.05, 1.05)
    _name(ax, x, y)
    _ticks(ax, x, "x")
    _ticks(ax, y, "y")


def _cells(ax: "Axes", part: OptimizerSearch, colors: _Colors) -> None:
    """All combinations of the values of two settings."""
    from matplotlib.patches import Rectangle

    x, y = part.dimensions
    by_place = {(t.value(x.key), t.value(y.key)): t for t in reversed(part.trials)}  # the best of equal places counts
    image = np.full((len(y.values), len(x.values)), np.nan)
    with_texts = image.size <= MOST_TEXTS
    size = 8 if max(image.shape[1], 1) <= 5 else 6.5
    for (at_x, at_y), trial in by_place.items():
        i, j = y.values.index(at_y), x.values.index(at_x)
        text, color = "–", "#555555"
        if trial.figure is not None:
            image[i, j] = trial.figure
            text, color = _figure_text(trial.figure), _ink(colors, trial)
        elif trial.state == "stopped":
            text = f"ep {trial.epochs}"
        elif trial.state == "diverged":
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="#F6D9DD", edgecolor="none", zorder=1))
            text, color = "×", ALARM
        if with_texts or trial.figure is None:
            ax.text(j, i, text, ha="center", va="center", fontsize=size, color=color, zorder=4)
        if trial is part.best:
            ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor="black", lw=2.5, zorder=5))
    ax.grid(False)
    ax.imshow(image, origin="lower", aspect="auto", cmap=colors.map, norm=colors.norm, zorder=2)
    _name(ax, x, y)
    for axis, d in ((ax.xaxis, x), (ax.yaxis, y)):
        every = -(-len(d.values) // MOST_TICKS)
        axis.set_ticks(range(len(d.values))[::every], [_short(v) for v in d.values[::every]])
        axis.set_tick_params(labelsize=8 if len(d.values) <= 5 else 6.5)


def _ink(colors: _Colors, trial: Trial) -> str:
    """Black or white, whichever is readable on the figure's colour."""
    red, green, blue, _ = colors.of(trial)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.45 else "white"


def _parallel(ax: "Axes", part: OptimizerSearch, colors: _Colors, span: Span) -> None:
    """One axis for each setting, and one for the figure on the right, the better the higher."""
    dimensions, last = part.dimensions, len(part.dimensions)
    worst, best = (span.high, span.low) if part.metric.lower_is_better else (span.low, span.high)

    for rank, trial in enumerate(reversed(part.trials)):  # the better above the worse
        at = [d.place(trial.value(d.key)) for d in dimensions]
        if trial.figure is not None:
            xs, ys = range(last + 1), [*at, colors.height(trial)]
            if trial is part.best:
                ax.plot(xs, ys, color="black", linewidth=4.6, zorder=90, solid_capstyle="round")
            width = 2.4 if trial is part.best else 1.3
            color = colors.of(trial)
            ax.plot(xs, ys, color=color, linewidth=width, zorder=10 + rank if trial is not part.best else 91)
        elif trial.state == "diverged":
            ax.plot(range(last + 1), [*at, -0.12], color=ALARM, linewidth=0.9, linestyle=(0, (4, 2)), zorder=5)
            ax.plot(last, -0.12, color=ALARM, marker="x", markersize=7, markeredgewidth=1.8, zorder=100)
        else:
            dashes = "-" if trial.state == "stopped" else ":"
            ax.plot(range(last), at, color=GREY, linewidth=0.9, linestyle=dashes, zorder=4)
    for i, d in enumerate(dimensions):
        _axis_texts(ax, i, [(d.place(v), _short(v)) for v in _marks(d)])
    ends = [(0.0, worst), (1.0, best)] if worst != best else [(float(colors.lower_is_better), best)]
    _axis_texts(ax, last, [(place, _figure_text(value)) for place, value in ends], right=True)
    if part.diverged:
        ax.text(last + 0.06, -0.12, "div.", fontsize=7.5, va="center", color=ALARM)
    ax.grid(False)
    ax.set_xlim(-0.45, last + 0.45)
    ax.set_ylim(-0.2, 1.08)
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.set_xticks(
        range(last + 1),
        [*(d.label.replace(" ", "\n") for d in dimensions), part.metric.label.replace(" ", "\n")],
        fontsize=8,
    )
    ax.tick_params(axis="x", length=0)


def _axis_texts(ax: "Axes", x: int, marks: Sequence[tuple[float, str]], *, right: bool = False) -> None:
    """A vertical axis at ``x`` with its marks next to it, above all lines."""
    ax.plot([x, x], [0, 1], color="#444444", linewidth=1.0, zorder=95)
    for place, text in marks:
        ax.plot([x - 0.03, x + 0.03], [place, place], color="#444444", linewidth=0.8, zorder=95)
        ax.text(
            x + (0.06 if right else -0.06), place, text, fontsize=7.5, ha="left" if right else "right", va="center",
            zorder=97, bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def _single(ax: "Axes", part: OptimizerSearch, search: Search, colors: _Colors) -> None:
    """One setting, or none: the figure against it."""
    if not part.dimensions:
        text = f"one trial: {part.settings_text(part.trials[0])}\n{part.trials[0].text}"
        ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, fontsize=9, wrap=True)
        ax.set_axis_off()
        return
    d = part.dimensions[0]
    done = [t for t in part.trials if t.figure is not None]
    for t in done:
        is_best = t is part.best
        ax.plot(
            d.place(t.value(d.key)), t.figure or 0.0, marker="o", color=colors.of(t), markersize=7 + 2 * is_best,
            markeredgecolor="black" if is_best else GREY, markeredgewidth=2.2 if is_best else 0.8, zorder=3 + is_best,
        )  # fmt: skip
    if not done:
        ax.set_yticks([])
    diverged = [d.place(t.value(d.key)) for t in part.trials if t.state == "diverged"]
    at = 0.97 if part.metric.lower_is_better else 0.03
    ax.plot(
        diverged, [at] * len(diverged), marker="x", color=ALARM, markersize=8, markeredgewidth=2, linestyle="none",
        transform=ax.get_xaxis_transform(), zorder=4,
    )  # fmt: skip
    ax.set_xlim(-0.05, 1.05)
    ax.set_xlabel(d.label, fontsize=9)
    ax.set_ylabel(search.metric.label, fontsize=9)
    _ticks(ax, d, "x")


def _name(ax: "Axes", x: Dimension, y: Dimension) -> None:
    ax.set_xlabel(x.label, fontsize=9)
    ax.set_ylabel(y.label, fontsize=9)


def _ticks(ax: "Axes", d: Dimension, axis: str) -> None:
    marks = _marks(d)
    texts = [_short(v) for v in marks]
    (ax.xaxis if axis == "x" else ax.yaxis).set_ticks([d.place(v) for v in marks], texts)


def _marks(d: Dimension) -> Sequence[Value]:
    """The values at which an axis has a text: all of a category, the ends of a range, decades or a middle between."""
    if d.scale == "category":
        return d.values
    if d.scale == "linear":
        return [d.low, (d.low + d.high) / 2, d.high]
    decades = 10.0 ** np.arange(np.ceil(np.log10(d.low) - 1e-9), np.floor(np.log10(d.high) + 1e-9) + 1)
    between = [float(v) for v in decades if 0.12 <= d.place(float(v)) <= 0.88]
    return [d.low, *between[:: max(1, len(between) // 3)], d.high]


def _figure_text(figure: float) -> str:
    return f"{figure:.2f}" if abs(figure) < 1000 else f"{figure:.4g}"


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else setting_text(value)
