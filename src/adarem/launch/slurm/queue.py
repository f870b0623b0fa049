"""What Slurm's queue holds of a sweep."""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from adarem.launch.slurm.commands import job_name, slurm_folder
from adarem.launch.slurm.programs import NoAnswer, call
from adarem.run.errors import UserError
from adarem.run.files import read_file, write_atomically
from adarem.run.sweep import read_names

_REPORT_JOB = "report.job"  # in the sweep's Slurm folder: the id of its newest report job
# Whatever the site hides or a user's settings leave out; the state and its reason come last, since both are optional.
_FORMAT = ("--all", "--format=%F %K %j %T %r")
_GONE = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "REVOKED",
         "OUT_OF_MEMORY")  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A run's job in the queue."""

    id: str  # 12_0
    state: str = "PENDING"  # Slurm's word
    reason: str = ""  # Slurm's word for why it waits; empty where there is none

    @property
    def array(self) -> str:
        return self.id.partition("_")[0]

    @property
    def is_ending(self) -> bool:
        """Its ranks have ended or are about to: no further start is to be expected of it."""
        return self.state in ("COMPLETING", "STAGE_OUT", *_GONE)


def queued(sweep: Path, patience: float = 120.0) -> dict[str, Job]:
    """Runs of a sweep that wait, run or end in Slurm, with their jobs: ``{"resnet18-sgdm-s0": Job("12_0")}``.

    Each submission leaves its list of runs in the sweep's folder, under the name that its job has in the queue: both
    together give the answer, even where the launcher was killed right after sbatch.

    Args:
        patience: seconds to wait for squeue.

    Raises:
        UserError: squeue fails, is not there or does not answer.
    """
    lists = {job_name(sweep, p.stem): p for p in slurm_folder(sweep).glob("*.txt")}
    if not lists:
        return {}
    found: dict[str, Job] = {}
    for line in _squeue(["--array", *_FORMAT, f"--name={','.join(sorted(lists))}"], patience):
        words = line.split()
        if len(words) < 3 or words[2] not in lists or not words[1].isdigit():
            continue  # another's job, or a line of the site's own
        runs = read_names(lists[words[2]])
        if int(words[1]) >= len(runs):
            continue
        name, job = runs[int(words[1])], _job(f"{words[0]}_{words[1]}", words[3:])
        if name not in found or found[name].is_ending:  # one that ends and the one that follows it
            found[name] = job
    return found


def _job(job: str, words: Sequence[str]) -> Job:
    reason = " ".join(words[1:])
    return Job(job, words[0] if words else "PENDING", "" if reason == "None" else reason)


def jobs_named(name: str, *, ended: bool = False) -> dict[str, Job]:
    """The jobs of this name by their id; with ``ended`` also those that Slurm only remembers.

    Raises:
        UserError: as ``queued``.
    """
    found = {}
    states = ["--states=all"] if ended else []
    for line in _squeue([*_FORMAT, *states, f"--name={name}"], 60.0):
        words = line.split()
        if len(words) >= 3 and words[2] == name and words[0].isdigit():
            job = _job(words[0], words[3:])
            if ended or not job.is_ending:
                found[job.id] = job
    return found


def job_named(name: str, known: Collection[str] = ()) -> str | None:
    """The newest job of this name that is not among the ``known`` ones, in whatever state Slurm remembers it.

    Raises:
        UserError: as ``queued``.
    """
    return max(jobs_named(name, ended=True).keys() - set(known), key=int, default=None)


def keep_report_job(sweep: Path, job: str, token: str) -> None:
    """Writes down which job will make the sweep's report; see ``report_job``."""
    write_atomically(slurm_folder(sweep) / _REPORT_JOB, f"{job} {token}")


def report_job(sweep: Path) -> Job | None:
    """The sweep's newest report job, where it is in the queue. Raises UserError when squeue does not answer."""
    try:
        job, _, token = read_file(slurm_folder(sweep) / _REPORT_JOB).decode().strip().partition(" ")
    except FileNotFoundError:
        return None
    # Not by --jobs: squeue fails for an id that it has forgotten. Another sweep's job may have the same name.
    return jobs_named(job_name(sweep, f"report-{token}" if token else "report")).get(job)


def is_ending(job: str) -> bool:
    """Whether Slurm is taking this running job down for another reason than its time limit: after scancel, say."""
    # The id of an array's last task is also the array's: squeue then lists the other tasks too.
    try:
        done = call(["squeue", "--noheader", "--array", f"--jobs={job}", "--format=%A %T %r"])
    except NoAnswer:
        return False
    own = [line.split(maxsplit=2)[1:] for line in done.out.splitlines() if line.split()[:1] == [job]]
    return any(len(words) > 0 and words[0] != "RUNNING" and words[1:] != ["TimeLimit"] for words in own)


def cancel(jobs: Collection[str]) -> bool:
    """Takes jobs out of the queue; False where Slurm does not say that it did."""
    with contextlib.suppress(NoAnswer):
        return not jobs or call(["scancel", *sorted(jobs, key=int)]).code == 0
    return False


def _squeue(arguments: Sequence[str], patience: float) -> list[str]:
    try:
        done = call(["squeue", "--noheader", *arguments], patience=patience)
    except NoAnswer as e:
        raise UserError(f"{e}, so nothing was submitted; rerun the command later") from None
    if done.code:
        raise UserError(f"squeue: {done.reason}, so nothing was submitted; rerun the command later")
    return done.out.splitlines()
