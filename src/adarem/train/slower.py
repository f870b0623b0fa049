"""What makes a run slower than it could be: SlowerWarnings of all ranks, each once, as lines for the run's log."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TextIO

from adarem.native import SlowerWarning
from adarem.train.distributed.context import RankContext


@contextlib.contextmanager
def collecting() -> Iterator[list[str]]:
    """Collects what SlowerWarnings say and does not show them; other warnings are shown as ever."""
    notes: list[str] = []
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, SlowerWarning):
            notes.append(str(message))
        else:
            shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield notes
    finally:
        warnings.showwarning = shown


def of_all_ranks(context: RankContext, notes: Sequence[str]) -> tuple[str, ...]:
    """Each note once, with the first rank that has it. Every rank must call."""
    ranks: dict[str, int] = {}
    for rank, its in enumerate(context.gather(list(notes))):
        for note in its:
            ranks.setdefault(note, rank)
    return tuple(f"rank {rank} on {context.hosts[rank]}: {note}" for note, rank in ranks.items())
