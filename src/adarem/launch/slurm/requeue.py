"""Whether Slurm starts a job again whose ranks have ended. Standard library and yaml only.

slurm/run.sbatch calls ``python -m adarem.launch.slurm.requeue again RUN_DIR EXIT_CODE``: exit code 0 is yes. Before it
starts ranks it calls ``... due RUN_DIR``: exit code 4 says that a rung of a search holds the run back.
"""

import json
import os
import signal
import sys
from pathlib import Path

from adarem.launch.slurm.commands import slurm_folder
from adarem.launch.slurm.queue import is_ending
from adarem.run import exitcodes
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.files import read_json, write_atomically
from adarem.run.halving import place_of
from adarem.run.records import count

HELD_BACK = 4
FAILURES_ALLOWED = 3  # in a row without a new checkpoint
# Slurm's warning kills a rank that has no handler yet, or none any more: scancel repeats it where an array still has
# waiting tasks.
_KILLED_BY_WARNING = 128 + signal.SIGUSR1


def again(run: RunDir, code: int) -> bool:
    """Whether Slurm starts a job again whose ranks ended with exit code ``code``.

    Yes after an interruption, and after a failure as long as fewer than FAILURES_ALLOWED in a row left no new
    checkpoint; after that the run is marked failed. A cancelled job stays cancelled.

    Raises:
        UserError: the count of failures cannot be written.
    """
    count_file = slurm_folder(run.path.parent) / f"{run.path.name}.failures.json"
    final = (exitcodes.OK, exitcodes.DIVERGED, exitcodes.USER_ERROR)
    job = os.environ.get("SLURM_JOB_ID")
    if code in final or run.status() in FINISHED or (job is not None and is_ending(job)):
        count_file.unlink(missing_ok=True)
        return False
    if code in (exitcodes.REQUEUE, _KILLED_BY_WARNING):
        return True
    # srun returns the highest code of all ranks: that of a rank killed because another had ended hides a 75, which the
    # attempts show.
    attempts = run.attempts()
    mark = {
        "checkpoints": sorted(p.name for p in run.checkpoints.glob("[!.]*")),
        "interrupted": sum(a.get("why") == "interrupted" for a in attempts),
    }
    try:
        before = read_json(count_file) or {}
    except UserError:
        before = {}
    failures = (count(before, "failures") or 0) + 1 if before.get("mark") == mark else 1
    if failures < FAILURES_ALLOWED:
        write_atomically(count_file, json.dumps({"failures": failures, "mark": mark}))
        print(f"{run.path}: failed, {failures} of {FAILURES_ALLOWED} times without a new checkpoint; starts again")
        return True
    count_file.unlink(missing_ok=True)
    why = f"failed {failures} times without a new checkpoint"
    if run.locked():  # by a process of another job, whose attempt it is
        print(f"{run.path}: {why}; another process trains it")
        return False
    last = attempts[-1] if attempts else {}
    if attempts and last.get("why") in (None, "failed"):
        attempt, reason = count(last, "attempt") or len(attempts), last.get("detail") or f"exit code {code}"
    else:  # the ranks ended before they recorded an attempt
        attempt, reason = run.start_attempt({"slurm_job": job}), f"exit code {code}"
    run.end_attempt(attempt, "failed", f"{why}; the last time: {reason}")
    print(f"{run.path}: {why}, so it does not start again by itself; fix the cause, then `adarem launch`")
    return False


def held_back(run: RunDir) -> str | None:
    """One line on the rung that keeps a run of a search from training now; None: it may, or training says why not."""
    try:
        place = place_of(run)
    except (UserError, OSError):
        return None
    return None if place is None or place.state in ("due", "finished") else f"{place.text()}{place.waiting()}"


def main(argv: list[str]) -> int:
    """``again``: 0: start the job again; 1: do not, or a UserError that starting again does not fix. ``due``: 0: train;
    HELD_BACK: there is nothing to do now. 2: wrong arguments."""
    if len(argv) == 2 and argv[0] == "due":
        if (line := held_back(RunDir(Path(argv[1])))) is None:
            return 0
        print(f"{argv[1]}: {line}")
        return HELD_BACK
    if len(argv) != 3 or argv[0] != "again" or not argv[2].isdigit():
        print("usage: python -m adarem.launch.slurm.requeue again RUN_DIR EXIT_CODE", file=sys.stderr)
        return exitcodes.USER_ERROR
    try:
        return 0 if again(RunDir(Path(argv[1])), int(argv[2])) else 1
    except UserError as e:  # the failures cannot be counted
        print(f"{argv[1]}: {e}", file=sys.stderr)
        return 0 if e.retryable else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
