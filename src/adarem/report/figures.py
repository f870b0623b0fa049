"""The paper's curves from a campaign's metrics: one row a network, one line an optimizer."""

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

Points = np.ndarray  # (n, 2): x, y


def train_loss(run: Run) -> Points:
    return run.curve("train", "loss")


def test_error(run: Run) -> Points:
    return run.curve("val", "top1") * [1.0, -1.0] + [0.0, 100.0]


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


def _time_panels(runs: list[Run]) -> list[tuple[str, str, Callable[[Run], Points], float | None]]:
    """Test error against wall time and against device time; minutes where all of it is short."""
    longest = max((h[-1, 1] for r in runs if len(h := _hours(r))), default=0.0)
    unit, factor = ("hours", 1.0) if longest >= 2 else ("minutes", 60.0)
    device = "GPU" if any(r.config.cluster.device == "cuda" for r in runs) else "CPU rank"

    def wall(run: Run) -> Points:
        hours, error = _hours(run), test_error(run)
        at = np.searchsorted(hours[:, 0], error[:, 0])
        return np.column_stack([factor * hours[at, 1], error[:, 1]])

    def devices(run: Run) -> Points:
        return wall(run) * [_world(run), 1.0]

    return [
        ("Test error (%)", f"Wall time of training, evaluation, checkpoints ({unit})", wall, 100.0),
        ("Test error (%)", f"{device} {unit}", devices, 100.0),
    ]


def _line(ax: "Axes", runs: list[Run], points: Callable[[Run], Points], name: str, label: str) -> None:
    """Mean over the finished seeds with a band of ± one sample deviation; every other seed alone and thin.

    The k-th recorded epochs of the seeds are averaged. × stands where a run diverged.
    """
    color, style = STYLES.get(name, ("#666666", "-"))
    ours = name.startswith("adarem")
    finished = [p for r in runs if r.status == "done" and len(p := points(r))]
    look = {"color": color, "linestyle": style, "zorder": 3 + ours}
    if finished:
        many = f" (n={len(finished)})" if len(finished) > 1 else ""
        length = min(len(c) for c in finished)
        stack = np.stack([c[:length] for c in finished])
        x, y = stack.mean(axis=0).T
        marks = {"marker": MARKERS[name], "markersize": 4, "markevery": max(1, length // 8)} if ours else {}
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
    """Cuts the first epochs' peak, so that the end of training, which the claims are about, can be seen apart."""
    ends = [line.get_ydata() for line in ax.get_lines() if len(line.get_ydata()) > 1]
    if not ends:
        return
    every = np.concatenate([np.asarray(y, dtype=float) for y in ends])
    low, high = float(every.min()), float(np.quantile(every, 0.97))
    last = max(float(y[-1]) for y in ends)
    high = max(high, last)
    pad = 0.06 * max(high - low, 1e-9)
    ax.set_ylim(max(0.0, low - pad), high + pad if below is None else min(high + pad, below))


def draw(table: Table, panels: list[tuple[str, str, Callable[[Run], Points], float | None]], title: str) -> "Figure":
    """One row of panels a network; ``panels`` are (y label, x label, points of a run, largest y)."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(row[0] for row in table.rows))
    rehearsal = table.campaign.rehearsal
    # Inches, so that the head and the foot keep their size whatever the number of rows.
    head, foot, row = 0.62, 0.45 if rehearsal else 0.05, 2.9
    height = head + foot + row * len(models)
    fig = Figure(figsize=(9.0, height), dpi=150)
    axes = fig.subplots(len(models), len(panels), squeeze=False)
    variants = list(dict.fromkeys(r[1] for r in table.rows))
    for i, model in enumerate(models):
        for j, (y_label, x_label, points, below) in enumerate(panels):
            ax = axes[i][j]
            for name in table.columns:
                for variant in variants:
                    own = [
                        r
                        for r in table.campaign.runs
                        if (r.config.model.name, r.config.optimizer.name, r.variant) == (model, name, variant)
                    ]
                    label = table.labels[name] + (f" {variant}" if variant else "")
                    _line(ax, own, points, name, label)
            _zoom(ax, below)
            ax.set_title(f"{table.labels[model]}: {y_label.split(' (')[0].lower()}", fontsize=10)
            ax.set_ylabel(y_label, fontsize=9)
            if i == len(models) - 1:
                ax.set_xlabel(x_label, fontsize=9)
            ax.tick_params(labelsize=8)
            ax.grid(True, color="#DDDDDD", linewidth=0.6)
            ax.spines[["top", "right"]].set_visible(False)
            if not ax.get_lines():
                ax.text(
                    0.5, 0.5, "no epoch finished", ha="center", va="center", transform=ax.transAxes, color="#777777"
                )
            if rehearsal:
                ax.text(
                    0.5, 0.5, "REHEARSAL", transform=ax.transAxes, ha="center", va="center", rotation=20,
                    fontsize=30, color="#B00020", alpha=0.13, weight="bold", zorder=1,
                )  # fmt: skip
    handles = {}
    for ax in axes.flat:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    fig.text(0.5, 1 - 0.1 / height, title, fontsize=11, ha="center", va="top")
    if handles:
        fig.legend(
            list(handles.values()), list(handles), loc="upper center", ncols=min(6, len(handles)), fontsize=8.5,
            frameon=False, bbox_to_anchor=(0.5, 1 - 0.3 / height), columnspacing=1.2, handlelength=2.4,
        )  # fmt: skip
    if rehearsal:
        text = textwrap.fill(f"REHEARSAL, not a reproduction. {rehearsal}.", 120)
        fig.text(0.5, 0.08 / height, text, ha="center", va="bottom", fontsize=8, color="#B00020")
    # Margins by hand: tight_layout draws the whole figure once more to find them.
    fig.subplots_adjust(
        left=0.62 / 9, right=1 - 0.15 / 9, top=1 - (head + 0.3) / height, bottom=(foot + 0.5) / height,
        wspace=0.2, hspace=0.75 / (row - 0.75),
    )  # fmt: skip
    return fig


def save(fig: "Figure", stem: Path) -> list[Path]:
    """``<stem>.png`` and ``<stem>.svg``, the same bytes for the same data."""
    import matplotlib

    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")]
    with matplotlib.rc_context({"svg.hashsalt": "adarem", "svg.fonttype": "path"}):
        fig.savefig(paths[0], metadata={"Software": None})
        fig.savefig(paths[1], metadata={"Date": None, "Creator": "adarem report"})
    return paths


_CURVES = [
    ("Train loss", "Epoch", train_loss, None),
    ("Test error (%)", "Epoch", test_error, 100.0),
]


def names(table: Table) -> list[str]:
    """File names, without ending, of a table's figures."""
    return [str(table.campaign.grid.get("figure") or f"{table.name}-curves"), f"{table.name}-time"]


def write_figures(table: Table, folder: Path) -> list[Path]:
    """The paper's figure of this grid, and test error against wall time and device hours beside it."""
    name, beside = names(table)
    head = f"{name.replace('figure', 'Figure ')}. " if name.startswith("figure") else ""
    stamp = "REHEARSAL of " if table.campaign.rehearsal else ""
    data = next((r.config.data.label for r in table.campaign.runs), "")
    paths = save(draw(table, _CURVES, f"{stamp}{head}Train loss and test error on {data}"), folder / name)
    title = f"{stamp}{table.paper.source or table.name}: test error against time on {data}"
    return paths + save(draw(table, _time_panels(table.campaign.runs), title), folder / beside)
