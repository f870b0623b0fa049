"""``adarem wandb publish``: sends a sweep's table and figures, as `adarem report` wrote them."""

import csv
import shlex
from dataclasses import dataclass
from pathlib import Path

from adarem.report.manifest import FILE, Manifest, read_manifest
from adarem.run.config import RunConfig
from adarem.run.credentials import wandb_entity, wandb_project
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.sweep import runs_in
from adarem.tracking.connection import Mode, own_environment, refusal, sending_mode
from adarem.tracking.naming import report_id, shown_name, shown_tag, stamp_notes, stamp_tags

# Of a table's CSV; empty where there is no number.
_NUMBERS = ("paper", "ours", "sd", "ci95_low", "ci95_high", "n", "planned", "difference")


@dataclass(frozen=True)
class ReadableRun:
    """A run and its config."""

    run: RunDir
    config: RunConfig


def readable_runs(sweep: Path) -> list[ReadableRun]:
    """The runs of a sweep whose config can be read, in order of name.

    Raises:
        UserError: no run there has a config that can be read.
    """
    found = []
    for run in runs_in(sweep):
        try:
            found.append(ReadableRun(run, run.config()))
        except UserError:
            continue
    if not found:
        raise UserError(f"{sweep}: no run there, or none whose config.yaml can be read; `adarem plan` makes runs")
    return found


@own_environment()
def publish(sweep: Path, results_dir: Path, mode: Mode | None) -> None:
    """Logs a sweep's table and figures as one wandb run of job type ``report``.

    The run's id is the sweep's: publishing again continues the same run.

    Raises:
        UserError: there is no report of the sweep, a file that it wrote is gone or damaged, or wandb refuses.
    """
    config, manifest = readable_runs(sweep)[0].config, report_of(sweep, results_dir)
    rows, figures = _table(sweep, results_dir, manifest), published_figures(sweep, results_dir, manifest)
    standing = manifest.standing
    rehearsal = standing.reason if standing.kind == "rehearsal" else None
    import wandb

    logged: dict[str, object] = {f"figures/{f.stem}": wandb.Image(str(f)) for f in figures}
    logged["table"] = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    stamp = "REHEARSAL of " if rehearsal else ""
    try:
        session = wandb.init(
            project=wandb_project(config),
            entity=wandb_entity(config),
            id=report_id(sweep.name),
            name=shown_name(f"{stamp}{manifest.heading}: table and figures"),
            group=shown_name(f"{sweep.name} · report"),
            job_type="report",
            tags=[shown_tag(sweep.name), *stamp_tags(standing.kind)],
            notes=stamp_notes(standing.kind, standing.reason),
            config={"campaign": sweep.name, "grid": manifest.grid, "rehearsal": rehearsal},
            dir=str(sweep),
            mode=sending_mode(config, mode),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        session.log(logged)
        session.finish()
    except wandb.errors.Error as e:
        raise refusal(e) from None
    wandb.teardown()


def report_of(sweep: Path, results_dir: Path) -> Manifest:
    """What the report wrote of a sweep. Raises UserError where there is no report of it, or another sweep's."""
    path, command = results_dir / sweep.name / FILE, _report_command(sweep, results_dir)
    if not path.is_file():
        raise UserError(f"{path}: no such file; `{command}` writes it")
    manifest = read_manifest(path)
    if manifest.sweep != sweep.name:
        raise UserError(f"{path}: the report of {manifest.sweep}, not of {sweep.name}; rerun `{command}`")
    return manifest


def _table(sweep: Path, results_dir: Path, manifest: Manifest) -> list[dict[str, str | float | None]]:
    """The rows of the sweep's table.csv."""
    path, command = results_dir / sweep.name / manifest.files.csv, _report_command(sweep, results_dir)
    try:
        with open(path, newline="", encoding="utf-8") as f:
            rows = [{k: _value(k, v) for k, v in row.items()} for row in csv.DictReader(f, strict=True)]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `{command}` writes it") from None
    except (ValueError, csv.Error):
        raise UserError(f"{path}: not a table as the report writes it; rerun `{command}`") from None
    if not rows:
        raise UserError(f"{path}: holds no cell; rerun `{command}`")
    return rows


def published_figures(sweep: Path, results_dir: Path, manifest: Manifest) -> list[Path]:
    """The PNG files of the sweep's figures."""
    found = [results_dir / sweep.name / name for name in manifest.files.figures if name.endswith(".png")]
    if gone := next((path for path in found if not path.is_file()), None):
        raise UserError(f"{gone}: no such file; `{_report_command(sweep, results_dir)}` draws it")
    return found


def _report_command(sweep: Path, results_dir: Path) -> str:
    """What makes this sweep's report, and no other's."""
    words = [f"grid={sweep.name}"]
    if sweep.parent != Path("runs").absolute():
        words.append(f"runs_dir={sweep.parent}")
    if results_dir != Path("results"):
        words.append(f"results_dir={results_dir}")
    return shlex.join(["adarem", "report", *words])


def _value(column: str | None, text: str | None) -> str | float | None:
    if column is None or text is None:
        raise ValueError("a row longer or shorter than its heading")
    if column in _NUMBERS:
        return float(text) if text else None
    return text
