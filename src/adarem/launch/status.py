"""`adarem status`: where every cell of a campaign stands, read from its run directories. Answers at once: no torch."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.sweep import directories, read_campaign

REFRESH_SECONDS = 2.0
QUEUE_SECONDS = 30.0  # between two questions to Slurm's controller


def cell_status(run: RunDir, queue: dict[str, str]) -> dict[str, Any]:
    """One cell as plain data; what is not known is None. ``queue`` maps cells to jobs waiting in Slurm."""
    cell: dict[str, Any] = {"campaign": run.path.parent.name, "cell": run.path.name, "state": "unreadable", "job": None}
    try:
        return cell | _known(run, queue)
    except (UserError, OSError, KeyError, TypeError, ValueError, AttributeError) as e:
        return cell | {"problem": str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}"}


def _known(run: RunDir, queue: dict[str, str]) -> dict[str, Any]:
    """All of a cell but its name. Raises whatever a damaged file does, UserError with a line for people."""
    config, state, progress = run.config(), run.status(), run.progress() or {}
    attempts, metrics = run.attempts(), run.metrics()
    job = (attempts[-1].get("slurm_job") if attempts else None) or progress.get("slurm_job")
    result = (run.result() or {}) if state in FINISHED else {}
    problem = _why_failed(run, attempts) if state == "failed" else None
    if state == "diverged":
        problem = str(result.get("reason", ""))
    if state in ("planned", "interrupted", "failed") and run.path.name in queue:
        state, job, problem = "queued", queue[run.path.name], None
    last = {split: next((r for r in reversed(metrics) if r["split"] == split), {}) for split in ("train", "val")}
    running = state == "running"
    epoch = last["train"].get("epoch", 0)
    if running and isinstance(progress.get("epoch"), int):
        epoch = max(epoch, progress["epoch"])
    told = progress if running else result
    return {
        "state": state,
        "job": job,
        "epoch": epoch,
        "epochs": config.scale.epochs,
        "loss": progress.get("loss") if running else result.get("train_loss", last["train"].get("loss")),
        "top1": result.get("top1", last["val"].get("top1")),
        "perplexity": result.get("perplexity", last["val"].get("perplexity")),
        "images_per_s": told.get("images_per_s", last["train"].get("images_per_s")),
        "tokens_per_s": told.get("tokens_per_s", last["train"].get("tokens_per_s")),
        "seconds_left": progress.get("seconds_left") if running else None,
        "problem": problem,
    }


def _why_failed(run: RunDir, attempts: list[dict[str, Any]]) -> str:
    try:
        run.result()
    except UserError as e:  # cut or edited: the attempt itself may have ended well
        return str(e)
    return (attempts[-1].get("detail") if attempts else "") or f"stopped without a word; see {run.log_file}"


def snapshot(folders: list[Path], queue: dict[Path, dict[str, str]] | None = None) -> list[dict[str, Any]]:
    """Every cell of the campaigns, in order of name. Asks Slurm unless ``queue`` says what waits there."""
    queue = ask_slurm(folders) if queue is None else queue
    return [cell_status(run, queue[folder]) for folder in folders for run in directories(folder)]


def ask_slurm(folders: list[Path]) -> dict[Path, dict[str, str]]:
    """Cells waiting or running in Slurm; none where it is not there or does not answer: status then tells less."""
    from adarem.launch.slurm import jobs as slurm

    waiting: dict[Path, dict[str, str]] = {}
    for folder in folders:
        try:
            waiting[folder] = slurm.queued(folder, patience=5.0) if slurm.folder(folder).is_dir() else {}
        except (UserError, OSError, ValueError, IndexError):
            waiting[folder] = {}
    return waiting


def find(runs_dir: Path, grid: str | None, data: str | None) -> list[Path]:
    """The folders of the campaigns asked for.

    Raises:
        UserError: there is none.
    """
    folders = sorted(p for p in (runs_dir.iterdir() if runs_dir.is_dir() else ()) if (p / "grid.yaml").exists())
    if grid is not None:
        folders = [p for p in folders if p.name == grid or p.name.startswith(f"{grid}-")]
    if data is not None:
        folders = [p for p in folders if data in (_data(p), *p.name.split("-"))]
    if not folders:
        what = f" of {grid}" if grid else ""
        raise UserError(f"{runs_dir}: no runs{what} there; `adarem launch grid={grid or 'table2'}` makes some")
    return folders


def _data(folder: Path) -> Any:
    """The data set of a campaign, which the names table2, table2-smoke and table2-trial do not tell."""
    try:
        return read_campaign(folder).get("data")
    except UserError:
        return None  # damaged: the report says how


COLUMNS = ("cell", "state", "job", "epoch", "loss", "top-1", "images/s", "left")


def texts(cell: dict[str, Any]) -> list[str]:
    """The cell's line of the table; — is not known."""

    def number(key: str, form: str) -> str:
        value = cell.get(key)
        return format(value, form) if isinstance(value, int | float) else "—"

    left = cell.get("seconds_left")
    return [
        f"{cell['campaign']}/{cell['cell']}",
        cell["state"],
        str(cell.get("job") or "—"),
        f"{cell['epoch']}/{cell['epochs']}" if "epochs" in cell else "—",
        number("loss", ".3f"),
        f"ppl {number('perplexity', '.2f')}" if cell.get("perplexity") is not None else number("top1", ".2f"),
        number("tokens_per_s" if cell.get("tokens_per_s") is not None else "images_per_s", ",.0f"),
        _duration(left) if isinstance(left, int | float) else "—",
    ]


def _duration(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def summary(cells: list[dict[str, Any]]) -> str:
    counts: dict[str, int] = {}
    for c in cells:
        counts[c["state"]] = counts.get(c["state"], 0) + 1
    return f"{len(cells)} cells: " + ", ".join(f"{n} {state}" for state, n in counts.items())


def rows(cells: list[dict[str, Any]]) -> list[list[str]]:
    """The table's lines; the campaign stands before a cell's name only where several are shown."""
    lines = [texts(c) for c in cells]
    if len({c["campaign"] for c in cells}) == 1:
        lines = [[line[0].partition("/")[2], *line[1:]] for line in lines]
    return lines


def problems(cells: list[dict[str, Any]]) -> list[str]:
    return [f"{c['campaign']}/{c['cell']}: {c['state']}: {c['problem']}" for c in cells if c.get("problem")]


def plain(cells: list[dict[str, Any]]) -> str:
    """Columns of text, no colour and no box."""
    lines = [list(COLUMNS), *rows(cells)]
    widths = [max(len(r[i]) for r in lines) for i in range(len(COLUMNS))]
    out = []
    for r in lines:
        left = [t.ljust(w) for t, w in zip(r[:3], widths[:3], strict=True)]
        out.append("  ".join([*left, *(t.rjust(w) for t, w in zip(r[3:], widths[3:], strict=True))]).rstrip())
    return "\n".join([*out, "", summary(cells), *problems(cells)]) + "\n"


_STYLE = {"running": "cyan", "done": "green", "failed": "red", "diverged": "red", "unreadable": "red"}
_STYLE |= {"interrupted": "yellow", "queued": "blue"}


def _live(folders: list[Path], once: bool) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    console = Console()

    def view(cells: list[dict[str, Any]], height: int | None = None) -> Group:
        """``height``: leave finished cells out where the table would not fit on the screen."""
        shown = cells
        if height is not None and len(cells) + len(problems(cells)) + 4 > height:
            shown = [c for c in cells if c["state"] not in ("done", "planned")]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, name in enumerate(COLUMNS):
            table.add_column(name, justify="left" if i < 3 else "right", no_wrap=i > 0, overflow="fold")
        for line in rows(shown):
            table.add_row(line[0], Text(line[1], style=_STYLE.get(line[1], "")), *line[2:])
        return Group(table, Text(), Text(summary(cells)), *(Text(t, style="red") for t in problems(cells)))

    queue, asked = ask_slurm(folders), time.monotonic()
    cells = snapshot(folders, queue)
    if once or not any(c["state"] in ("running", "queued") for c in cells):
        console.print(view(cells))
        return
    with Live(view(cells, console.height), console=console, auto_refresh=False) as live:
        while any(c["state"] in ("running", "queued") for c in cells):
            time.sleep(REFRESH_SECONDS)
            if time.monotonic() - asked > QUEUE_SECONDS:
                queue, asked = ask_slurm(folders), time.monotonic()
            cells = snapshot(folders, queue)
            live.update(view(cells, console.height), refresh=True)


def status(
    *, runs_dir: Path, grid: str | None = None, data: str | None = None, as_json: bool = False, once: bool = False
) -> int:
    """The verb: JSON, a table that stays while a cell runs (on a terminal, unless ``once``), or plain text.

    Raises:
        UserError: no such campaign under ``runs_dir``.
    """
    folders = find(Path(runs_dir), grid, data)
    if as_json:
        print(json.dumps(snapshot(folders), indent=1))
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        _live(folders, once)
    else:
        print(plain(snapshot(folders)), end="")
    return 0
