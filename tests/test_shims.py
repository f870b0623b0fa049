"""The module paths of version 0.1 that queued jobs and running processes call; version 0.3 drops them."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adarem.run import exitcodes
from adarem.run.directory import RunDir
from tests.support import ROOT
from tests.support.sweeps import make_config, write_grid
from tests.support.warm import Forked
from tests.test_layers import SHIMS, SRC


def run_module(module: str, *arguments: str) -> None:
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def call(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m``, in a process that has torch already."""
    process = Forked(run_module, module, *arguments)
    out, err = process.communicate()
    return subprocess.CompletedProcess([module, *arguments], process.returncode or 0, out, err)


def test_every_shim_is_one_call_and_names_the_version_that_drops_it() -> None:
    for name in SHIMS:
        text = (SRC / f"{name}.py").read_text()
        assert len(text.splitlines()) == 5 and "runpy.run_module(" in text and "goes with version 0.3" in text


@pytest.mark.parametrize(("code", "starts"), [(exitcodes.REQUEUE, 0), (exitcodes.USER_ERROR, 1)])
def test_slurm_again(tmp_path: Path, code: int, starts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """slurm/run.sbatch of 0.1 asks whether the job starts again."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    config = make_config("resnet18", "sgdm")
    run = RunDir(write_grid(tmp_path) / config.run_name)
    run.freeze(config)
    assert call("adarem.slurm", "again", str(run.path), str(code)).returncode == starts


def test_torchrun() -> None:
    done = call("adarem.torchrun", "--standalone", "--nproc-per-node=1", "-c", "exit(3)")
    assert done.returncode == exitcodes.DIVERGED and "Traceback" not in done.stderr


def test_mirror(tmp_path: Path) -> None:
    done = call("adarem.mirror", str(tmp_path / "run"))
    assert done.returncode == 1 and "no config.yaml there" in done.stderr


def test_models() -> None:
    assert call("adarem.models", "torchvision:resnet18").returncode == 0
    done = call("adarem.models", "torchvision:resnet19")
    assert done.returncode != 0 and "torchvision:resnet19" in done.stderr


def test_probes() -> None:
    done = call("adarem.probes", "torch")
    assert done.returncode == 0 and torch.__version__ in done.stdout


def test_the_docs_list_every_shim_with_its_new_path() -> None:
    lines = (ROOT / "docs" / "cluster.md").read_text().splitlines()
    for name in SHIMS:
        target = re.search(r'run_module\("([\w.]+)"', (SRC / f"{name}.py").read_text())
        assert target and any(f"python -m adarem.{name}" in line and f"`{target[1]}`" in line for line in lines)
