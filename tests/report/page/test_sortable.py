"""Cells of the page's sortable tables: alignment, sort values, widths."""

import pytest

from adarem.report.page.sortable import LONG, SHORT, PageCell, sortable


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("70.59 ± 0.12", "70.59"),
        ("−0.43", "-0.43"),
        ("(+24.61)", "+24.61"),
        ("1,281,167 images", "1281167"),
        (".5 %", ".5"),
        ("—", ""),
        ("div.", ""),
    ],
)
def test_numeric_columns_sort_by_the_first_number(text: str, value: str) -> None:
    ((cell,),) = sortable(["n"], [[text]], numeric=[0]).rows
    assert cell == PageCell(text, "num", value)


def test_a_class_of_its_own_stays() -> None:
    table = sortable(["Paper", "Status"], [[PageCell("70.7", "best"), PageCell("not run", "not-run")]], numeric=[0])
    assert [c.css_class for c in table.rows[0]] == ["num best", "not-run short"]
    assert [c.css_class for c in table.columns] == ["num", ""]


@pytest.mark.parametrize(("length", "css_class"), [(SHORT, "short"), (SHORT + 1, ""), (LONG, ""), (LONG + 1, "long")])
def test_texts_have_a_width_that_fits_their_length(length: int, css_class: str) -> None:
    assert sortable(["x"], [["a" * length]]).rows[0][0].css_class == css_class


def test_a_row_has_one_cell_per_heading() -> None:
    with pytest.raises(ValueError):
        sortable(["a", "b"], [["1"]])
