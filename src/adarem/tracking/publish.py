"""What is sent to wandb beside training: runs replayed from their directories, a campaign's table and figures.

Everything here is a copy of what stands in run directories and ``results/``.
"""

import csv
import hashlib
import shlex
from pathlib import Path
from typing import Any

from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.labels import heading
from adarem.run.sweep import OWN_SCALE, read_campaign, runs_in
from adarem.tracking.sync import mirror, shown_name, shown_tag, wandb_mode

# Of a table's CSV; empty where there is no number.
_NUMBERS = ("paper", "ours", "sd", "ci95_low", "ci95_high", "n", "planned", "difference")


def configs_in(folder: Path) -> list[RunConfig]:
    """The configs of a campaign's runs, in order of name; what cannot be read is left out.

    Raises:
        UserError: no run there has a config that can be read.
    """
    found = []
    for run in runs_in(folder):
        try:
            found.append(run.config())
        except UserError:
            continue
    if not found:
        raise UserError(f"{folder}: no run there, or none whose config.yaml can be read; `adarem plan` makes runs")
    return found


def replay(folder: Path, mode: str | None) -> tuple[int, list[str]]:
    """Builds a wandb run from every run directory of a campaign that has finished an epoch.

    An online run that exists already is added to, under the same id; an offline one is written anew.

    Returns:
        The number of runs replayed, and a line on each that could not be.

    Raises:
        UserError: no run there has finished an epoch, or wandb itself refuses.
    """
    directories = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    begun = [run for run in map(RunDir, directories) if run.metrics_file.is_file() and run.metrics()]
    if not begun:
        raise UserError(f"{folder}: no run there has finished an epoch, so there is nothing to replay")
    import wandb

    problems = []
    for run in begun:
        try:
            config = run.config()
        except UserError as e:
            problems.append(str(e))
            continue
        chosen = _sending(config, mode)
        try:
            mirror(run, follow=False, mode=chosen)
        except wandb.errors.Error as e:
            raise _refused(e) from None
        except UserError as e:
            problems.append(str(e))
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as e:
            problems.append(f"{run.path}: damaged ({type(e).__name__}: {e})")
    wandb.teardown()  # or the last run's end may not be on disk yet
    return len(begun) - len(problems), problems


def publish(folder: Path, results_dir: Path, mode: str | None) -> None:
    """Logs a campaign's table and figures, as ``adarem report`` wrote them, as one wandb run of job type ``report``.

    The run's id is the campaign's: publishing again goes on with the same run.

    Raises:
        UserError: the last report made is not this campaign's, or wandb refuses.
    """
    grid, config = read_campaign(folder), configs_in(folder)[0]
    rows, figures = _table(folder, grid, results_dir), published_figures(folder, grid, results_dir)
    rehearsal = rows[0]["rehearsal"]
    import wandb

    logged: dict[str, Any] = {f"figures/{f.stem}": wandb.Image(str(f)) for f in figures}
    logged["table"] = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    title = grid.get("heading") or heading(grid["name"])
    try:
        session = wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            id=hashlib.sha256(f"{folder.name}/report".encode()).hexdigest()[:12],
            name=shown_name(f"{'REHEARSAL of ' if rehearsal else ''}{title}: table and figures"),
            group=shown_name(f"{folder.name} · report"),
            job_type="report",
            tags=[shown_tag(folder.name), *(["rehearsal"] if rehearsal else [])],
            notes=f"REHEARSAL: {rehearsal}" if rehearsal else None,
            config={"campaign": folder.name, "grid": grid["name"], "rehearsal": rehearsal or None},
            dir=str(folder),
            mode=_sending(config, mode),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        session.log(logged)
        session.finish()
    except wandb.errors.Error as e:
        raise _refused(e) from None
    wandb.teardown()


def _sending(config: RunConfig, mode: str | None) -> str:
    """online or offline. Raises UserError where wandb is switched off."""
    chosen = mode or wandb_mode(config)
    if chosen not in ("online", "offline"):
        raise UserError(f"wandb is {chosen}, by wandb.mode of the run or WANDB_MODE; give --mode=online or offline")
    return chosen


def _refused(error: Exception) -> UserError:
    first = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return UserError(f"wandb: {first}; `wandb login` stores a key, --mode=offline needs none")


def _table(folder: Path, grid: dict[str, Any], results_dir: Path) -> list[dict[str, Any]]:
    """The rows of the table that the last report wrote; only those of this very campaign."""
    path, command = results_dir / "tables" / f"{grid['name']}.csv", _report_command(folder, grid, results_dir)
    try:
        with open(path, newline="", encoding="utf-8") as f:
            rows = [{k: _value(k, v) for k, v in row.items()} for row in csv.DictReader(f, strict=True)]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `{command}` writes it") from None
    except (ValueError, csv.Error):
        raise UserError(f"{path}: not a table as the report writes it; `{command}` writes it anew") from None
    if not rows or not {"campaign", "rehearsal"} <= rows[0].keys():
        raise UserError(f"{path}: holds no cell of a campaign; `{command}` writes it anew")
    of = {row["campaign"] for row in rows}
    if of != {folder.name}:
        raise UserError(f"{path}: is the table of {', '.join(sorted(of))}, not of {folder.name}; make it: `{command}`")
    return rows


def published_figures(folder: Path, grid: dict[str, Any], results_dir: Path) -> list[Path]:
    """The figures that the report draws of the grid, and what it puts beside each: ``figure1-parameters``."""
    own = ["figure1", "figure2"] if "q_mean" in grid["metrics"] else []
    found = []
    for name in own or [grid.get("figure") or f"{grid['name']}-curves", f"{grid['name']}-time"]:
        path = results_dir / "figures" / f"{name}.png"
        if not path.is_file():
            raise UserError(f"{path}: no such file; `{_report_command(folder, grid, results_dir)}` draws it")
        found += [path, *sorted(path.parent.glob(f"{name}-*.png"))]
    return found


def _report_command(folder: Path, grid: dict[str, Any], results_dir: Path) -> str:
    """What makes this campaign's report, and no other's."""
    data, scale = grid.get("data", ""), grid.get("scale", "")
    words = [f"grid={grid['name']}", *([f"data={data}"] if data else [])]
    words += [f"scale={scale}"] if scale and scale != OWN_SCALE.get(data, "rehearsal") else []
    words += [f"runs_dir={folder.parent}"] if folder.parent != Path("runs").absolute() else []
    words += [f"results_dir={results_dir}"] if results_dir != Path("results") else []
    return shlex.join(["adarem", "report", *words])


def _value(column: str | None, text: str | None) -> str | float | None:
    if column is None or text is None:
        raise ValueError("a row longer or shorter than its heading")
    if column in _NUMBERS:
        return float(text) if text else None
    return text
