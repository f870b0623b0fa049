"""What Slurm's queue holds of a sweep."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from adarem.launch.slurm.commands import job_name, slurm_folder
from adarem.run.errors import UserError
from adarem.run.files import write_atomically

_REPORT_JOB = "report.job"  # in the sweep's Slurm folder: the id of its newest report job


def queued(sweep: Path, patience: float = 120.0) -> dict[str, str]:
    """Runs of a sweep that wait or run in Slurm, with their jobs: ``{"resnet18-sgdm-s0": "12_0"}``.

    Each submission leaves its list of runs in the sweep's folder, under the name that its job has in the queue: both
    together give the answer, even where the launcher was killed right after sbatch.

    Args:
        patience: seconds to wait for squeue.

    Raises:
        UserError: squeue fails or does not answer.
    """
    lists = {job_name(sweep, p.stem): p for p in slurm_folder(sweep).glob("*.txt")}
    if not lists:
        return {}
    found = {}
    for line in _squeue(["--array", "--format=%F %K %j", f"--name={','.join(sorted(lists))}"], patience):
        job, task, name = line.split(maxsplit=2)
        if name in lists and task.isdigit():
            runs = lists[name].read_text(encoding="utf-8").splitlines()
            found[runs[int(task)]] = f"{job}_{task}"
    return found


def keep_report_job(sweep: Path, job: str) -> None:
    """Writes down which job will make the sweep's report; see ``report_is_queued``."""
    write_atomically(slurm_folder(sweep) / _REPORT_JOB, job)


def report_is_queued(sweep: Path) -> bool:
    """Whether the sweep's newest report job is in the queue. Raises UserError when squeue does not answer."""
    try:
        job = (slurm_folder(sweep) / _REPORT_JOB).read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    # Not by --jobs: squeue fails for an id that it has forgotten. Another sweep's job may have the same name.
    lines = _squeue(["--format=%F %K %j", f"--name={job_name(sweep, 'report')}"], 120.0)
    return any(line.split()[0] == job for line in lines)


def is_ending(job: str) -> bool:
    """Whether Slurm is taking this running job down for another reason than its time limit: after scancel, say."""
    # The id of an array's last task is also the array's: squeue then lists the other tasks too.
    done = subprocess.run(
        ["squeue", "--noheader", "--array", f"--jobs={job}", "--format=%A %T %r"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    own = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines() if line.split()[:1] == [job]]
    return any(state != "RUNNING" and reason != ["TimeLimit"] for state, *reason in own)


def _squeue(arguments: Sequence[str], patience: float) -> list[str]:
    command = ["squeue", "--noheader", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=patience)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"squeue: no answer within {patience:.0f} s, so nothing was submitted; rerun the command later"
        ) from None
    if done.returncode:
        raise UserError(f"squeue: {done.stderr.strip()}, so nothing was submitted; rerun the command later")
    return done.stdout.splitlines()
