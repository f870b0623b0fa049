import json
import sys
from pathlib import Path

import pytest

from adarem.launch import preparation
from adarem.plan.plan import Plan, make_plan
from adarem.run.directory import RunDir
from tests.support.launching import NASTY, STUB, executable, moved, order
from tests.support.sweeps import diverge, finish, make_config, start, write_epochs, write_grid


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = tmp_path_factory.mktemp("digits")
    return make_plan(["grid=table2", "data=digits", "scale=smoke", "optimizer=sgdm,adam,adarem", f"data.root={root}"])


@pytest.fixture
def plan(composed: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Three runs under a folder with a hostile name; the python that launch starts is a stub, the data are prepared."""
    stub = executable(tmp_path / "python", f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    monkeypatch.setattr(sys, "executable", str(stub))
    monkeypatch.setattr(preparation, "is_prepared", lambda data: True)
    return moved(composed, tmp_path / NASTY)


@pytest.fixture(scope="session")
def composed_search(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = tmp_path_factory.mktemp("digits")
    words = ("grid=table2_search", "data=digits", "optimizer=sgdm", "grid.draw.trials=4", "scale.epochs=8")
    return make_plan([*words, "grid.halving={rungs: [2, 4], keep: 1/2}", f"data.root={root}"])


@pytest.fixture
def search(composed_search: Plan, plan: Plan) -> Plan:
    """Four trials with rungs after 2 and 4 of 8 epochs, of which 4, 2 and 1 get there; the last one is the best."""
    moved_plan = moved(composed_search, plan.runs_dir)
    order(moved_plan, *["search"] * 4)
    for i, planned in enumerate(moved_plan.runs):
        (planned.run.path / "stub.json").write_text(json.dumps({"do": "search", "figure": 10.0 * i}))
    return moved_plan


@pytest.fixture
def run(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """The directory of one planned run, outside of any Slurm job."""
    for key in ("SLURM_JOB_ID", "SLURM_CONF"):
        monkeypatch.delenv(key, raising=False)
    plan.write()
    return plan.runs[0].run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A folder of four runs, made up: done, diverged, running and planned."""
    folder = write_grid(tmp_path / "runs")
    finish(folder, make_config("resnet18", "sgdm"), 70.5)
    diverge(folder, make_config("resnet18", "adam"))
    config = make_config("resnet18", "adarem")
    run = RunDir(folder / config.run_name)
    run.freeze(config)
    start(run, host="elsewhere", slurm_job="12_3")
    write_epochs(run, 11, 60.0)
    run.write_progress(
        {"epoch": 12, "epochs": 100, "step": 1, "steps": 9, "loss": 2.345, "images_per_s": 9123.4, "seconds_left": 3723}
    )
    config = make_config("resnet18", "adamw")
    RunDir(folder / config.run_name).freeze(config)
    return folder
