"""How a figure of the report looks: one row a network, one line an optimizer, a stamp on rehearsals."""

import functools
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from adarem.report.load import Run
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by the colour-blind; the line style tells them apart in black and white.
STYLES: dict[str, tuple[str, str | tuple]] = {
    "sgdm": ("#000000", "-"),
    "adam": ("#E69F00", "--"),
    "adamw": ("#56B4E9", "-."),
    "adabound": ("#009E73", (0, (5, 1, 1, 1, 1, 1))),
    "rmsprop": ("#CC79A7", ":"),
    "adarem": ("#D55E00", "-"),
    "adarem_s": ("#0072B2", "-"),
    "sgd": ("#7F7F7F", "--"),
}

MARKERS = {"adarem": "o", "adarem_s": "s"}
VARIANT_MARKERS = ("", "^", "v", "D", "P", "*")
LONGEST_LABEL, LONGEST_TITLE = 40, 100  # letters
LEGEND, WIDE_LEGEND = 6, 3  # entries in a line; where settings off the grid's own are named too

Points = np.ndarray  # (n, 3): x, NaN where it is unknown, y, and the epoch that both are of


class Panel(NamedTuple):
    """What stands at a panel's axes, and what it shows of a run."""

    y_label: str
    x_label: str
    points: Callable[[Run], Points]
    largest: float | None = None  # y that the axis does not go beyond
    log: bool = False
    span: str = ""  # the part of training that it shows, where that is not the whole

    @property
    def title(self) -> str:
        what = self.y_label.split(" (")[0]
        return f"{what}, {self.span}" if self.span else what


# Inches, so that the head, the foot and a row keep their size whatever the number of rows.
WIDTH, HEAD, ROW, CAPTION = 9.0, 0.62, 2.9, 0.17
SPIKE = 3.0  # times the first value: what lies above, before a divergence, would press all else flat
FAR = 2.0  # times the largest of all others: a line above that leaves a panel that shows differences


def _placed(panel: Panel, run: Run) -> Points:
    """What a panel shows of a run; without the epochs whose place on its x axis is unknown, as after a lost record."""
    points = panel.points(run)
    return points[np.isfinite(points[:, 0])]


def mean_curve(curves: Sequence[Points]) -> np.ndarray:
    """(n, 4), for the epochs that all curves have: mean x, mean y, deviation of y (0 of one curve), epoch."""
    shared = functools.reduce(np.intersect1d, [c[:, -1] for c in curves])
    stack = np.stack([c[np.isin(c[:, -1], shared)] for c in curves])
    x, y, _ = stack.mean(axis=0).T
    spread = stack[:, :, 1].std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(shared))
    return np.column_stack([x, y, spread, shared])


def with_gaps(points: np.ndarray) -> np.ndarray:
    """A row of NaN wherever an epoch is missing between two, so that no line leads across. The epoch stands last."""
    steps = np.diff(points[:, -1])
    if not len(steps):
        return points
    return np.insert(points, 1 + np.flatnonzero(steps >= 2 * np.median(steps)), np.nan, axis=0)


def _plot(ax: "Axes", x: np.ndarray, y: np.ndarray, **look: Any) -> None:
    """A line, and a dot for each point that has no neighbour to be joined with."""
    ax.plot(x, y, **look)
    there = np.pad(np.isfinite(y), 1)
    if (lone := there[1:-1] & ~there[:-2] & ~there[2:]).any():
        ax.plot(x[lone], y[lone], color=look["color"], marker=".", linestyle="none", zorder=look["zorder"])


def _line(
    ax: "Axes", runs: list[Run], panel: Panel, name: str, label: str, variant: int, style: tuple[str, str | tuple]
) -> np.ndarray:
    """Mean over the finished seeds with a band of ± one sample deviation; every other seed alone and thin.

    × stands where a run diverged. ``variant`` counts the settings off the grid's own; from the second on they have a
    marker of their own. Returns every y that should be in view.
    """
    color, dashes = style
    ours = name.startswith("adarem")
    finished = [p for r in runs if r.status == "done" and len(p := _placed(panel, r))]
    look = {"color": color, "linestyle": dashes, "zorder": 3 + ours}
    in_view = [np.empty(0)]
    if finished:
        many = f" (n={len(finished)})" if len(finished) > 1 else ""
        mean = mean_curve(finished)
        x, y, spread, _ = with_gaps(mean).T
        marker = VARIANT_MARKERS[variant % len(VARIANT_MARKERS)] or MARKERS.get(name, "")
        marks = {"marker": marker, "markersize": 4, "markevery": max(1, len(mean) // 8)}
        _plot(ax, x, y, linewidth=1.9 if ours else 1.4, label=label + many, **look, **marks)
        if many:
            ax.fill_between(x, y - spread, y + spread, color=color, alpha=0.18, linewidth=0)
        _, y, spread, _ = mean.T
        in_view += [np.maximum(y - spread, y / 2) if panel.log else y - spread, y + spread]
    for r in runs:
        if r.status != "done" and len(p := _placed(panel, r)):
            x, y, _ = with_gaps(p).T
            _plot(ax, x, y, linewidth=0.9, label=None if finished else f"{label} ({r.state})", **look)
            if r.status == "diverged":
                ax.plot(x[-1:], y[-1:], color=color, marker="x", markersize=8, linestyle="none", zorder=6)
                p = p[p[:, 1] <= SPIKE * p[0, 1]]
            in_view.append(p[:, 1])
    return np.concatenate(in_view)


def _above(in_view: dict[str, np.ndarray]) -> list[str]:
    """Lines that lie wholly above ``FAR`` times the largest value of all others, of which there are two or more."""
    order = sorted((k for k, y in in_view.items() if len(y)), key=lambda k: in_view[k].min())
    for i in range(2, len(order)):
        if in_view[order[i]].min() > FAR * max(in_view[k].max() for k in order[:i]):
            return order[i:]
    return []


def _scale(ax: "Axes", panel: Panel, in_view: dict[str, np.ndarray]) -> None:
    """The y axis: all that is drawn but spikes, or in a part of training all but lines far above, which are named."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    if panel.span and (above := _above(in_view)):
        told = ", ".join(f"{k} ({in_view[k].min():.3g})" for k in above)
        ax.text(0.98, 0.97, f"above: {told}", ha="right", va="top", fontsize=7, transform=ax.transAxes)
        in_view = {k: y for k, y in in_view.items() if k not in above}
    y = np.concatenate([np.empty(0), *in_view.values()])
    y = y[y > 0] if panel.log else y
    if not len(y):
        return
    low, high = y.min().item(), y.max().item()
    if panel.log:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.1, high * 1.1)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)) if high > 6 * low else MaxNLocator(6))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter("{x:g}")
        return
    pad = 0.06 * (high - low or abs(high) or 1.0)
    ax.set_ylim(low - pad if low < 0 else max(0.0, low - pad), min(high + pad, panel.largest or math.inf))


def by_cell(table: Table) -> dict[tuple[str, str, str], list[Run]]:
    """Runs by (model, optimizer, variant)."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for r in table.sweep.runs:
        groups.setdefault((r.config.model.name, r.config.optimizer.name, r.overrides), []).append(r)
    return groups


def networks(table: Table) -> list[str]:
    """The table's networks, in its order."""
    return list(dict.fromkeys(row[0] for row in table.rows))


def curves(
    table: Table, panels: Sequence[Panel], title: str, models: Sequence[str] | None = None, caption: str = ""
) -> "Figure":
    """One row of panels a network, of ``models`` or of all that the table has; the first panel of a row names it."""
    models = networks(table) if models is None else models
    variants = list(dict.fromkeys(row[1] for row in table.rows))
    fig, axes = frame(table, len(models), len(panels), title, 0.22 if len(panels) < 3 else 0.3, caption)
    runs = by_cell(table)
    # Where a grid varies settings of one optimizer, they and not the optimizer are told apart by colour.
    alone = len(table.columns) == 1 and len(variants) > 1
    palette = list(STYLES.values())
    for i, model in enumerate(models):
        for j, panel in enumerate(panels):
            ax, in_view = axes[i][j], {}
            for name in table.columns:
                for k, variant in enumerate(variants):
                    label = table.labels.cell(name, variant if len(variants) > 1 else "")
                    label = (table.labels.overrides(variant) or label) if alone else label
                    style = palette[k % len(palette)] if alone else STYLES.get(name, ("#666666", "-"))
                    label = textwrap.shorten(label, LONGEST_LABEL, placeholder=" …")
                    in_view[label] = _line(ax, runs.get((model, name, variant), []), panel, name, label, k, style)
            _scale(ax, panel, in_view)
            if panel.x_label == "Epoch":
                ax.xaxis.get_major_locator().set_params(integer=True)
            # With y given, matplotlib does not measure everything to find a place for the title.
            head = f"{table.labels.model(model)}: {panel.title}" if j == 0 else panel.title
            ax.set_title(head, fontsize=10 if len(panels) < 3 else 9, y=1.0)
            ax.set_ylabel(panel.y_label, fontsize=9)
            if i == len(models) - 1:
                ax.set_xlabel(panel.x_label, fontsize=9)
            if not ax.get_lines():
                text = "not reached yet" if panel.span else "no epoch finished"
                ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="#777")
    _legend(table, fig, axes)
    return fig


def frame(
    table: Table, rows: int, columns: int, title: str, between: float = 0.22, caption: str = ""
) -> tuple["Figure", np.ndarray]:
    """An empty figure of (rows, columns) axes with its title, a caption below and, on a rehearsal, the stamp.

    ``between``: panels in a row stand apart by this share of their width.
    """
    from matplotlib.figure import Figure

    rehearsal = table.sweep.rehearsal
    variants = {row[1] for row in table.rows} or {""}
    several = len(variants) > 1
    if not several and (only := next(iter(variants))):
        title = textwrap.shorten(f"{title} ({table.labels.overrides(only)})", LONGEST_TITLE, placeholder=" …)")
    entries = len({(r.config.optimizer.name, r.overrides) for r in table.sweep.runs})
    head = HEAD + 0.2 * (max(1, math.ceil(entries / (WIDE_LEGEND if several else LEGEND))) - 1)
    told = textwrap.wrap(caption, 125)
    stamped = 0.45 if rehearsal else 0.05
    foot = stamped + CAPTION * len(told)
    height = head + foot + ROW * rows
    fig = Figure(figsize=(WIDTH, height), dpi=150)
    axes = fig.subplots(rows, columns, squeeze=False)
    fig.text(0.5, 1 - 0.1 / height, title, fontsize=11, ha="center", va="top")
    fig.text(0.5, (stamped + 0.05) / height, "\n".join(told), fontsize=8, ha="center", va="bottom", color="#444")
    # Margins by hand: tight_layout draws the whole figure once more to find them.
    fig.subplots_adjust(
        left=0.8 / WIDTH, right=1 - 0.15 / WIDTH, top=1 - (head + 0.3) / height, bottom=(foot + 0.5) / height,
        wspace=between, hspace=0.85 / (ROW - 0.85),
    )  # fmt: skip
    for ax in axes.flat:
        ax.tick_params(labelsize=8)
        ax.grid(True, color="#DDDDDD", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        if rehearsal:
            ax.text(
                0.5, 0.5, "REHEARSAL", transform=ax.transAxes, ha="center", va="center", rotation=20,
                fontsize=60 / max(2, columns), color="#B00020", alpha=0.13, weight="bold", zorder=1,
            )  # fmt: skip
    if rehearsal:
        text = textwrap.fill(f"REHEARSAL, not a reproduction. {rehearsal}.", 120)
        fig.text(0.5, 0.08 / height, text, ha="center", va="bottom", fontsize=8, color="#B00020")
    return fig, axes


def _legend(table: Table, fig: "Figure", axes: np.ndarray) -> None:
    """One entry a line; where panels show unlike numbers of its seeds, from the fewest to the most."""
    lines: dict[str, tuple[Any, set[int]]] = {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            plain, _, n = label.removesuffix(")").partition(" (n=")
            lines.setdefault(plain if n else label, (handle, set()))[1].add(int(n or 1))
    handles = {}
    for label, (handle, ns) in lines.items():
        n = f"{min(ns)} to {max(ns)}" if len(ns) > 1 else max(ns)
        handles[label if ns == {1} else f"{label} (n={n})"] = handle
    columns = WIDE_LEGEND if len({row[1] for row in table.rows}) > 1 else LEGEND
    if handles:
        fig.legend(
            list(handles.values()), list(handles), loc="upper center", ncols=min(columns, len(handles)), fontsize=8.5,
            frameon=False, bbox_to_anchor=(0.5, 1 - 0.3 / fig.get_figheight()), columnspacing=1.2, handlelength=2.4,
        )  # fmt: skip


def save(fig: "Figure", stem: Path) -> list[Path]:
    """``<stem>.png`` and ``<stem>.svg``, the same bytes for the same data."""
    import matplotlib

    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")]
    with matplotlib.rc_context({"svg.hashsalt": "adarem", "svg.fonttype": "path"}):
        fig.savefig(paths[0], metadata={"Software": None})
        fig.savefig(paths[1], metadata={"Date": None, "Creator": "adarem report"})
    return paths
