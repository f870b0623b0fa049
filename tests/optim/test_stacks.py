"""docs/stacks.md: its table is what tests/support/stacks.py finds."""

import re

import pytest
import torch

from adarem import AdaRem, AdaRemS
from tests.support import ROOT, stacks
from tests.support.stacks import CLASSES, IMPLEMENTATIONS, ROWS, Cell, Row

PAGE = (ROOT / "docs" / "stacks.md").read_text()
COLUMNS = [(of, how) for of in CLASSES for how in IMPLEMENTATIONS]


def on_page() -> dict[tuple[str, str, str], Cell]:
    """Row, optimizer and implementation: what the page says."""
    notes = dict(re.findall(r"^- (\[\w\]) `(.*)`$", PAGE, re.MULTILINE))
    shown = {}
    for line in re.findall(r"^\| (.*) \|$", PAGE, re.MULTILINE)[2:]:
        name, ranks, *cells = line.split(" | ")
        assert int(ranks) == ROWS[name].ranks
        for column, text in zip(COLUMNS, cells, strict=True):
            kind, detail = text.split(" ", 1)
            shown[name, *column] = Cell(kind, notes.get(detail, detail.strip("()")))
    return shown


def compare(names: list[str]) -> None:
    page, found = on_page(), stacks.run(names)
    assert len(found) == len(names) * len(COLUMNS)
    for key, cell in found.items():
        assert cell.kind == page[key].kind, (key, cell)
        if cell.kind != "equal":  # the size of a rounding error is the machine's
            assert cell.detail == page[key].detail, key


def test_the_page_has_every_row_and_says_equal_or_refused() -> None:
    page = on_page()
    assert [name for name, *column in page if tuple(column) == COLUMNS[0]] == list(ROWS)
    assert {cell.kind for cell in page.values()} == {"equal", "refused"}


def test_the_quick_rows_are_as_the_page_says() -> None:
    compare([n for n, row in ROWS.items() if row.ranks == 1 and not row.slow])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_all_other_rows_are_as_the_page_says() -> None:
    compare([n for n, row in ROWS.items() if row.ranks > 1 or row.slow])


def test_a_difference_an_error_and_a_refusal_are_seen() -> None:
    def another_rate(cls: type[AdaRem], flags: stacks.Flags) -> stacks.Weights:
        return stacks.plain_loop(cls, {**flags, "lam": 0.4})

    def broken(cls: type[AdaRem], flags: stacks.Flags) -> stacks.Weights:
        raise KeyError("no such thing\nat all")

    def sparse(cls: type[AdaRem], flags: stacks.Flags) -> stacks.Weights:
        p = torch.ones(3, requires_grad=True)
        p.grad = torch.ones(3).to_sparse()
        cls([p], **flags).step()
        raise AssertionError

    for cls in (AdaRem, AdaRemS):
        assert stacks.cell(Row(another_rate), cls, {}).kind == "differs"
        assert stacks.cell(Row(broken), cls, {}) == Cell("error", "KeyError: 'no such thing\\nat all'")
        line = f"RuntimeError: {cls.__name__} does not support sparse gradients"
        assert stacks.cell(Row(sparse), cls, {}) == Cell("refused", line)
