"""The page of one sweep, ``results/<sweep>/report.html``, and the page over all sweeps, ``results/index.html``.

Each is one file that needs no network. The look is in templates/: HTML by Jinja2, CSS and JavaScript as files.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.report.claims.overview import Overview
from adarem.report.page.sections import PaperTable, claims_section, paper_table, sweep_section
from adarem.report.tables.table import Table

if TYPE_CHECKING:
    from jinja2 import Environment

TITLE = "AdaRem, results"


@dataclass(frozen=True)
class Link:
    href: str
    text: str


@dataclass(frozen=True)
class Piece:
    """A part of a sentence."""

    text: str
    emphasised: bool


@dataclass(frozen=True)
class IndexEntry:
    """One sweep on the page over all sweeps."""

    name: str  # of the sweep, an anchor on the page
    title: str
    rehearsal: str | None  # why this is a rehearsal
    standing: str  # reproduction, variation, rehearsal or study, in words
    href: str  # of the sweep's own page, relative to the index
    table: PaperTable


def render(table: Table, figures: Sequence[Path]) -> str:
    """The page of one sweep.

    Args:
        table: the sweep's table.
        figures: SVG files, embedded in this order.
    """
    sweep = sweep_section(table, figures)
    parts = [
        *(["search"] if sweep.search else []),
        "figures",
        *(["times"] if sweep.times else []),
        "fairness",
        "throughput",
        "failures",
        "provenance",
    ]
    links = [Link("../index.html", "All sweeps"), *(Link(f"#{sweep.name}-{part}", part.capitalize()) for part in parts)]
    template = _environment().get_template("sweep.html.j2")
    title = table.title if table.sweep.spec.paper is None else _title([sweep.rehearsal])
    return template.render(title=title, links=links, sweep=sweep)


def index_entry(table: Table, standing: str, href: str) -> IndexEntry:
    """What the index shows of a sweep: title, standing, link and table."""
    return IndexEntry(table.sweep.name, table.title, table.sweep.rehearsal, standing, href, paper_table(table))


def render_index(entries: Sequence[IndexEntry], claims: Overview | None, unreadable: Sequence[str] = ()) -> str:
    """The page over all sweeps: each with title, standing, link to its own page and table; then the claims.

    Args:
        entries: the sweeps, in the order of the page.
        claims: with their verdicts; None: the page has no such section.
        unreadable: one line per sweep that could not be read, shown on top.
    """
    return (
        _environment()
        .get_template("index.html.j2")
        .render(
            title="Results"
            if claims is None or not claims.of_paper
            else _title([entry.rehearsal for entry in entries]),
            links=[
                *(Link(f"#{entry.name}", entry.name) for entry in entries),
                *([] if claims is None else [Link("#claims", "Claims")]),
            ],
            unreadable=unreadable,
            sweeps=entries,
            claims=None if claims is None else claims_section(claims),
        )
    )


def _title(rehearsals: Sequence[str | None]) -> str:
    """Says REHEARSAL where nothing on the page is a reproduction."""
    return f"REHEARSAL: {TITLE}" if rehearsals and all(rehearsals) else TITLE


def _emphasis(text: str) -> list[Piece]:
    """The pieces of a text with *emphasis* as in Markdown."""
    pieces = re.split(r"[*]([^*]+)[*]", text)
    return [Piece(piece, i % 2 == 1) for i, piece in enumerate(pieces) if piece]


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("adarem.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["emphasis"] = _emphasis
    return environment
