"""The state of every run of a sweep, read from its directory and Slurm's queue. Standard library and yaml only."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from adarem.launch.slurm.commands import refusal_file, slurm_folder
from adarem.launch.slurm.ended import Ended, ended_without_attempt
from adarem.launch.slurm.queue import Job, queued
from adarem.launch.slurm.reasons import InQueue, seen
from adarem.run.config import DataConfig
from adarem.run.directory import FINISHED, RunDir, Status
from adarem.run.errors import UserError
from adarem.run.files import read_json
from adarem.run.halving import Place, read_places
from adarem.run.records import JsonRecord, count, text
from adarem.run.sweep import directories, read_sweep, runs_in

PATIENCE_SECONDS = 5.0  # with a program of Slurm
OWN = "folder"  # the file of configs/data with which a folder of images is planned
State = Status | InQueue | Literal["unknown", "unreadable"]


@dataclass(frozen=True)
class Progress:
    """How far a run is and its newest numbers; None is not known."""

    epoch: int  # epochs completed; of a running one, the epoch in progress
    epochs: int
    loss: float | None  # of training
    top1: float | None  # %, of the last evaluation
    perplexity: float | None  # of the last evaluation, of a language model
    images_per_s: float | None
    tokens_per_s: float | None
    seconds_left: float | None  # of a running one


@dataclass(frozen=True)
class RunStatus:
    """One run of a sweep."""

    sweep: str  # name of its folder
    run: str  # name of its directory
    state: State
    job: str | None = None  # Slurm's id of it: array_task
    progress: Progress | None = None  # None where the run's files cannot be read
    problem: str | None = None  # why it failed, diverged or cannot be read, in one line
    reason: str | None = None  # why it waits, in Slurm, or why nothing is known of it

    def to_json(self) -> dict[str, object]:
        """The record that `adarem status --json` prints."""
        progress = asdict(self.progress) if self.progress else {}
        reason = {} if self.reason is None else {"reason": self.reason}
        return {
            "campaign": self.sweep, "cell": self.run, "state": self.state, "job": self.job, **progress,
            "problem": self.problem, **reason,
        }  # fmt: skip


@dataclass(frozen=True)
class SlurmView:
    """What Slurm knows of a sweep."""

    jobs: Mapping[str, Job] = field(default_factory=dict)  # of runs in the queue, by their names
    ended: Mapping[str, Ended] = field(default_factory=dict)  # of runs whose newest job began no attempt
    silent: str | None = None  # why it did not answer


NO_SLURM = SlurmView()


def read_status(run: RunDir, slurm: SlurmView = NO_SLURM, place: Place | None = None) -> RunStatus:
    """Reads one run; a damaged file makes it ``unreadable`` and no error.

    Args:
        slurm: what it knows of the sweep.
        place: among the rungs of a search.
    """
    try:
        return _read(run, slurm, place)
    except UserError as e:
        problem = str(e)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as e:
        problem = f"{type(e).__name__}: {e}"
    return RunStatus(run.path.parent.name, run.path.name, "unreadable", problem=problem)


def _read(run: RunDir, slurm: SlurmView, place: Place | None) -> RunStatus:
    """Raises whatever a damaged file causes."""
    config, state, live = run.config(), run.status(), run.progress() or {}
    if place is not None and place.state in ("paused", "stopped") and state != "running":
        state = place.state  # its figure is there, however its last attempt ended
    attempts, metrics = run.attempts(), run.metrics()
    result = (run.result() or {}) if state in FINISHED else {}
    job = (attempts[-1].get("slurm_job") if attempts else None) or live.get("slurm_job")
    problem = _why_failed(run, attempts) if state == "failed" else None
    if state == "diverged":
        problem = str(result.get("reason", ""))
    of_slurm = _by_slurm(run, state, slurm)
    shown: State = state
    if of_slurm is not None:
        shown, job, problem = of_slurm.state, of_slurm.job or job, of_slurm.problem
    train, evaluated = _last(metrics, "train"), _last(metrics, config.data.evaluated_on)
    running = state == "running"
    epoch = count(train, "epoch") or 0
    if running:
        epoch = max(epoch, count(live, "epoch") or 0)
    newest = live if running else result
    progress = Progress(
        epoch=epoch,
        epochs=config.scale.epochs,
        loss=_number(live.get("loss") if running else result.get("train_loss", train.get("loss"))),
        top1=_number(result.get("top1", evaluated.get("top1"))),
        perplexity=_number(result.get("perplexity", evaluated.get("perplexity"))),
        images_per_s=_number(newest.get("images_per_s", train.get("images_per_s"))),
        tokens_per_s=_number(newest.get("tokens_per_s", train.get("tokens_per_s"))),
        seconds_left=_number(live.get("seconds_left")) if running else None,
    )
    reason = of_slurm.reason if of_slurm else None
    of_run = (run.path.parent.name, run.path.name)
    return RunStatus(*of_run, shown, None if job is None else str(job), progress, problem, reason)


class _BySlurm(NamedTuple):
    """What Slurm adds to what a run's files say."""

    state: State
    job: str | None
    problem: str | None = None
    reason: str | None = None


def _by_slurm(run: RunDir, state: Status, slurm: SlurmView) -> _BySlurm | None:
    """None where the files say it all."""
    job = slurm.jobs.get(run.path.name)
    if state in (*FINISHED, "stopped"):
        return None
    if job is not None:
        found = seen(job)
        # A run whose node went down looks as if it trained, for a while; one that holds its lock does train.
        if state == "running" and (found.state == "starting" or found.state != "ending" and run.locked()):
            return None
        return _BySlurm(found.state, job.id, reason=found.reason)
    if slurm.silent is not None:
        known = state not in ("planned", "interrupted")
        return None if known else _BySlurm("unknown", None, reason=slurm.silent)
    if (ended := slurm.ended.get(run.path.name)) is not None and state != "running":
        return _BySlurm("failed" if ended.started else state, ended.job, ended.line)
    if state == "interrupted" and (record := _refusal(run)) is not None:
        return _BySlurm(state, None, record)
    return None


def _refusal(run: RunDir) -> str | None:
    try:
        record = read_json(refusal_file(run)) or {}
    except UserError:
        return None
    return text(record, "line") or None


def _last(metrics: Sequence[JsonRecord], split: str) -> JsonRecord:
    return next((record for record in reversed(metrics) if record["split"] == split), {})


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _why_failed(run: RunDir, attempts: Sequence[JsonRecord]) -> str:
    try:
        run.result()
    except UserError as e:  # cut or edited: the attempt itself may have ended well
        return str(e)
    detail = str(attempts[-1].get("detail") or "") if attempts else ""
    return detail or f"stopped without an error message; see {run.log_file}"


def outcome(run: RunDir) -> str:
    """What a run came to that is finished or at a rung: ``top-1 70.50 %``, ``diverged in epoch 3``."""
    result = run.result() or {}
    if not result:
        return f"paused after epoch {run.epochs()}"
    if result.get("status") == "diverged":
        return f"diverged in epoch {result.get('epoch', '?')}"
    if "perplexity" in result:
        return f"test perplexity {result['perplexity']:.2f}"
    if "holdout_top1" in result:
        return f"held-out top-1 {result['holdout_top1']:.2f} %"
    return f"top-1 {result['top1']:.2f} %"


def snapshot(sweeps: Sequence[Path], slurm: Mapping[Path, SlurmView] | None = None) -> list[RunStatus]:
    """Every run of the sweeps, in order of name. Asks Slurm unless ``slurm`` says what each sweep has there."""
    slurm = ask_slurm(sweeps) if slurm is None else slurm
    found = []
    for sweep in sweeps:
        places = _places(sweep)
        found += [read_status(run, slurm[sweep], places.get(run.path.name)) for run in directories(sweep)]
    return found


def _places(sweep: Path) -> Mapping[str, Place]:
    try:
        return read_places(sweep, read_sweep(sweep))
    except UserError:
        return {}


def ask_slurm(sweeps: Sequence[Path]) -> dict[Path, SlurmView]:
    """What Slurm knows of each sweep that was launched there; one that it does not answer for says so."""
    return {sweep: _ask_slurm(sweep) if slurm_folder(sweep).is_dir() else NO_SLURM for sweep in sweeps}


def _ask_slurm(sweep: Path) -> SlurmView:
    try:
        jobs = queued(sweep, patience=PATIENCE_SECONDS)
    except (UserError, OSError) as e:
        return SlurmView(silent=f"Slurm does not answer: {str(e).partition(', so nothing was submitted')[0]}")
    unfinished = []
    for run in directories(sweep):
        with contextlib.suppress(UserError, OSError, ValueError):  # shown as unreadable
            if run.path.name not in jobs and run.status() in ("planned", "interrupted", "failed"):
                unfinished.append(run)
    return SlurmView(jobs, ended_without_attempt(sweep, unfinished, jobs, PATIENCE_SECONDS))


def find_sweeps(runs_dir: Path, grid: str | None = None, data: str | None = None) -> list[Path]:
    """The folders of the sweeps of a grid and on a data set, where these are given, in order of name.

    Args:
        data: the data set's name; ``folder``: every folder of images that was planned by data=folder.

    Raises:
        UserError: there is none.
    """
    what = f" of {grid}" if grid else ""
    sweeps = sorted(p for p in (runs_dir.iterdir() if runs_dir.is_dir() else ()) if (p / "grid.yaml").exists())
    if grid is not None:
        sweeps = [p for p in sweeps if p.name == grid or p.name.startswith(f"{grid}-")]
    if data is not None:
        of_grid = sweeps
        sweeps = [p for p in sweeps if data in (_data_of(p), *p.name.split("-")) or data == OWN and _is_own(p)]
        if of_grid and not sweeps:
            others = sorted({found for p in of_grid if (found := _data_of(p))})
            known = f", or name one of {', '.join(others)}" if others else ""
            raise UserError(f"{runs_dir}: no runs{what} on {data} there; leave data={data} out{known}")
    if not sweeps:
        raise UserError(f"{runs_dir}: no runs{what} there; `adarem launch grid={grid or 'table2'}` makes some")
    return sweeps


def _is_own(sweep: Path) -> bool:
    """Whether its runs are of a folder of images that plan counted."""
    for run in runs_in(sweep):
        with contextlib.suppress(UserError):  # status shows it as unreadable
            data = run.config().data
            return isinstance(data, DataConfig) and data.listing is not None
    return False


def _data_of(sweep: Path) -> str | None:
    """The data set of a sweep, which the names table2, table2-smoke and table2-trial leave out."""
    try:
        return read_sweep(sweep).data
    except UserError:
        return None  # damaged: the report says how
