"""What a launch starts where; the starting itself is in test_local.py and slurm/test_submit.py."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adarem.launch.launch import launch
from adarem.plan.plan import Plan, make_plan
from adarem.run import exitcodes
from adarem.run.directory import RunDir
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


def test_a_launch_prepares_a_text_trains_and_reports(
    tmp_path: Path, adarem_command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    places = [f'{k}="{tmp_path / v}"' for k, v in (("runs_dir", "runs"), ("results_dir", "results"))]
    tiny = ("scale.epochs=1", "model.layers=2", "model.hidden=12", "model.embedding=10", "model.bptt=99")
    common = ["grid=table3", *places, "cluster=local", "cluster.ranks_per_node=1", "wandb.mode=disabled"]
    wrong = adarem_command("launch", *common, f'data.root="{tmp_path}"')
    assert wrong.returncode == exitcodes.USER_ERROR and not (tmp_path / "runs").exists()
    assert wrong.stderr.count("\n") == 1 and "ptb.train.txt: cannot be read" in wrong.stderr
    done = adarem_command(
        "launch", *common, *tiny, "data=pydoc", 'data.root="' + str(tmp_path / "a text") + '"', "optimizer=adam"
    )
    assert done.returncode == exitcodes.OK, done.stderr
    assert "train: 3" in done.stdout and "test perplexity" in done.stdout
    assert "REHEARSAL of Table 3" in done.stdout and "training tokens" in done.stdout
    results = tmp_path / "results" / "table3-pydoc"
    assert {"table.md", "table.csv", "table.tex"} <= {p.name for p in results.iterdir()}
    run = next((tmp_path / "runs" / "table3-pydoc").glob("awd_lstm-adam-*"))
    result = RunDir(run).result()
    assert f"{result['perplexity']:.2f}" in (results / "table.md").read_text()
    status = adarem_command("status", "data=pydoc", f"runs_dir={tmp_path / 'runs'}")
    assert f"ppl {result['perplexity']:.2f}" in status.stdout
