"""Names in reports, as other programs read them."""

import csv

import pytest

from adarem.report.harmless import harmless


@pytest.mark.parametrize("formula", ['=HYPERLINK("http://x")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_gets_no_formula(formula: str) -> None:
    (row,) = csv.reader(harmless("a.csv", f'"{formula.replace(chr(34), chr(34) * 2)}",x\n').splitlines())
    assert row == [f"'{formula}", "x"]


def test_numbers_and_plain_names_keep_every_byte() -> None:
    text = 'label,n,d\n"ResNet-18, SGD",-0.25,-1e-05\nλ,+1,nan\n"a ""b""",-0.1 -0.2 0.3,—\n'
    assert harmless("a.csv", text) == text
    text = "# A\n\n| a | p < 0.05, x<3 |\n- [0.9, 0.999] (b) `adarem plan`\n"
    assert harmless("a.md", text) == text


def test_markdown_holds_no_html_and_no_link() -> None:
    text = "- a<script>x</script> <!-- --> [l](http://x) ![i](http://y) \x1b[31m\n"
    assert harmless("a.md", text) == (
        "- a&lt;script>x&lt;/script> &lt;!-- --> [l]\\(http://x) ![i]\\(http://y) \\x1b[31m\n"
    )
    assert harmless("a.tex", text) == text  # report/tables/latex.py
