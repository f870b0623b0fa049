"""Made-up installations: what is missing, too old or does not fit the config."""

import json
import os
from pathlib import Path

import pytest

from adarem.doctor import software
from adarem.doctor.check import Outcome
from adarem.run.config import RunConfig
from tests.support.doctor import TORCH, found, on
from tests.support.launching import executable


def test_torch_that_the_driver_is_too_old_for(
    answers: dict[str, Outcome], config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    executable(tmp_path / "nvidia-smi", "#!/bin/sh\necho 535.1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (gpu,) = found(on(config, device="cuda"), "gpu")
    assert gpu.ok is False and "driver 535.1 does not run CUDA 13.0" in gpu.fix
    assert found(config, "gpu")[0].ok is None  # the rehearsal needs no GPU


def test_fewer_gpus_than_ranks(answers: dict[str, Outcome], config: RunConfig) -> None:
    answers["torch"] = Outcome(True, json.dumps(TORCH | {"gpus": ["H100"] * 4}))
    (gpu,) = found(on(config, device="cuda", ranks_per_node=8), "gpu")
    assert gpu.ok is False and gpu.fix == "cluster.ranks_per_node=4"
    assert found(on(config, device="cuda", ranks_per_node=4), "gpu")[0].ok


def test_missing_and_outdated_packages(answers: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    real = software.importlib.metadata.version
    monkeypatch.setattr(software.importlib.metadata, "version", lambda name: "1.0" if name == "scipy" else real(name))
    (packages,) = found(None, "packages")
    assert packages.ok is False and packages.found == "scipy 1.0, needs >=1.11" and "make setup" in packages.fix
