"""What Slurm is told and asked: sbatch lines, the queue, and whether a job that ended starts again.

Standard library only.
slurm/run.sbatch calls ``python -m adarem.launch.slurm.jobs again RUN_DIR EXIT_CODE`` once its ranks are gone.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from adarem.resources import slurm_script
from adarem.run import exitcodes
from adarem.run.config import ClusterConfig
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.files import write_atomically

_REPORT_JOB = "report.job"  # in the campaign's folder: the id of its newest report job
FAILURES_ALLOWED = 3  # in a row without a new checkpoint
# A warning that meets a rank before it listens, or when it has just stopped: Slurm may send several (scancel repeats it
# where an array still has waiting tasks).
_KILLED_BY_WARNING = 128 + signal.SIGUSR1


def folder(campaign: Path) -> Path:
    """Where a campaign keeps what it handed to Slurm: array lists, job logs, counts of failures."""
    return campaign / "slurm"


def job_name(campaign: Path, suffix: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=+-]+", "_", f"{campaign.name}-{suffix}")


def _output(campaign: Path, pattern: str) -> str:
    logs = str(folder(campaign))
    if "\\" in logs:  # a backslash switches Slurm's patterns off
        raise UserError(f"{logs}: Slurm cannot write logs to a path with a backslash; choose another runs_dir")
    return f"--output={logs.replace('%', '%%')}/{pattern}"


def _site(cluster: ClusterConfig, auxiliary: bool) -> list[str]:
    """Where a job goes and what the site wants; ``auxiliary`` jobs (prepare, report) need no GPU."""
    partition = cluster.aux_partition or cluster.partition if auxiliary else cluster.partition
    asked = [("partition", partition), ("account", cluster.account)]
    extra = cluster.aux_extra if auxiliary else cluster.extra
    return [*(f"--{flag}={value}" for flag, value in asked if value), *extra]


def array_command(campaign: Path, token: str, cells: int, cluster: ClusterConfig, after: str | None) -> list[str]:
    """The sbatch line of one array of ``cells`` runs; ``after`` is the id of the job that prepares the data."""
    limit = f"%{cluster.max_parallel}" if cluster.max_parallel else ""
    return [
        "sbatch",
        "--parsable",
        f"--job-name={job_name(campaign, token)}",
        f"--array=0-{cells - 1}{limit}",
        f"--nodes={cluster.nodes}",
        f"--ntasks-per-node={cluster.ranks_per_node}",
        # run.sbatch asks for GPUs by itself; 0 takes that back
        f"--gpus-per-node={cluster.ranks_per_node if cluster.device == 'cuda' else 0}",
        f"--cpus-per-task={cluster.cpus_per_rank}",
        *([f"--time={cluster.time}"] if cluster.time else []),
        _output(campaign, "%A_%a.out"),
        *([f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"] if after else []),
        *_site(cluster, auxiliary=False),
        str(slurm_script("run.sbatch")),
        str(array_list(campaign, token)),
    ]


def prepare_command(campaign: Path, run: RunDir, key: str, cluster: ClusterConfig) -> list[str]:
    """The job that writes the run's data; of the jobs with the same ``key`` (one data set) one runs at a time."""
    return [
        "sbatch",
        "--parsable",
        f"--job-name=adarem-prepare-{key}",
        "--dependency=singleton",
        f"--cpus-per-task={cluster.cpus_per_rank * cluster.ranks_per_node}",
        _output(campaign, "prepare-%j.out"),
        *_site(cluster, auxiliary=True),
        str(slurm_script("prepare.sbatch")),
        str(run.path),
    ]


def report_command(campaign: Path, arguments: list[str], cluster: ClusterConfig, after: list[str]) -> list[str]:
    """The job that makes the tables once every job in ``after``, if any, has ended, well or not."""
    return [
        "sbatch",
        "--parsable",
        f"--job-name={job_name(campaign, 'report')}",
        *([f"--dependency=afterany:{':'.join(after)}"] if after else []),
        _output(campaign, "report-%j.out"),
        *_site(cluster, auxiliary=True),
        str(slurm_script("report.sbatch")),
        *arguments,
    ]


def submit(command: list[str], env: dict[str, str]) -> str:
    """Runs one sbatch line, without a shell, and returns the job's id.

    Raises:
        UserError: sbatch refused; the message holds its words.
    """
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"sbatch refused the job ({'; '.join(words)}); see cluster.* in the config")
    return done.stdout.strip().split(";")[0]  # "id" or "id;cluster"


def array_list(campaign: Path, token: str) -> Path:
    """The file that maps an array's tasks to runs: the name of one cell a line."""
    return folder(campaign) / f"{token}.txt"


def queued(campaign: Path, patience: float = 120.0) -> dict[str, str]:
    """Cells of a campaign that wait or run in Slurm's queue, with their job: ``{"resnet18-sgdm-s0": "12_0"}``.

    Every submission leaves its list of cells in the campaign's folder, under the name that its job has in the queue:
    the two together tell, even when the launcher died right after sbatch.

    Args:
        patience: seconds to wait for squeue.

    Raises:
        UserError: squeue does not answer, so that nobody can tell.
    """
    lists = {job_name(campaign, p.stem): p for p in folder(campaign).glob("*.txt")}
    if not lists:
        return {}
    cells = {}
    for line in _squeue(["--array", "--format=%F %K %j", f"--name={','.join(sorted(lists))}"], patience):
        job, task, name = line.split(maxsplit=2)
        if name in lists and task.isdigit():
            names = lists[name].read_text().splitlines()
            cells[names[int(task)]] = f"{job}_{task}"
    return cells


def note_report(campaign: Path, job: str) -> None:
    """Keeps which job will make the report; see ``report_waits``."""
    write_atomically(folder(campaign) / _REPORT_JOB, job)


def report_waits(campaign: Path) -> bool:
    """Whether the campaign's newest report job is in the queue. Raises UserError when squeue does not answer."""
    try:
        job = (folder(campaign) / _REPORT_JOB).read_text()
    except FileNotFoundError:
        return False
    # Not by --jobs: squeue takes an id that it has forgotten for a mistake. The name alone may be another campaign's.
    lines = _squeue(["--format=%F %K %j", f"--name={job_name(campaign, 'report')}"], 120.0)
    return any(line.split()[0] == job for line in lines)


def _squeue(arguments: list[str], patience: float) -> list[str]:
    ask = ["squeue", "--noheader", *arguments]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"squeue does not answer within {patience:.0f} s; nothing was submitted, try again later"
        ) from None
    if done.returncode:
        raise UserError(f"squeue: {done.stderr.strip()}; nothing was submitted, try again when Slurm answers")
    return done.stdout.splitlines()


def again(run: RunDir, code: int) -> bool:
    """Whether Slurm shall start a job again whose ranks ended with ``code``.

    Yes after an interruption, and after a failure as long as fewer than FAILURES_ALLOWED in a row left no new
    checkpoint; then the run is marked failed. A job that somebody cancelled stays cancelled.
    """
    count_file = folder(run.path.parent) / f"{run.path.name}.failures.json"
    final = (exitcodes.OK, exitcodes.DIVERGED, exitcodes.USER_ERROR)
    if code in final or run.status() in FINISHED or _cancelled():
        count_file.unlink(missing_ok=True)
        return False
    if code in (exitcodes.REQUEUE, _KILLED_BY_WARNING):
        return True
    # srun reports the highest code of all ranks: one killed because another had ended hides a 75. The attempts tell.
    attempts = run.attempts()
    mark = {
        "checkpoints": sorted(p.name for p in run.checkpoints.glob("[!.]*")),
        "interrupted": sum(a.get("why") == "interrupted" for a in attempts),
    }
    try:
        before = json.loads(count_file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        before = {}
    failures = before.get("failures", 0) + 1 if before.get("mark") == mark else 1
    if failures < FAILURES_ALLOWED:
        write_atomically(count_file, json.dumps({"failures": failures, "mark": mark}))
        print(f"{run.path}: failed, {failures} of {FAILURES_ALLOWED} times without a new checkpoint; starts again")
        return True
    count_file.unlink(missing_ok=True)
    why = f"failed {failures} times without a new checkpoint"
    if run.locked():  # by a process of another job, whose attempt it is
        print(f"{run.path}: {why}; another process works on it")
        return False
    last = attempts[-1] if attempts else {}
    if last.get("why") in (None, "failed") and attempts:
        number, reason = last["attempt"], last.get("detail") or f"exit code {code}"
    else:  # the ranks that failed did not come as far as to say so
        number, reason = run.start_attempt({"slurm_job": os.environ.get("SLURM_JOB_ID")}), f"exit code {code}"
    run.end_attempt(number, "failed", f"{why}; the last time: {reason}")
    print(f"{run.path}: {why}; does not start again by itself: mend the cause, then `adarem launch`")
    return False


def _cancelled() -> bool:
    """True when this job is already being taken down: requeueing would bring back what somebody cancelled."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return False
    # The id of an array's last task is the array's too: squeue then tells of the other tasks as well.
    done = subprocess.run(
        ["squeue", "--noheader", "--array", f"--jobs={job}", "--format=%A %T %r"], capture_output=True, text=True
    )
    told = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines() if line.split()[:1] == [job]]
    return any(state != "RUNNING" and reason != ["TimeLimit"] for state, *reason in told)


def main(argv: list[str]) -> int:
    if len(argv) != 3 or argv[0] != "again" or not argv[2].isdigit():
        print("usage: python -m adarem.launch.slurm.jobs again RUN_DIR EXIT_CODE", file=sys.stderr)
        return exitcodes.USER_ERROR
    try:
        return 0 if again(RunDir(Path(argv[1])), int(argv[2])) else 1
    except UserError as e:  # failures cannot be counted there
        print(f"{argv[1]}: {e}", file=sys.stderr)
        return 0 if e.retryable else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
