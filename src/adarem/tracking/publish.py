"""What is sent to wandb beside training: runs replayed from their directories, a campaign's table and figures.

Everything here is a copy of what stands in run directories and ``results/``.
"""

import csv
import hashlib
import shlex
from pathlib import Path
from typing import Any

from adarem.report.manifest import FILE, Manifest, read_manifest
from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.sweep import runs_in
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
        UserError: there is no report of this sweep, a file that it wrote is gone or damaged, or wandb refuses.
    """
    config, manifest = configs_in(folder)[0], published(folder, results_dir)
    rows, figures = _table(folder, results_dir, manifest), published_figures(folder, results_dir, manifest)
    rehearsal = manifest.standing.reason if manifest.standing.kind == "rehearsal" else ""
    import wandb

    logged: dict[str, Any] = {f"figures/{f.stem}": wandb.Image(str(f)) for f in figures}
    logged["table"] = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    try:
        session = wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            id=hashlib.sha256(f"{folder.name}/report".encode()).hexdigest()[:12],
            name=shown_name(f"{'REHEARSAL of ' if rehearsal else ''}{manifest.heading}: table and figures"),
            group=shown_name(f"{folder.name} · report"),
            job_type="report",
            tags=[shown_tag(folder.name), *(["rehearsal"] if rehearsal else [])],
            notes=f"REHEARSAL: {rehearsal}" if rehearsal else None,
            config={"campaign": folder.name, "grid": manifest.grid, "rehearsal": rehearsal or None},
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


def published(folder: Path, results_dir: Path) -> Manifest:
    """What the report wrote of a sweep. Raises UserError where there is no report of it."""
    path = results_dir / folder.name / FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file; `{_report_command(folder, results_dir)}` writes it")
    return read_manifest(path)


def _table(folder: Path, results_dir: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """The rows of the sweep's table.csv."""
    name = next(name for name in manifest.files.table if name.endswith(".csv"))
    path, command = results_dir / folder.name / name, _report_command(folder, results_dir)
    try:
        with open(path, newline="", encoding="utf-8") as f:
            rows = [{k: _value(k, v) for k, v in row.items()} for row in csv.DictReader(f, strict=True)]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `{command}` writes it") from None
    except (ValueError, csv.Error):
        raise UserError(f"{path}: not a table as the report writes it; `{command}` writes it anew") from None
    if not rows:
        raise UserError(f"{path}: holds no cell; `{command}` writes it anew")
    return rows


def published_figures(folder: Path, results_dir: Path, manifest: Manifest) -> list[Path]:
    """The PNG files of the sweep's figures."""
    found = [results_dir / folder.name / name for name in manifest.files.figures if name.endswith(".png")]
    if gone := next((path for path in found if not path.is_file()), None):
        raise UserError(f"{gone}: no such file; `{_report_command(folder, results_dir)}` draws it")
    return found


def _report_command(folder: Path, results_dir: Path) -> str:
    """What makes this sweep's report, and no other's."""
    words = [f"grid={folder.name}"]
    words += [f"runs_dir={folder.parent}"] if folder.parent != Path("runs").absolute() else []
    words += [f"results_dir={results_dir}"] if results_dir != Path("results") else []
    return shlex.join(["adarem", "report", *words])


def _value(column: str | None, text: str | None) -> str | float | None:
    if column is None or text is None:
        raise ValueError("a row longer or shorter than its heading")
    if column in _NUMBERS:
        return float(text) if text else None
    return text
