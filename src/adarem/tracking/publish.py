"""``adarem wandb publish``: sends a sweep's table and figures, as `adarem report` wrote them."""

import csv
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adarem.run.catalog import default_scale
from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.sweep import SweepSpec, read_sweep, runs_in
from adarem.tracking.connection import Mode, refusal, sending_mode
from adarem.tracking.naming import report_id, shown_name, shown_tag

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


def publish(sweep: Path, results_dir: Path, mode: Mode | None) -> None:
    """Logs a sweep's table and figures as one wandb run of job type ``report``.

    The run's id is the sweep's: publishing again continues the same run.

    Raises:
        UserError: the last report made is not this sweep's, or wandb refuses.
    """
    spec, config = read_sweep(sweep), readable_runs(sweep)[0].config
    rows, figures = _table(sweep, spec, results_dir), published_figures(sweep, spec, results_dir)
    rehearsal = rows[0]["rehearsal"]
    import wandb

    logged: dict[str, Any] = {f"figures/{f.stem}": wandb.Image(str(f)) for f in figures}
    logged["table"] = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
    stamp = "REHEARSAL of " if rehearsal else ""
    try:
        session = wandb.init(
            project=config.wandb.project,
            entity=config.wandb.entity,
            id=report_id(sweep.name),
            name=shown_name(f"{stamp}{spec.printed_heading}: table and figures"),
            group=shown_name(f"{sweep.name} · report"),
            job_type="report",
            tags=[shown_tag(sweep.name), *(["rehearsal"] if rehearsal else [])],
            notes=f"REHEARSAL: {rehearsal}" if rehearsal else None,
            config={"campaign": sweep.name, "grid": spec.name, "rehearsal": rehearsal or None},
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


def _table(sweep: Path, spec: SweepSpec, results_dir: Path) -> list[dict[str, str | float | None]]:
    """The rows of the table that the last report wrote; only those of this very sweep."""
    path, command = results_dir / "tables" / f"{spec.name}.csv", _report_command(sweep, spec, results_dir)
    try:
        with open(path, newline="", encoding="utf-8") as f:
            rows = [{k: _value(k, v) for k, v in row.items()} for row in csv.DictReader(f, strict=True)]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `{command}` writes it") from None
    except (ValueError, csv.Error):
        raise UserError(f"{path}: not a table as the report writes it; `{command}` writes it anew") from None
    if not rows or not {"campaign", "rehearsal"} <= rows[0].keys():
        raise UserError(f"{path}: holds no cell of a sweep; `{command}` writes it anew")
    of = {str(row["campaign"]) for row in rows}
    if of != {sweep.name}:
        raise UserError(f"{path}: is the table of {', '.join(sorted(of))}, not of {sweep.name}; make it: `{command}`")
    return rows


def published_figures(sweep: Path, spec: SweepSpec, results_dir: Path) -> list[Path]:
    """The figures that the report draws of the grid, and what it puts next to each: ``figure1-parameters``."""
    own = ["figure1", "figure2"] if "q_mean" in spec.metrics else []
    found = []
    for name in own or [spec.figure or f"{spec.name}-curves", f"{spec.name}-time"]:
        path = results_dir / "figures" / f"{name}.png"
        if not path.is_file():
            raise UserError(f"{path}: no such file; `{_report_command(sweep, spec, results_dir)}` draws it")
        found += [path, *sorted(path.parent.glob(f"{name}-*.png"))]
    return found


def _report_command(sweep: Path, spec: SweepSpec, results_dir: Path) -> str:
    """What makes this sweep's report, and no other's."""
    words = [f"grid={spec.name}"]
    if spec.data:
        words.append(f"data={spec.data}")
    if spec.scale and spec.scale != default_scale(spec.data or ""):
        words.append(f"scale={spec.scale}")
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
