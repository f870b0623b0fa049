"""``adarem status``: shows the state of every run of a sweep, as JSON, as text or as a table that updates itself."""

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.launch.snapshot import RunStatus, ask_slurm, find_sweeps, snapshot
from adarem.run import exitcodes
from adarem.run.streams import one_line, terminal
from adarem.run.text import aligned, duration

if TYPE_CHECKING:
    from rich.console import Group

REFRESH_SECONDS = 2.0
QUEUE_SECONDS = 30.0  # between two questions to Slurm's controller

COLUMNS = ("run", "state", "job", "epoch", "loss", "top-1", "images/s", "left")
_LEFT_ALIGNED = 3  # columns of words; the others hold numbers
_ACTIVE = ("running", "queued", "held", "starting", "ending")
_STYLES = {
    "running": "cyan", "done": "green", "failed": "red", "diverged": "red", "unreadable": "red",
    "interrupted": "yellow", "paused": "yellow", "stopped": "dim", "queued": "blue",
    "starting": "cyan", "ending": "yellow", "held": "yellow", "unknown": "magenta",
}  # fmt: skip


def status(*, runs_dir: Path, grid: str | None = None, data: str | None = None, as_json: bool = False) -> int:
    """The verb: JSON; on a terminal a table that stays while a run is active; else plain text.

    Raises:
        UserError: no such sweep under ``runs_dir``.
    """
    sweeps = find_sweeps(runs_dir, grid, data)
    if as_json:
        print(json.dumps([run.to_json() for run in snapshot(sweeps)], indent=1))
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        _show_live(sweeps)
    else:
        print(as_text(snapshot(sweeps)), end="")
    return exitcodes.OK


def table_rows(runs: Sequence[RunStatus]) -> list[list[str]]:
    """The table's rows, a text for each of COLUMNS; a run's sweep is named only where several are shown."""
    one_sweep = len({run.sweep for run in runs}) == 1
    return [[one_line(t) for t in _row(run, run.run if one_sweep else f"{run.sweep}/{run.run}")] for run in runs]


def _row(run: RunStatus, name: str) -> list[str]:
    p = run.progress
    if p is None:
        return [name, run.state, run.job or "—", "—", "—", "—", "—", "—"]
    return [
        name,
        run.state,
        run.job or "—",
        f"{p.epoch}/{p.epochs}",
        _formatted(p.loss, ".3f"),
        _formatted(p.top1, ".2f") if p.perplexity is None else f"ppl {p.perplexity:.2f}",
        _formatted(p.images_per_s if p.tokens_per_s is None else p.tokens_per_s, ",.0f"),
        "—" if p.seconds_left is None else duration(p.seconds_left),
    ]


def _formatted(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


def summary(runs: Sequence[RunStatus]) -> str:
    """``4 runs: 1 diverged, 3 done``."""
    counts = Counter(run.state for run in runs)
    return f"{len(runs)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())


def problems(runs: Sequence[RunStatus]) -> list[str]:
    """A line for each run that has a problem."""
    return [one_line(f"{run.sweep}/{run.run}: {run.state}: {run.problem}") for run in runs if run.problem]


def reasons(runs: Sequence[RunStatus]) -> list[str]:
    """A line for each reason for which runs wait: ``3 queued: waits for free nodes (Resources)``."""
    counts = Counter((run.state, run.reason) for run in runs if run.reason)
    return [f"{n} {state}: {reason}" for (state, reason), n in counts.items()]


def as_text(runs: Sequence[RunStatus], width: int | None = None) -> str:
    """The table in columns of text, without colours and lines; ``width``: of the terminal."""
    of_rows = lines_within(table_rows(runs), width or shutil.get_terminal_size((80, 24)).columns)
    lines = [line for of_row in of_rows for line in of_row]
    return "\n".join([*lines, "", summary(runs), *reasons(runs), *problems(runs)]) + "\n"


def lines_within(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The lines of the heading and of each row. A name that leaves no room for the others has a line of its own."""
    every = [COLUMNS, *rows]
    others = aligned([row[1:] for row in every], right=range(_LEFT_ALIGNED - 1, len(COLUMNS) - 1))
    room = width - 2 - max(map(len, others))
    column = max(len(row[0]) for row in every if len(row[0]) <= max(room, len(COLUMNS[0])))
    lines = []
    for (name, *_), other in zip(every, others, strict=True):
        long = [name] if len(name) > column else []
        lines.append([*long, f"{'' if long else name:<{column}}  {other}"])
    return lines


def _show_live(sweeps: Sequence[Path]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=terminal(sys.stdout))
    queue, asked = ask_slurm(sweeps), time.monotonic()
    runs = snapshot(sweeps, queue)
    if not _any_active(runs):
        console.print(_view(runs, console.width))
        return
    with Live(_view(runs, console.width, console.height), console=console, auto_refresh=False) as live:
        while _any_active(runs):
            time.sleep(REFRESH_SECONDS)
            if time.monotonic() - asked > QUEUE_SECONDS:
                queue, asked = ask_slurm(sweeps), time.monotonic()
            runs = snapshot(sweeps, queue)
            live.update(_view(runs, console.width, console.height), refresh=True)


def _any_active(runs: Sequence[RunStatus]) -> bool:
    return any(run.state in _ACTIVE for run in runs)


def _view(runs: Sequence[RunStatus], width: int, height: int | None = None) -> "Group":
    """The coloured table; done and planned runs are left out where it has more lines than ``height``."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown = runs
    if height is not None and len(runs) + len(problems(runs)) + len(reasons(runs)) + 4 > height:
        shown = [run for run in runs if run.state not in ("done", "planned")]
    rows = table_rows(shown)
    below = [Text(), Text(summary(runs)), *map(Text, reasons(runs))]
    below += [Text(line, style="red") for line in problems(runs)]
    lines = lines_within(rows, width)
    if any(len(of_row) > 1 for of_row in lines):
        styles = ["bold", *(_STYLES.get(row[1], "") for row in rows)]
        narrow = [
            Text(line, style=style if line is of_row[-1] else "")
            for of_row, style in zip(lines, styles, strict=True)
            for line in of_row
        ]
        return Group(*narrow, *below)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(COLUMNS):
        left = i < _LEFT_ALIGNED
        table.add_column(name, justify="left" if left else "right", no_wrap=i > 0, overflow="fold")
    for line in rows:
        table.add_row(Text(line[0]), Text(line[1], style=_STYLES.get(line[1], "")), *map(Text, line[2:]))
    return Group(table, *below)
