"""Calls of Slurm's programs: nothing of the caller's environment steers them, and none waits for ever.

Standard library only.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

PATIENCE_SECONDS = 120.0

# Which Slurm, and as whom: these say where the question goes, not what it is.
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_SACK_KEY", "SLURM_SACK_JWKS"})
# Options in disguise, and what an enclosing job or step left: of Slurm, its plugins, MPI, torchrun and a run's ranks.
_STEERING = re.compile(
    r"_?(SLURMD?|SBATCH|SALLOC|SRUN|SQUEUE|SACCT|SACCTMGR|SINFO|SCANCEL|SCONTROL|SPRIO|SSHARE|SPANK|PMI|PMIX|PMI2|OMPI|"
    r"TORCHELASTIC|GROUP|ROLE)_.*|RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT|"
    r"ADAREM_(RANKS|LOCKS|TOKEN|PYTHON|SETUP|SWEEP|PUBLISH)|"
    r"(CUDA|ROCR|HIP|ZE)_(VISIBLE_DEVICES|AFFINITY_MASK)|GPU_DEVICE_ORDINAL|NVIDIA_VISIBLE_DEVICES"
)
# Of these a user may expect that they hold: defaults that people export in their shell's profile.
_DEFAULTS = re.compile(r"SBATCH_(ACCOUNT|PARTITION|QOS|TIMELIMIT|CONSTRAINT|RESERVATION|GRES|GPUS\w*|MEM\w*|EXCLUSIVE)")


class Answer(NamedTuple):
    """What a program printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def reason(self) -> str:
        """Its complaint in one line."""
        return "; ".join(self.err.strip().splitlines()) or f"exit code {self.code}"


class NoAnswer(Exception):
    """A program is not there or does not answer; the message says which."""


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """An environment for Slurm's programs, and for the jobs that inherit it, without what would steer them."""
    return {k: v for k, v in given.items() if k in _KEPT or not _STEERING.fullmatch(k)}


def ignored(given: Mapping[str, str]) -> list[str]:
    """The variables, sorted, whose loss a user may notice: ``SBATCH_ACCOUNT``."""
    return sorted(k for k in given if _DEFAULTS.fullmatch(k))


def call(command: Sequence[str], *, patience: float = PATIENCE_SECONDS, env: Mapping[str, str] | None = None) -> Answer:
    """Runs one of Slurm's programs, or a site's wrapper of it, without a shell and without input.

    Args:
        env: what its jobs inherit, which is cleaned; None: it has no jobs, and answers in plain English.

    Raises:
        NoAnswer: it is not there, or does not end within ``patience`` seconds, after which it is killed.
    """
    cleaned = {**environment(os.environ), "LC_ALL": "C.UTF-8"} if env is None else environment(env)
    try:
        process = subprocess.Popen(
            list(command), env=cleaned, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except OSError as e:
        raise NoAnswer(f"{command[0]}: cannot be started ({e.strerror})") from None
    with process:
        try:
            out, err = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"{command[0]}: no answer within {patience:.0f} s") from None
        finally:
            if process.poll() is None:  # a wrapper's children hold the pipes as well
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return Answer(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


def job_ids(lines: Iterable[str]) -> list[str]:
    """The ids, each once, that ``sbatch --parsable`` printed, ``12`` or ``12;cluster``, among a site's own lines."""
    found = (re.fullmatch(r"\s*(\d+)(;[\w.-]+)?\s*", line) for line in lines)
    return list(dict.fromkeys(match[1] for match in found if match))
