"""Made-up installations: what is missing, too old or does not fit the config."""

import dataclasses
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
    assert packages.ok is False and packages.found == "scipy 1.0, needs >=1.11" and "adarem[harness]" in packages.fix


def test_what_only_ffcv_needs_is_asked_for_where_it_is_read(
    answers: dict[str, Outcome], config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = software.Requirement.installed
    monkeypatch.setattr(software.Requirement, "installed", lambda r: None if r.extra == "ffcv" else real(r))
    monkeypatch.setattr(software.ctypes.util, "find_library", lambda name: None)
    answers["ffcv"] = Outcome(False, "data.backend=ffcv: needs ffcv 1.0.2, found none")
    (packages,) = found(config, "packages")
    assert packages.ok is False and packages.found.startswith("ffcv not installed; numba")
    assert packages.fix.startswith("pip install 'adarem[ffcv]'")
    folder = dataclasses.replace(config, data=dataclasses.replace(config.data, backend="folder"))
    assert found(folder, "packages")[0].ok
    assert found(folder, "ffcv")[0].ok is None and found(folder, "turbojpeg")[0].ok is None


def test_a_package_that_cannot_be_imported_has_a_line_of_its_own(answers: dict[str, Outcome]) -> None:
    wrong = {"scipy": "scipy: cannot be imported (ImportError: x; y); run `a`", "wandb": "wandb: x; y"}
    answers["imports"] = Outcome(True, json.dumps(wrong))
    (scipy,) = found(None, "scipy")
    assert (scipy.ok, scipy.found, scipy.fix) == (False, "cannot be imported (ImportError: x; y)", "run `a`")
    assert not found(None, "imports")
    answers["imports"] = Outcome(False, "crashed with signal 11 at matplotlib")
    assert found(None, "imports")[0].found == "crashed with signal 11 at matplotlib"
