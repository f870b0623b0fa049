"""The main job on a real two-node Slurm cluster, at the smallest scale: Table 2's array, its report job, its table."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.plan.plan import make_plan
from tests.support.cluster import Cluster

pytestmark = pytest.mark.slurm


@pytest.mark.slow
def test_table2_on_two_nodes(slurm_cluster: Cluster, digits: list[str], tmp_path: Path) -> None:
    """AdaRem on 2 nodes x 8 ranks; the other five on 2 x 1, for which two cores are enough. One is preempted."""
    env = os.environ | {k: slurm_cluster.env[k] for k in ("SLURM_CONF", "PATH")}
    env |= {"OMP_NUM_THREADS": "1"}
    common = [
        *("grid=table2", *digits, "scale=smoke", "scale.global_batch_size=240", "wandb.mode=disabled"),
        *("cluster=slurm", "cluster.device=cpu", "cluster.nodes=2", "cluster.cpus_per_rank=1"),
        *(f"runs_dir={tmp_path}/runs", f"results_dir={tmp_path}/results"),
    ]

    def launch(*overrides: str) -> str:
        command = [sys.executable, "-m", "adarem", "launch", *common, *overrides]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        print(shown := done.stdout + done.stderr)
        assert done.returncode == 0
        return shown

    wide = launch("optimizer=adarem", "cluster.ranks_per_node=8")
    rest = launch("cluster.ranks_per_node=1")
    assert "1 runs, 2 nodes x 8 ranks" in wide and "5 runs, 2 nodes x 1 ranks" in rest
    assert "resnet18-adarem-global_batch_size=240-s0: already in the queue as job" in rest

    plan = make_plan(common)
    preempted = plan.runs[0].run
    array = re.search(r"array    job (\d+)", rest)[1]
    wait_for(lambda: preempted.log_file.exists() and "starting" in preempted.log_file.read_text(), 600, env)
    subprocess.run(["scancel", "--batch", "--signal=USR1", f"{array}_0"], env=env, check=True)

    table = tmp_path / "results" / plan.folder.name / "table.md"
    report = re.search(r"report   job (\d+)", rest)[1]
    wait_for(lambda: job_state(report, env) in ("COMPLETED", "FAILED"), 900, env)
    printed = log(tmp_path, f"report-{report}.out")
    print(printed)
    assert job_state(report, env) == "COMPLETED"

    assert len(plan.runs) == 6
    for planned in plan.runs:
        assert planned.run.status() in ("done", "diverged"), log(tmp_path, "*_*.out")
        attempt = planned.run.attempts()[-1]
        wide_run = planned.config.optimizer.name == "adarem"
        assert attempt["world_size"] == (16 if wide_run else 2)
        assert attempt["slurm_job"]
    assert [a["why"] for a in preempted.attempts()] == ["interrupted", "done"]
    assert "start 2: 2 ranks" in (said := log(tmp_path, f"{array}_0.out")) and "failed" not in said
    assert preempted.attempts()[0]["slurm_job"] == preempted.attempts()[1]["slurm_job"] == f"{array}_0"
    adarem = next(c.run for c in plan.runs if c.config.optimizer.name == "adarem")
    assert adarem.result()["world_size"] == 16 and adarem.result()["evaluation"]["images"] == 360
    written = table.read_text()
    assert "REHEARSAL" in written and "AdaRem" in written and "70.67" in written
    assert "—" not in [word for line in written.splitlines() if "AdaRem" in line for word in line.split()]
    assert "REHEARSAL of Table 2" in printed


def job_state(job: str, env: dict[str, str]) -> str:
    ask = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"]
    return subprocess.run(ask, env=env, capture_output=True, text=True).stdout.strip()


def wait_for(ready: Callable[[], object], seconds: float, env: dict[str, str]) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, queue(env)
        time.sleep(0.5)


def queue(env: dict[str, str]) -> str:
    return subprocess.run(["squeue", "--array", "--states=all"], env=env, capture_output=True, text=True).stdout


def log(folder: Path, pattern: str) -> str:
    return "\n".join(p.read_text() for p in sorted(folder.glob(f"runs/*/slurm/{pattern}")))
