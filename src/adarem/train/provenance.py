"""What an attempt ran on: commit, versions, hardware, hosts, job. Recorded before the first step."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from adarem.train.distributed.context import World

_PACKAGES = ("adarem", "torch", "torchvision", "timm", "numpy", "ffcv", "numba", "pytorch_optimizer", "wandb")


def commit_of(folder: Path) -> tuple[str | None, bool | None]:
    """The checkout's commit, and whether tracked files differ from it; (None, None) outside of a checkout.

    ``results/`` does not count: the report writes there, and no run reads it.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(
            git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", ":(top,exclude)results")
        )
    except (OSError, subprocess.SubprocessError):
        return None, None


def slurm_job() -> str | None:
    """``123`` or ``123_4`` for the fourth task of an array; None outside of Slurm."""
    env = os.environ
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env.get("SLURM_JOB_ID")


def describe_attempt(world: World) -> dict[str, Any]:
    """One JSON-able record, as attempts.jsonl keeps it."""
    commit, dirty = commit_of(Path(__file__).parent)
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    cuda = world.device.type == "cuda"
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version(), **versions},
        "host": world.hosts[0],
        "hosts": sorted(set(world.hosts)),
        "device": torch.cuda.get_device_name(world.device) if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "world_size": world.world_size,
        "pid": os.getpid(),
        "slurm_job": slurm_job(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
