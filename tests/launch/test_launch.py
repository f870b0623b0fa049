"""What a launch starts where; the starting itself is in test_local.py and slurm/test_submit.py."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adarem.launch.launch import launch
from adarem.plan.plan import Plan, make_plan
from adarem.run.errors import UserError
from tests.support.launching import moved


def test_a_plan_without_runs_is_refused(plan: Plan) -> None:
    with pytest.raises(UserError, match="grid: the plan has no runs; give each axis at least one value"):
        launch(replace(plan, runs=[]))


def test_local_and_slurm_runs_are_launched_separately(plan: Plan) -> None:
    on_slurm = moved(plan, plan.runs_dir, name="slurm")
    mixed = replace(plan, runs=[plan.runs[0], *on_slurm.runs[1:]])
    with pytest.raises(UserError, match="cluster: the plan has both local and slurm runs; launch them separately"):
        launch(mixed)
    assert not plan.runs_dir.exists()


def test_a_texts_files_are_read_before_anything_is_written(tmp_path: Path) -> None:
    plan = make_plan(["grid=table3", "data=ptb", f"data.root={tmp_path / 'absent'}", f"runs_dir={tmp_path / 'runs'}"])
    with pytest.raises(UserError, match="absent"):
        launch(plan)
    assert not (tmp_path / "runs").exists()


def test_launch_needs_neither_torch_nor_hydra() -> None:
    code = "import sys, adarem.launch.launch; sys.exit('torch' in sys.modules or 'hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
