"""What Slurm's accounting has of a sweep's jobs, into the sweep's folder, where the report finds it.

slurm/report.sbatch calls ``python -m adarem.launch.slurm.accounting SWEEP``, and each launch asks as well. A cluster
without accounting leaves no file.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from adarem.launch.slurm.commands import job_name, slurm_folder
from adarem.launch.slurm.programs import NoAnswer, call
from adarem.run import streams
from adarem.run.errors import UserError
from adarem.run.files import read_file, write_atomically
from adarem.run.records import text
from adarem.run.spent import JobRecord, write_accounting
from adarem.run.sweep import read_names, runs_in

PATIENCE_SECONDS = 60.0
_FIELDS = ("JobID", "JobName", "State", "Start", "ElapsedRaw", "AllocCPUS", "AllocTRES")
_JOB = re.compile(r"(\d+)_(\d+)")
_GPUS = re.compile(r"(?:^|,)gres/gpu(:[^=,]+)?=(\d+)")


def keep_array_job(sweep: Path, token: str, job: str) -> None:
    """Writes down which job an array became, next to its list of runs."""
    write_atomically(_array_job(sweep, token), job)


def _array_job(sweep: Path, token: str) -> Path:
    return slurm_folder(sweep) / f"{token}.array"


def write_down(sweep: Path) -> int:
    """Asks Slurm for all jobs of a sweep and writes what it says.

    Returns:
        The number of records; 0, and no file, where there is no job, no sacct, or no answer.
    """
    jobs = _jobs(sweep)
    try:
        records = _ask(sweep, jobs) if jobs else []
    except NoAnswer:
        return 0
    if records:
        write_accounting(sweep, records)
    return len(records)


def _jobs(sweep: Path) -> dict[str, str]:
    """The sweep's jobs: those of its arrays, and those that attempts recorded (of arrays whose id was not kept)."""
    found = {}
    for file in slurm_folder(sweep).glob("*.array"):
        found[read_file(file).decode(errors="replace").strip()] = ""
    for run in runs_in(sweep):
        for attempt in run.attempts():
            if job := text(attempt, "slurm_job"):
                found.setdefault(job.split("_")[0], run.path.name if "_" not in job else "")
    return {job: run for job, run in found.items() if job.isdigit()}


def _ask(sweep: Path, jobs: Mapping[str, str]) -> list[JobRecord]:
    """Raises NoAnswer where there is no sacct, or it fails or does not answer."""
    command = ["sacct", f"--jobs={','.join(sorted(jobs, key=int))}", "--allocations", "--duplicates", "--parsable2",
               "--noheader", f"--format={','.join(_FIELDS)}"]  # fmt: skip
    done = call(command, patience=PATIENCE_SECONDS)
    if done.code:
        raise NoAnswer(done.reason)
    lists = {job_name(sweep, p.stem): p for p in slurm_folder(sweep).glob("*.txt")}
    names: dict[str, list[str]] = {}
    records = []
    for line in done.out.splitlines():
        fields = line.split("|")
        if len(fields) != len(_FIELDS):
            continue
        job, name, state, start, elapsed, cpus, tres = fields
        if name in lists and name not in names:
            names[name] = read_names(lists[name])
        run = _run_of(job, names.get(name, ()), jobs)
        if run and elapsed.isdigit() and int(elapsed):  # a task that waits has taken nothing
            state_word = (state.split() or [""])[0]  # of "CANCELLED by 1000"
            records.append(
                JobRecord(run, job, state_word, start, float(elapsed), _gpus(tres), int(cpus) if cpus.isdigit() else 0)
            )
    return sorted(records, key=lambda r: (r.run, r.start))


def _run_of(job: str, of_array: Sequence[str], jobs: Mapping[str, str]) -> str:
    """The run that a task of an array trains, or a job by hand; empty for any other."""
    if match := _JOB.fullmatch(job):
        task = int(match[2])
        return of_array[task] if task < len(of_array) else ""
    return jobs.get(job, "")


def _gpus(tres: str) -> int:
    """Of ``cpu=64,gres/gpu=8,gres/gpu:h100=8``: 8. Some sites have the typed count alone."""
    found = {kind or "": int(number) for kind, number in _GPUS.findall(tres)}
    return found[""] if "" in found else sum(found.values())


def main(argv: list[str]) -> int:
    """Always 0: a report without Slurm's accounting is one all the same."""
    try:
        write_down(Path(argv[0]))
    except (UserError, OSError) as e:
        print(f"accounting: {e}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
