"""A progress bar on standard error, for what goes through a complete data set."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from adarem.run.streams import plain, terminal

T = TypeVar("T")


def with_progress(items: Iterable[T], total: int, what: str, show: bool) -> Iterator[T]:
    """Passes ``items`` on, with a progress bar (count, rate, time left) on standard error where ``show`` is set."""
    if not show:
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} images/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=terminal(sys.stderr))) as bar:
        task = bar.add_task(plain(what), total=total, rate="")
        for done, item in enumerate(items, 1):
            yield item
            if done % 64 == 0 or done == total:
                speed = bar.tasks[task].speed or bar.tasks[task].finished_speed
                bar.update(task, completed=done, rate=f"{speed:,.0f}" if speed else "")
