"""Slurm's programs as stand-ins on PATH."""

import os
from pathlib import Path

import pytest

from adarem.launch.slurm import sbatch
from tests.support.fake_slurm import FakeSlurm


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """They share a queue, and looking for a lost job does not wait."""
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(sbatch, "LOOKS_SECONDS", 0.0)
    return fake
