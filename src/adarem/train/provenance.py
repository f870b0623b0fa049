"""What an attempt ran on: commit, versions, hardware, hosts, job. Recorded before the first step."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from adarem.run.machine import cpu_name
from adarem.train.distributed.context import RankContext

_PACKAGES = ("adarem", "torch", "torchvision", "timm", "numpy", "ffcv", "numba", "pytorch_optimizer", "wandb")


class Commit(NamedTuple):
    hash: str | None  # None outside of a checkout: versions["adarem"] says what ran
    dirty: bool | None  # tracked files differ from it


def commit_of(folder: Path) -> Commit:
    """The commit of the checkout that tracks what is in ``folder``: not of one in which a virtual environment lies.

    ``results/`` does not count as a difference: the report writes there, and no run reads it.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
            check=True,
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", "--", "."):
            return Commit(None, None)
        head = git("rev-parse", "HEAD")
        differing = git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)results")
        return Commit(head, bool(differing))
    except (OSError, subprocess.SubprocessError):
        return Commit(None, None)


def slurm_job() -> str | None:
    """``123``, or ``123_4`` for the fourth task of an array; None outside of Slurm."""
    env = os.environ
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env.get("SLURM_JOB_ID")


@dataclass(frozen=True)
class Provenance:
    """The fields are the keys of attempts.jsonl."""

    command: str
    commit: str | None
    dirty: bool | None
    versions: dict[str, str | None]  # of Python and of packages; None for one that is not installed
    host: str  # of rank 0
    hosts: list[str]  # each once
    device: str  # the GPU's name, or "cpu"
    cuda: str | None
    cpu: str
    cpus: int | None
    threads: int  # torch's, of each rank
    world_size: int
    pid: int
    slurm_job: str | None

    @classmethod
    def of(cls, context: RankContext) -> "Provenance":
        """Of this process, which is rank 0."""
        commit = commit_of(Path(__file__).parent)
        cuda = context.device.type == "cuda"
        return cls(
            command=shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
            commit=commit.hash,
            dirty=commit.dirty,
            versions={"python": platform.python_version(), **{p: version_of(p) for p in _PACKAGES}},
            host=context.hosts[0],
            hosts=sorted(set(context.hosts)),
            device=torch.cuda.get_device_name(context.device) if cuda else "cpu",
            cuda=torch.version.cuda if cuda else None,
            cpu=cpu_name(),
            cpus=os.cpu_count(),
            threads=torch.get_num_threads(),
            world_size=context.world_size,
            pid=os.getpid(),
            slurm_job=slurm_job(),
        )

    def to_record(self) -> dict[str, object]:
        return asdict(self)


def version_of(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
