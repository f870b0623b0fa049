"""What runs took: Slurm's accounting, ``accounting.json`` in a sweep's folder, else the attempts that runs record."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adarem.run.build import build
from adarem.run.errors import UserError
from adarem.run.files import read_json, write_atomically
from adarem.run.records import JsonRecord, count, number

FORMAT = 1


@dataclass(frozen=True)
class JobRecord:
    """One start of a job that trained a run, as Slurm accounts for it; a job that is requeued has several."""

    run: str  # its name
    job: str  # 12_3: the task of an array
    state: str  # COMPLETED, TIMEOUT, REQUEUED, ...
    start: str  # as Slurm writes it
    seconds: float  # of the wall clock
    gpus: int
    cpus: int


@dataclass(frozen=True)
class Spent:
    """On one run."""

    seconds: float  # of the wall clock, over all starts
    device_hours: float  # of GPUs, else of ranks
    by_slurm: bool
    open: int = 0  # attempts that recorded no end and are not counted


def accounting_file(sweep: Path) -> Path:
    return sweep / "accounting.json"


def write_accounting(sweep: Path, jobs: Sequence[JobRecord]) -> None:
    """Writes the file; what is there of before is replaced."""
    records = [dataclasses.asdict(job) for job in jobs]
    write_atomically(accounting_file(sweep), json.dumps({"format": FORMAT, "jobs": records}, indent=1) + "\n")


def read_accounting(sweep: Path) -> dict[str, list[JobRecord]]:
    """The starts of each run, by its name; empty where Slurm was not asked.

    Raises:
        UserError: the file is damaged or of another format.
    """
    path = accounting_file(sweep)
    raw = read_json(path)
    if raw is None:
        return {}
    jobs = raw.get("jobs")
    remedy = "remove it; `adarem launch` asks Slurm again"
    if raw.get("format") != FORMAT or not isinstance(jobs, list):
        raise UserError(f"{path}: not an accounting of format {FORMAT}; {remedy}")
    found: dict[str, list[JobRecord]] = {}
    try:
        for job in jobs:
            record = build(JobRecord, job)
            found.setdefault(record.run, []).append(record)
    except UserError as e:
        raise UserError(f"{path}: {e}; {remedy}") from None
    return found


def spent(jobs: Sequence[JobRecord], attempts: Iterable[JsonRecord], ranks: int) -> Spent | None:
    """What a run took; None where neither Slurm nor the run has a record of it.

    Args:
        jobs: Slurm's records of the run.
        attempts: the run's own, which count where Slurm has none.
        ranks: as the config has them, for records that do not say.
    """
    if jobs:
        hours = sum(job.seconds / 3600 * (job.gpus or ranks) for job in jobs)
        return Spent(sum(job.seconds for job in jobs), hours, by_slurm=True)
    seconds, hours, ended, unended = 0.0, 0.0, 0, 0
    for attempt in attempts:
        begin, end = number(attempt, "start"), number(attempt, "end")
        if begin is None or end is None or end < begin:
            unended += 1
            continue
        ended += 1
        seconds += end - begin
        hours += (end - begin) / 3600 * (count(attempt, "world_size") or ranks)
    return Spent(seconds, hours, by_slurm=False, open=unended) if ended else None
