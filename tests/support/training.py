"""Stops a run, starts its ranks, compares what runs leave."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import torch

from adarem.run.directory import RunDir
from adarem.train.checkpoint import find_newest, load

TIMING = {
    "time",
    "images_per_s",
    "data_wait",
    "seconds_train",
    "seconds_eval",
    "seconds_checkpoint",
    "peak_memory_bytes",
}


def figures(run: RunDir) -> list[dict]:
    return [{k: v for k, v in m.items() if k not in TIMING} for m in run.metrics()]


def final_state(run: RunDir) -> dict:
    state = load(find_newest(run.checkpoints)[0])
    state["training"].pop("seconds")
    return state


def assert_same_bits(a: object, b: object, path: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for k in a:
            assert_same_bits(a[k], b[k], f"{path}.{k}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same_bits(x, y, f"{path}[{i}]")
    else:
        assert a == b, path


class NeverStop:
    signal = None


class StopAtStep:
    """A StopRequest that asks for a stop once the loop has read it ``looks`` times."""

    def __init__(self, looks: int, name: str = "SIGUSR1") -> None:
        self.looks, self.name = looks, name

    @property
    def signal(self) -> str | None:
        self.looks -= 1
        return self.name if self.looks < 0 else None


def torchrun(ranks: int, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Trains on so many ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return subprocess.run(
        [*command, "-m", "adarem", "train", str(path)],
        env=os.environ | {"ADAREM_TOKEN": secrets.token_hex(32)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
