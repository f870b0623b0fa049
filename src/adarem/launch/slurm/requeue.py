"""Whether Slurm starts a job again whose ranks have ended. Standard library and yaml only.

slurm/run.sbatch calls ``python -m adarem.launch.slurm.requeue again RUN_DIR EXIT_CODE``: exit code 0 is yes. Before it
starts ranks it calls ``... due RUN_DIR``: exit code 4 says that there is nothing to start, because a rung of a search
holds the run back, or Slurm has started the job many times and nothing came of it. Where Slurm refuses to start the job
again, it calls ``... refused RUN_DIR REASON``.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from adarem.launch.slurm.commands import refusal_file, slurm_folder
from adarem.launch.slurm.queue import is_ending
from adarem.run import exitcodes, streams
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.files import read_json, write_atomically
from adarem.run.halving import place_of
from adarem.run.records import count

HELD_BACK = 4
FAILURES_ALLOWED = 3  # in a row without a new checkpoint
# Ends of any kind in a row that together bring fewer steps: a job that makes a step at each start, or is warned in its
# first minute each time, would otherwise start for ever.
ENDS_ALLOWED = 10
LEAST_STEPS = 20
# Slurm's warning kills a rank that has no handler yet, or none any more: scancel repeats it where an array still has
# waiting tasks.
_KILLED_BY_WARNING = 128 + signal.SIGUSR1


def again(run: RunDir, code: int) -> bool:
    """Whether Slurm starts a job again whose ranks ended with exit code ``code``.

    Yes after an interruption, and after a failure as long as fewer than FAILURES_ALLOWED in a row left no new
    checkpoint; after that the run is marked failed, and so it is after ENDS_ALLOWED in a row that together brought
    next to nothing. A cancelled job stays cancelled.

    Raises:
        UserError: the count of failures cannot be written.
    """
    counts, job = _Counts(run), os.environ.get("SLURM_JOB_ID")
    final = (exitcodes.OK, exitcodes.DIVERGED, exitcodes.USER_ERROR)
    if not run.config_file.exists():  # removed while it trained: nothing is written in its place
        counts.forget()
        print(f"{run.path}: removed meanwhile, so it does not start again")
        return False
    if code in final or run.status() in FINISHED or (job is not None and is_ending(job)):
        counts.forget()
        return False
    attempts = run.attempts()
    # srun returns the highest code of all ranks: that of a rank killed because another had ended hides a 75, which the
    # attempts show.
    mark: dict[str, object] = {
        "checkpoints": sorted(p.name for p in run.checkpoints.glob("[!.]*")),
        "interrupted": sum(a.get("why") == "interrupted" for a in attempts),
    }
    ends = counts.ends()
    if ends >= ENDS_ALLOWED:
        why = f"started {ends} times in a row with fewer than {LEAST_STEPS} steps in all"
    elif code in (exitcodes.REQUEUE, _KILLED_BY_WARNING):
        return True
    else:
        failures = counts.failures(mark)
        if failures < FAILURES_ALLOWED:
            line = f"{run.path}: failed, {failures} of {FAILURES_ALLOWED} times without a new checkpoint; starts again"
            print(line)
            return True
        why = f"failed {failures} times without a new checkpoint"
    counts.forget()
    _give_up(run, why, f"exit code {code}")
    return False


def _give_up(run: RunDir, why: str, end: str) -> None:
    """Marks a run as failed that does not start again by itself; ``end``: where no attempt says more."""
    if run.locked():  # by a process of another job, whose attempt it is
        print(f"{run.path}: {why}; another process trains it")
        return
    attempts = run.attempts()
    last = attempts[-1] if attempts else {}
    if attempts and last.get("why") in (None, "failed"):
        attempt, reason = count(last, "attempt") or len(attempts), last.get("detail") or end
    else:  # the ranks ended before they recorded an attempt, or in an orderly way
        attempt, reason = run.start_attempt({"slurm_job": _job()}), end
    run.end_attempt(attempt, "failed", f"{why}; the last time: {reason}")
    print(f"{run.path}: {why}, so it does not start again by itself; fix the cause, then `adarem launch`")


def _job() -> str | None:
    """This job as attempts name it: ``12_3`` of an array."""
    env = os.environ
    if "SLURM_ARRAY_JOB_ID" in env and "SLURM_ARRAY_TASK_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env.get("SLURM_JOB_ID")


class _Counts:
    """What a run's jobs came to, in the sweep's Slurm folder; an end for good removes it."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._file = slurm_folder(run.path.parent) / f"{run.path.name}.failures.json"

    def failures(self, mark: Mapping[str, object]) -> int:
        """Counts one more failure; from 1 again where ``mark`` has changed since the last."""
        before = self._read()
        n = _whole(before.get("failures")) + 1 if before.get("mark") == mark else 1
        self._write({**before, "failures": n, "mark": mark})
        return n

    def ends(self) -> int:
        """Counts one more end of whatever kind; from 1 again where enough steps were made since the first."""
        before, steps = self._read(), self._run.checkpointed_steps()
        first = _whole(before.get("ended_from")) if "ended_from" in before else steps
        went_on = steps - first >= LEAST_STEPS
        n = 1 if went_on else _whole(before.get("ends")) + 1
        self._write({**before, "ends": n, "ended_from": steps if went_on else first})
        return n

    def starts(self, job: str, restarts: int) -> int:
        """How often Slurm has started this job since it last brought enough steps."""
        before, steps = self._read(), self._run.checkpointed_steps()
        known = before.get("job") == job and steps - _whole(before.get("started_from")) < LEAST_STEPS
        first = _whole(before.get("first_restart")) if known else restarts
        if not known:
            self._write({**before, "job": job, "first_restart": restarts, "started_from": steps})
        return restarts - first + 1

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)

    def _read(self) -> dict[str, object]:
        try:
            return read_json(self._file) or {}
        except UserError:
            return {}

    def _write(self, record: Mapping[str, object]) -> None:
        write_atomically(self._file, json.dumps(record))


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def nothing_to_start(run: RunDir) -> str | None:
    """One line where a job that Slurm has started is to end at once; None: it trains, or training says why not."""
    refusal_file(run).unlink(missing_ok=True)
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    if (job := _job()) is not None and restarts.isdigit() and run.config_file.exists():
        counts = _Counts(run)
        # Each end that the script sees counts as well, so that only what it does not see is left: its node's end.
        if (starts := counts.starts(job, int(restarts))) > 2 * ENDS_ALLOWED:
            counts.forget()
            why = f"started {starts} times by Slurm with fewer than {LEAST_STEPS} steps in all"
            _give_up(run, why, "no end was recorded")
            return why
    return held_back(run)


def held_back(run: RunDir) -> str | None:
    """One line on the rung that keeps a run of a search from training now; None: it may, or training says why not."""
    try:
        place = place_of(run)
    except (UserError, OSError):
        return None
    return None if place is None or place.state in ("due", "finished") else f"{place.text()}{place.waiting()}"


def refuse(run: RunDir, reason: str) -> None:
    """Keeps what Slurm said to a job that asked to be started again, for `adarem status`."""
    said = "; ".join(line.strip() for line in reason.splitlines() if line.strip()) or "no reason given"
    line = f"Slurm does not start job {_job()} again ({said}); `adarem launch` continues it"
    print(f"{run.path}: {line}")
    if run.config_file.exists():
        write_atomically(refusal_file(run), json.dumps({"job": _job(), "line": line}))


def main(argv: list[str]) -> int:
    """``again``: 0: start the job again; 1: do not, or a UserError that starting again does not fix. ``due``: 0: train;
    HELD_BACK: there is nothing to do now. ``refused``: 0. 2: wrong arguments."""
    try:
        match argv:
            case ["due", path]:
                try:
                    line = nothing_to_start(RunDir(Path(path)))
                except (UserError, OSError) as e:  # what cannot be counted does not keep a run from training
                    print(f"{path}: {e}", file=sys.stderr)
                    line = None
                if line is not None:
                    print(f"{path}: {line}")
                return 0 if line is None else HELD_BACK
            case ["again", path, code] if code.isdigit():
                return 0 if again(RunDir(Path(path)), int(code)) else 1
            case ["refused", path, reason]:
                refuse(RunDir(Path(path)), reason)
                return 0
    except UserError as e:  # the failures cannot be counted
        print(f"{argv[1]}: {e}", file=sys.stderr)
        return 0 if e.retryable else 1
    print("usage: python -m adarem.launch.slurm.requeue again RUN_DIR EXIT_CODE", file=sys.stderr)
    return exitcodes.USER_ERROR


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
