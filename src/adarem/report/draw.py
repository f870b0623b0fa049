"""How a figure of the report looks: one row a network, one line an optimizer, a stamp on rehearsals."""

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adarem.report.cells import Table
from adarem.report.collect import Run

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

Points = np.ndarray  # (n, 2): x, y
Panel = tuple[str, str, Callable[[Run], Points], float | None]  # y label, x label, points of a run, largest y

# Inches, so that the head, the foot and a row keep their size whatever the number of rows.
WIDTH, HEAD, ROW = 9.0, 0.62, 2.9


def _line(
    ax: "Axes",
    runs: list[Run],
    points: Callable[[Run], Points],
    name: str,
    label: str,
    variant: int,
    style: tuple[str, str | tuple],
) -> None:
    """Mean over the finished seeds with a band of ± one sample deviation; every other seed alone and thin.

    The k-th recorded epochs of the seeds are averaged. × stands where a run diverged. ``variant`` counts the settings
    off the grid's own; from the second on they have a marker of their own.
    """
    color, dashes = style
    ours = name.startswith("adarem")
    finished = [p for r in runs if r.status == "done" and len(p := points(r))]
    look = {"color": color, "linestyle": dashes, "zorder": 3 + ours}
    if finished:
        many = f" (n={len(finished)})" if len(finished) > 1 else ""
        length = min(len(c) for c in finished)
        stack = np.stack([c[:length] for c in finished])
        x, y = stack.mean(axis=0).T
        marker = VARIANT_MARKERS[variant % len(VARIANT_MARKERS)] or MARKERS.get(name, "" if length > 1 else ".")
        marks = {"marker": marker, "markersize": 4, "markevery": max(1, length // 8)}
        ax.plot(x, y, linewidth=1.9 if ours else 1.4, label=label + many, **look, **marks)
        if len(finished) > 1:
            spread = stack[:, :, 1].std(axis=0, ddof=1)
            ax.fill_between(x, y - spread, y + spread, color=color, alpha=0.18, linewidth=0)
    for r in runs:
        if r.status != "done" and len(p := points(r)):
            x, y = p.T
            ax.plot(x, y, linewidth=0.9, label=None if finished else f"{label} ({r.state})", **look)
            if r.status == "diverged":
                ax.plot(x[-1:], y[-1:], color=color, marker="x", markersize=8, linestyle="none", zorder=6)


def _zoom(ax: "Axes", below: float | None = None) -> None:
    """Cuts the peak of the first twentieth of a long training, so that its end, which the claims are about, shows.

    A spike before a divergence is cut where it would press all else flat.
    """
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines() if len(line.get_ydata()) > 1]
    if not lines:
        return
    low = min(float(y.min()) for y in lines)
    late = np.concatenate([y[len(y) // 20 :] for y in lines])
    usual = float(np.quantile(late, 0.9))
    high = min(float(late.max()), usual + 3.0 * (usual - low) + 1e-9)
    pad = 0.06 * max(high - low, 1e-9)
    ax.set_ylim(max(0.0, low - pad), high + pad if below is None else min(high + pad, below))


def by_cell(table: Table) -> dict[tuple[str, str, str], list[Run]]:
    """Runs by (model, optimizer, variant)."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for r in table.campaign.runs:
        groups.setdefault((r.config.model.name, r.config.optimizer.name, r.variant), []).append(r)
    return groups


def curves(table: Table, panels: list[Panel], title: str) -> "Figure":
    """One row of panels a network."""
    models = list(dict.fromkeys(row[0] for row in table.rows))
    variants = list(dict.fromkeys(row[1] for row in table.rows))
    fig, axes = frame(table, len(models), len(panels), title)
    runs = by_cell(table)
    # Where a grid varies settings of one optimizer, they and not the optimizer are told apart by colour.
    alone = len(table.columns) == 1 and len(variants) > 1
    palette = list(STYLES.values())
    for i, model in enumerate(models):
        for j, (y_label, x_label, points, below) in enumerate(panels):
            ax = axes[i][j]
            for name in table.columns:
                for k, variant in enumerate(variants):
                    label = table.labels.cell(name, variant if len(variants) > 1 else "")
                    label = (table.labels.variant(variant) or label) if alone else label
                    style = palette[k % len(palette)] if alone else STYLES.get(name, ("#666666", "-"))
                    label = textwrap.shorten(label, LONGEST_LABEL, placeholder=" …")
                    _line(ax, runs.get((model, name, variant), []), points, name, label, k, style)
            _zoom(ax, below)
            if x_label == "Epoch":
                ax.xaxis.get_major_locator().set_params(integer=True)
            # With y given, matplotlib does not measure everything to find a place for the title.
            ax.set_title(f"{table.labels.model(model)}: {y_label.split(' (')[0]}", fontsize=10, y=1.0)
            ax.set_ylabel(y_label, fontsize=9)
            if i == len(models) - 1:
                ax.set_xlabel(x_label, fontsize=9)
            if not ax.get_lines():
                ax.text(0.5, 0.5, "no epoch finished", ha="center", va="center", transform=ax.transAxes, color="#777")
    _legend(table, fig, axes)
    return fig


def frame(table: Table, rows: int, columns: int, title: str, between: float = 0.22) -> tuple["Figure", np.ndarray]:
    """An empty figure of (rows, columns) axes with its title and, on a rehearsal, the stamp.

    ``between``: panels in a row stand apart by this share of their width.
    """
    from matplotlib.figure import Figure

    rehearsal = table.campaign.rehearsal
    variants = {row[1] for row in table.rows} or {""}
    several = len(variants) > 1
    if not several and (only := next(iter(variants))):
        title = textwrap.shorten(f"{title} ({table.labels.variant(only)})", LONGEST_TITLE, placeholder=" …)")
    entries = len({(r.config.optimizer.name, r.variant) for r in table.campaign.runs})
    head = HEAD + 0.2 * (max(1, math.ceil(entries / (WIDE_LEGEND if several else LEGEND))) - 1)
    foot = 0.45 if rehearsal else 0.05
    height = head + foot + ROW * rows
    fig = Figure(figsize=(WIDTH, height), dpi=150)
    axes = fig.subplots(rows, columns, squeeze=False)
    fig.text(0.5, 1 - 0.1 / height, title, fontsize=11, ha="center", va="top")
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
    handles = {}
    for ax in axes.flat:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
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
