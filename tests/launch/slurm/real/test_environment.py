"""What a launch's environment and the job's do not change, on a real cluster; ranks are stubs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.plan.plan import Plan, make_plan
from tests.support.cluster import Cluster
from tests.support.launching import STUB

pytestmark = pytest.mark.slurm


@pytest.fixture
def env(slurm_cluster: Cluster) -> dict[str, str]:
    return os.environ | {k: slurm_cluster.env[k] for k in ("SLURM_CONF", "PATH")}


def plan_of(tmp_path: Path, digits: list[str], *words: str) -> Plan:
    plan = make_plan(
        ["grid=table2", *digits, "optimizer=sgdm", "scale=smoke", "cluster=slurm", "cluster.device=cpu"]
        + ["cluster.nodes=2", "cluster.cpus_per_rank=1", "cluster.ranks_per_node=2", "wandb.mode=disabled"]
        + [f"cluster.setup='echo setup >>{tmp_path}/setup'", *words]
        + [f"runs_dir={tmp_path}/runs", f"results_dir={tmp_path}/results"]
    )
    plan.write()
    return plan


def launch(plan: Plan, tmp_path: Path, env: dict[str, str], *before: str) -> None:
    """``adarem launch`` as a program, with a python whose ranks are stubs."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    python.chmod(0o755)
    code = (
        f"import shlex, sys; sys.executable = {str(python)!r}; from adarem.plan.plan import make_plan; "
        f"from adarem.launch.launch import launch; sys.exit(launch(make_plan(shlex.split({plan.words!r}))))"
    )
    done = subprocess.run([*before, sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for(ready: Callable[[], object], plan: Plan, env: dict[str, str]) -> None:
    end = time.monotonic() + 300
    while not ready():
        logs = "\n".join(p.read_text() for p in (plan.folder / "slurm").glob("*.out"))
        queue = subprocess.run(["squeue", "--array", "--states=all"], env=env, capture_output=True, text=True).stdout
        assert time.monotonic() < end, f"{logs}\n{queue}"
        time.sleep(0.3)


def ranks_of(plan: Plan) -> list[dict[str, object]]:
    return [json.loads(p.read_text()) for p in sorted(plan.runs[0].run.path.glob("rank?.json"))]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["--export=NONE", "SBATCH_EXPORT"])
def test_jobs_that_lose_their_environment(lost: str, env: dict[str, str], digits: list[str], tmp_path: Path) -> None:
    extra = [] if lost == "SBATCH_EXPORT" else [f"cluster.extra=['{lost}']", f"cluster.aux_extra=['{lost}']"]
    plan = plan_of(tmp_path, digits, *extra)
    launch(plan, tmp_path, env | {"SBATCH_EXPORT": "NONE"})
    run = plan.runs[0].run
    wait_for(lambda: run.status() == "done", plan, env)
    ranks = ranks_of(plan)
    assert len(ranks) == 4 and all(r["world"] == 4 and r["MASTER_ADDR"] and r["ADAREM_TOKEN"] for r in ranks)
    wait_for((tmp_path / "results" / "report.json").exists, plan, env)
    assert (tmp_path / "setup").read_text().splitlines() == ["setup"] * 2  # of the run's job and of the report's


@pytest.mark.slow
def test_a_launch_from_inside_of_a_step(env: dict[str, str], digits: list[str], tmp_path: Path) -> None:
    """Bound to one CPU, with one task: none of it reaches the job's ranks."""
    plan = plan_of(tmp_path, digits)
    filters = {"SQUEUE_STATES": "RUNNING", "SQUEUE_FORMAT": "%i", "SLURM_CPU_BIND": "quiet,mask_cpu:0x1"}
    inside = ("srun", "--ntasks=1", "--nodes=1", "--cpus-per-task=1")
    launch(plan, tmp_path, env | filters, *inside)
    launch(plan, tmp_path, env | filters, *inside)
    run = plan.runs[0].run
    wait_for(lambda: run.status() == "done", plan, env)
    assert len(ranks_of(plan)) == 4 and len(list((plan.folder / "slurm").glob("*.array"))) == 1


def test_tasks_that_would_each_train_alone(env: dict[str, str], digits: list[str], tmp_path: Path) -> None:
    """``srun adarem train RUN`` by hand."""
    plan = plan_of(tmp_path, digits)
    command = ["srun", "--nodes=2", "--ntasks-per-node=2", sys.executable, "-m", "adarem", "train"]
    done = subprocess.run([*command, str(plan.runs[0].run.path)], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "MASTER_ADDR: not set, so 4 ranks cannot meet" in done.stderr, done.stderr
    assert plan.runs[0].run.status() == "planned"
