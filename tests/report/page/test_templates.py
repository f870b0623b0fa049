"""The templates: escaping, missing names, and that they ask for nothing but what the page gives them."""

import re

import pytest
from jinja2 import UndefinedError

from adarem.report.page.page import IndexEntry, _emphasis, _environment, render_index
from adarem.report.page.sections import PaperLine, PaperTable
from adarem.report.page.sortable import PageCell

HOSTILE = "<script>alert(1)</script>\"'&"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;"


def test_every_text_of_the_index_is_escaped() -> None:
    table = PaperTable([HOSTILE], [PaperLine(HOSTILE, HOSTILE, [PageCell(HOSTILE, HOSTILE)])])
    entries = [IndexEntry(HOSTILE, HOSTILE, rehearsal, HOSTILE, HOSTILE, table) for rehearsal in (None, HOSTILE)]
    page = render_index(entries, None, [HOSTILE])
    assert "<script>alert" not in page and ESCAPED in page
    assert page.count("<script>") == page.count("</script>") == 1  # the page's own


def test_a_name_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        _environment().get_template("base.html.j2").render()


def test_no_template_marks_a_text_as_safe() -> None:
    environment = _environment()
    assert environment.loader is not None and environment.autoescape is True
    for name in environment.list_templates():
        source, _, _ = environment.loader.get_source(environment, name)
        assert not re.search(r"[|]\s*safe\b|autoescape|Markup", source), name


def test_emphasis_as_in_markdown() -> None:
    pieces = [(p.text, p.emphasised) for p in _emphasis("*reproduced*: d < 1; *better* / *worse*")]
    assert pieces == [
        ("reproduced", True), (": d < 1; ", False), ("better", True), (" / ", False), ("worse", True)
    ]  # fmt: skip
