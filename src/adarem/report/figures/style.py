"""What all figures share: the look of a curve, the frame with title, caption, legend and stamp, and the files."""

import contextlib
import math
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.report.tables.table import Table
from adarem.run.catalog import OPTIMIZERS, LineStyle

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_TITLE = 100  # characters
LEGEND, WIDE_LEGEND = 6, 3  # entries per line; the latter where overrides are named too
ALARM = "#B00020"

# Inches, so that head, foot and rows keep their size whatever the number of rows.
WIDTH, HEAD, ROW, CAPTION = 9.0, 0.62, 2.9, 0.17
# Of a legend's entry: its line with the space around it, and a character on average, as drawn at 8.5 points.
HANDLE, CHARACTER = 0.52, 0.068


@dataclass(frozen=True)
class CurveStyle:
    """The look of a curve; ``emphasised`` for the optimizers that the table is about."""

    color: str
    line: LineStyle
    marker: str = ""
    emphasised: bool = False


# For optimizers that the catalog does not know: Paul Tol's palettes "muted" and "dark", which colour-blind readers can
# tell apart and of which none is the catalog's. Lines and markers differ, too, for print in black and white.
_COLORS = (
    "#882255", "#44AA99", "#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE", "#999933", "#AA4499", "#663333",
    "#225555", "#666633", "#222255", "#225522",
)  # fmt: skip
_LINES: tuple[LineStyle, ...] = ((0, (7, 2)), "-", (0, (3, 2)), (0, (6, 2, 1, 2)), (0, (1, 2)))
_MARKERS = ("^", "D", "v", "P", "X", "<", "h", ">", "p", "*", "d", "8", "H", "1")


def of_optimizer(name: str, among: Sequence[str] = ()) -> CurveStyle:
    """By the catalog; of an optimizer that it does not know, by its place ``among`` those of the table."""
    if name not in OPTIMIZERS:
        unknown = [other for other in among if other not in OPTIMIZERS]
        i = unknown.index(name) if name in unknown else 0
        turn, place = divmod(i, len(_COLORS))
        return CurveStyle(_COLORS[place], _LINES[i % len(_LINES)], _MARKERS[(place + turn) % len(_MARKERS)])
    known = OPTIMIZERS[name]
    return CurveStyle(known.color, known.line, known.marker)


def palette() -> list[CurveStyle]:
    """Styles for the curves of one optimizer with different overrides: grey, which is SGD's, last."""
    return [of_optimizer(name) for name in sorted(OPTIMIZERS, key=lambda name: name == "sgd")]


@dataclass(frozen=True)
class Frame:
    """An empty figure with rows of axes."""

    figure: "Figure"
    axes: list[list["Axes"]]


def frame(
    table: Table,
    rows: int,
    columns: int,
    title: str,
    gap: float = 0.22,
    caption: str = "",
    entries: Sequence[str] | None = None,
    row: float = ROW,
) -> Frame:
    """An empty figure with its title, a caption at the bottom and, on a rehearsal, the stamp.

    Args:
        gap: between the panels of a row, as a share of their width.
        entries: labels of the legend; None: those of curves once all runs are finished.
        row: its height in inches.
    """
    from matplotlib.figure import Figure

    rehearsal = table.sweep.rehearsal
    overrides = all_overrides(table)
    if len(overrides) == 1 and overrides[0]:
        title = textwrap.shorten(f"{title} ({table.labels.overrides(overrides[0])})", LONGEST_TITLE, placeholder=" …)")
    entries = _expected_entries(table) if entries is None else entries
    head = HEAD + 0.2 * (max(1, math.ceil(len(entries) / _entries_per_line(table, entries))) - 1)
    caption_lines = textwrap.wrap(caption, 125)
    stamp_height = 0.45 if rehearsal else 0.05
    foot = stamp_height + CAPTION * len(caption_lines)
    height = head + foot + row * rows
    figure = Figure(figsize=(WIDTH, height), dpi=150)
    axes: list[list[Axes]] = figure.subplots(rows, columns, squeeze=False).tolist()
    figure.text(0.5, 1 - 0.1 / height, title, fontsize=11, ha="center", va="top")
    caption_bottom = (stamp_height + 0.05) / height
    figure.text(0.5, caption_bottom, "\n".join(caption_lines), fontsize=8, ha="center", va="bottom", color="#444")
    # Margins by hand: tight_layout draws the whole figure once more to find them.
    figure.subplots_adjust(
        left=0.8 / WIDTH, right=1 - 0.15 / WIDTH, top=1 - (head + 0.3) / height, bottom=(foot + 0.5) / height,
        wspace=gap, hspace=0.85 / (row - 0.85),
    )  # fmt: skip
    for ax in (ax for row in axes for ax in row):
        ax.tick_params(labelsize=8)
        ax.grid(True, color="#DDDDDD", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        if rehearsal:
            ax.text(
                0.5, 0.5, "REHEARSAL", transform=ax.transAxes, ha="center", va="center", rotation=20,
                fontsize=60 / max(2, columns), color=ALARM, alpha=0.13, weight="bold", zorder=1,
            )  # fmt: skip
    if rehearsal:
        text = textwrap.fill(f"REHEARSAL, not a reproduction. {rehearsal}.", 120)
        figure.text(0.5, 0.08 / height, text, ha="center", va="bottom", fontsize=8, color=ALARM)
    return Frame(figure, axes)


def all_overrides(table: Table) -> list[str]:
    """The overrides of the table's rows, in its order; one empty text where there are none."""
    return list(dict.fromkeys(overrides for _, overrides, _ in table.rows)) or [""]


def _expected_entries(table: Table) -> list[str]:
    """The labels of a legend once all runs are finished."""
    many = len(all_overrides(table)) > 1
    cells = dict.fromkeys((r.config.optimizer.name, r.overrides) for r in table.sweep.runs)
    n = f" (n={len(table.sweep.spec.seeds)})" if len(table.sweep.spec.seeds) > 1 else ""
    return [table.labels.cell(name, overrides if many else "") + n for name, overrides in cells]


def _entries_per_line(table: Table, labels: Sequence[str]) -> int:
    """As many as the figure is wide enough for; each column is as wide as its longest entry."""
    most = WIDE_LEGEND if len(all_overrides(table)) > 1 else LEGEND
    for columns in range(min(most, len(labels)), 1, -1):
        longest = [max(map(len, labels[column::columns])) for column in range(columns)]
        if sum(HANDLE + CHARACTER * characters for characters in longest) <= WIDTH:
            return columns
    return 1


@dataclass
class LegendEntry:
    artist: "Artist"
    seeds: set[int]  # how many are in the mean, by panel


@dataclass
class Legend:
    """One entry per label, over all panels of a figure."""

    entries: dict[str, LegendEntry] = field(default_factory=dict)

    def add(self, label: str, artist: "Artist", seeds: int) -> None:
        self.entries.setdefault(label, LegendEntry(artist, set())).seeds.add(seeds)

    def draw(self, table: Table, figure: "Figure") -> None:
        """Below the title. Where panels have different numbers of seeds, from the fewest to the most."""
        if not self.entries:
            return
        labels = []
        for label, entry in self.entries.items():
            fewest, most = min(entry.seeds), max(entry.seeds)
            n = f"{fewest} to {most}" if fewest < most else str(most)
            labels.append(label if most == 1 else f"{label} (n={n})")
        columns = _entries_per_line(table, labels)
        in_lines = [i for column in range(columns) for i in range(column, len(labels), columns)]  # it fills columns
        artists = [entry.artist for entry in self.entries.values()]
        figure.legend(
            [artists[i] for i in in_lines], [labels[i] for i in in_lines], loc="upper center",
            ncols=columns, fontsize=8.5, frameon=False,
            bbox_to_anchor=(0.5, 1 - 0.3 / figure.get_figheight()), columnspacing=1.2, handlelength=2.4,
        )  # fmt: skip


@contextlib.contextmanager
def own_look() -> Iterator[None]:
    """Within it matplotlib has its own defaults, and none of a user's matplotlibrc, style, backend or session."""
    before = {name: os.environ.pop(name, None) for name in ("MATPLOTLIBRC", "MPLBACKEND")}
    os.environ["MATPLOTLIBRC"] = os.devnull  # a damaged one of the home would end the import
    try:
        import matplotlib
    finally:
        del os.environ["MATPLOTLIBRC"]
        os.environ.update({name: value for name, value in before.items() if value is not None})
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # it may have been imported before
        matplotlib.rcParams["text.parse_math"] = False  # a label's $ is one
        yield


def save(figure: "Figure", stem: Path) -> Sequence[Path]:
    """Writes ``<stem>.png`` and ``<stem>.svg``, the same bytes for the same data."""
    import matplotlib

    stem.parent.mkdir(parents=True, exist_ok=True)
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    with matplotlib.rc_context({"svg.hashsalt": "adarem", "svg.fonttype": "path"}):
        figure.savefig(png, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": "adarem report"})
    return [png, svg]
