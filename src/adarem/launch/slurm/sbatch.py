"""Submits one job. Where the answer is lost, the job is found in the queue by its name, or known not to be there."""

import secrets
import sys
import time
from collections.abc import Collection, Mapping, Sequence

from adarem.launch.slurm.limits import Refusal, refusal
from adarem.launch.slurm.programs import NoAnswer, call, job_ids
from adarem.launch.slurm.queue import job_named
from adarem.run.errors import UserError

PATIENCE_SECONDS = 200.0  # sbatch tries by itself for two minutes where the controller takes no more jobs
LOOKS_SECONDS = 20.0  # a job whose answer was lost may come into the queue a moment later
_LOOK_EVERY = 2.0


class NotSubmitted(UserError):
    """sbatch did not take a job, or did not say that it did."""

    def __init__(self, message: str, kind: Refusal, said: str) -> None:
        super().__init__(message, retryable=kind in ("full", "unsure"))
        self.kind, self.said = kind, said


def new_token() -> str:
    """What makes the name of a job, and its files, unique."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)


def submit(command: Sequence[str], env: Mapping[str, str], *, known: Collection[str] = ()) -> str:
    """Runs one sbatch line, without a shell, and returns the job's id.

    Args:
        known: other jobs of the same name, whatever became of them.

    Raises:
        NotSubmitted: sbatch refused, which the message quotes, or gave no answer and the queue has no such job.
    """
    name = next(word.removeprefix("--job-name=") for word in command if word.startswith("--job-name="))
    kind: Refusal = "unsure"
    try:
        answer = call(command, patience=PATIENCE_SECONDS, env=env)
    except NoAnswer as e:
        said = str(e)
    else:
        if answer.code == 0:
            if len(ids := job_ids(answer.out.splitlines())) == 1:
                if warnings := answer.err.strip():
                    print(warnings, file=sys.stderr)
                return ids[0]
            said = "sbatch: named no job"
        else:
            said, kind = answer.reason, refusal(answer.err)
    if (job := _look(name, known, LOOKS_SECONDS if kind == "unsure" else 0.0)) is not None:
        return job
    if kind == "unsure":
        line = f"sbatch: no answer ({said}), and the queue has no job {name}; run the same command, which looks first"
    elif kind == "full":
        line = f"sbatch: takes no more jobs now ({said}); run the same command again once some have ended"
    else:
        line = f"sbatch: refused the job ({said}); fix cluster.* of the config"
    raise NotSubmitted(line, kind, said)


def _look(name: str, known: Collection[str], seconds: float) -> str | None:
    end = time.monotonic() + seconds
    while True:
        try:
            found = job_named(name, known)
        except UserError:  # nobody answers: the next launch looks
            found = None
        if found is not None or time.monotonic() >= end:
            return found
        time.sleep(_LOOK_EVERY)
