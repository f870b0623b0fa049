"""Runs whose newest job left the queue before any rank began an attempt: the run's own files say nothing of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from adarem.launch.slurm.commands import array_list, slurm_folder
from adarem.launch.slurm.programs import NoAnswer, call
from adarem.launch.slurm.queue import Job
from adarem.run.directory import RunDir
from adarem.run.files import read_file
from adarem.run.records import number, text
from adarem.run.sweep import read_names


class Ended(NamedTuple):
    """What became of such a job."""

    job: str
    started: bool  # it had nodes
    line: str


class _Task(NamedTuple):
    job: str  # 12_0
    submitted: float


def ended_without_attempt(
    sweep: Path, runs: Sequence[RunDir], queue: Mapping[str, Job], patience: float
) -> dict[str, Ended]:
    """By name those of the runs whose newest job is not in the queue and has begun no attempt.

    Args:
        runs: that have not ended well.
        queue: of the sweep's runs in Slurm.
        patience: seconds to wait for sacct, without whose answer the jobs' logs decide.
    """
    newest = _newest(sweep)
    found: dict[str, str] = {}
    for run in runs:
        task = newest.get(run.path.name)
        if task is None or run.path.name in queue:
            continue
        attempts = run.attempts()
        of_job = any(text(a, "slurm_job") == task.job for a in attempts)
        if not of_job and not any((number(a, "start") or 0.0) > task.submitted for a in attempts):
            found[run.path.name] = task.job
    states = _accounted(sorted(found.values()), patience) if found else {}
    lines = {name: _ended(sweep, job, states) for name, job in found.items()}
    return {name: ended for name, ended in lines.items() if ended is not None}


def _newest(sweep: Path) -> dict[str, _Task]:
    """The newest task of each run, of the arrays whose ids were kept."""
    found: dict[str, _Task] = {}
    for kept in sorted(slurm_folder(sweep).glob("*.array"), key=lambda p: p.stat().st_mtime):
        try:
            job, names = read_file(kept).decode().strip(), read_names(array_list(sweep, kept.stem))
        except (OSError, ValueError):
            continue
        for i, name in enumerate(names):
            found[name] = _Task(f"{job}_{i}", kept.stat().st_mtime)
    return found


class _Accounted(NamedTuple):
    state: str
    exit_code: str


def _accounted(jobs: Sequence[str], patience: float) -> dict[str, _Accounted]:
    """What sacct has of tasks; nothing where it is not there or does not answer."""
    arrays = sorted({job.partition("_")[0] for job in jobs}, key=int)
    command = ["sacct", f"--jobs={','.join(arrays)}", "--allocations", "--parsable2", "--noheader",
               "--format=JobID,State,ExitCode"]  # fmt: skip
    try:
        answer = call(command, patience=patience)
    except NoAnswer:
        return {}
    rows = [line.split("|") for line in answer.out.splitlines()] if answer.code == 0 else []
    return {r[0]: _Accounted((r[1].split() or [""])[0], r[2].partition(":")[0]) for r in rows if len(r) == 3}


def _ended(sweep: Path, job: str, states: Mapping[str, _Accounted]) -> Ended | None:
    log = slurm_folder(sweep) / f"{job}.out"
    known, see = states.get(job), f"; see {log}" if log.exists() else ""
    again = "`adarem launch` submits it again"
    if known is None:
        if see:
            return Ended(job, True, f"job {job} ended before its first attempt{see}")
        reason = f"cancelled, or its data were not written (see {slurm_folder(sweep)}/prepare-*.out)"
        return Ended(job, False, f"job {job} left the queue and never started: {reason}; {again}")
    if known.state == "COMPLETED" or known.state in ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "SUSPENDED"):
        return None  # there was nothing to do for it; or the two answers are not of the same moment
    if known.state == "CANCELLED" and not see:
        return Ended(job, False, f"job {job} was cancelled before it started; {again}")
    code = f", exit code {known.exit_code}" if known.exit_code not in ("", "0") else ""
    return Ended(job, True, f"job {job} ended before its first attempt ({known.state}{code}){see}")
