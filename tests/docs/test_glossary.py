"""docs/glossary.md: each term once, in order, and each of them used in the pages or in README.md."""

import re

from tests.support import ROOT

GLOSSARY = ROOT / "docs" / "glossary.md"
TERMS = re.findall(r"^\| ([^|]+?) \| (?!Meaning|---)", GLOSSARY.read_text(), re.MULTILINE)


def test_terms_are_there_once_and_in_order() -> None:
    folded = [term.casefold() for term in TERMS]
    assert len(TERMS) > 30 and folded == sorted(set(folded))


def test_every_term_is_used() -> None:
    pages = [ROOT / "README.md", *(p for p in (ROOT / "docs").glob("*.md") if p != GLOSSARY)]
    text = " ".join(" ".join(p.read_text().casefold().split()) for p in pages)
    unused = [term for term in TERMS if not re.search(rf"\b{re.escape(term.casefold())}", text)]
    assert not unused


def test_words_of_the_rule_are_defined() -> None:
    """What a run or a sweep may count as, as the report prints it."""
    kinds = {"reproduction", "variation", "rehearsal", "study"}
    assert kinds <= set(TERMS)
