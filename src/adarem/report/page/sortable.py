"""Tables of the page that a click on a heading sorts: plain data, written out by templates/parts.html.j2."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

SHORT = 20  # characters: a text up to this length stays on one line
LONG = 30  # characters: a longer text keeps a width at which it is readable on a phone


@dataclass(frozen=True)
class Column:
    heading: str
    numeric: bool

    @property
    def css_class(self) -> str:
        return "num" if self.numeric else ""


@dataclass(frozen=True)
class PageCell:
    text: str
    css_class: str = ""
    sort_value: str = ""  # what the cell is sorted by; empty: its text


@dataclass(frozen=True)
class SortableTable:
    columns: Sequence[Column]
    rows: Sequence[Sequence[PageCell]]


def sortable(
    headings: Sequence[str], rows: Iterable[Sequence[str | PageCell]], numeric: Collection[int] = ()
) -> SortableTable:
    """The table of these texts. Columns in ``numeric`` are aligned to the right and sorted by their first number.

    A cell that needs a class of its own (bold, a status's colour) is a ``PageCell``; its class stays.
    """
    columns = [Column(heading, i in numeric) for i, heading in enumerate(headings)]
    cells = [
        [
            _cell(cell if isinstance(cell, PageCell) else PageCell(cell), column)
            for cell, column in zip(row, columns, strict=True)
        ]
        for row in rows
    ]
    return SortableTable(columns, cells)


def _cell(cell: PageCell, column: Column) -> PageCell:
    if column.numeric:
        number = re.search(r"[-−+]?[\d,]*\.?\d+", cell.text)
        value = number[0].replace("−", "-").replace(",", "") if number else ""
        return PageCell(cell.text, f"num {cell.css_class}".strip(), value)
    width = "short" if len(cell.text) <= SHORT else "long" if len(cell.text) > LONG else ""
    return PageCell(cell.text, f"{cell.css_class} {width}".strip())
