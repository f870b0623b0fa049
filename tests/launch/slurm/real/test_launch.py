"""Launching on a real two-node Slurm cluster; ranks are stubs, so that only Slurm's part takes time."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from adarem.launch import preparation
from adarem.launch.launch import launch
from adarem.plan.plan import Plan, make_plan
from adarem.run import exitcodes
from adarem.run.selection import select
from tests.support import ROOT
from tests.support.cluster import Cluster
from tests.support.launching import STUB, moved

pytestmark = pytest.mark.slurm
CPU = ["cluster=slurm", "cluster.device=cpu", "cluster.nodes=2", "cluster.cpus_per_rank=1", "scale=smoke"]


@pytest.fixture
def with_stub(slurm_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Slurm's environment, and a python whose ranks are stubs."""
    for key in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(key, slurm_cluster.env[key])
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


def jobs(states: str = "all") -> str:
    ask = ["squeue", "--noheader", "--array", f"--states={states}", "--format=%F_%K %T %r"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout


def wait_for(ready: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"not within {seconds} s; the queue: {jobs()}"
        time.sleep(0.3)


def log_of(plan: Plan, task: int) -> str:
    return next((plan.folder / "slurm").glob(f"*_{task}.out"), Path("/dev/null")).read_text()


@pytest.mark.slow
def test_rungs_are_arrays_that_decide_from_files(
    with_stub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three arrays of four tasks; a task whose run does not go on starts no rank."""
    monkeypatch.setattr(preparation, "is_prepared", lambda data: True)
    halving = "grid.halving={rungs: [2, 4], keep: 1/2}"
    words = ["grid=table2_search", "data=digits", "optimizer=sgdm", "grid.draw.trials=4", halving, *CPU]
    places = [f"data.root={tmp_path}/digits", f"runs_dir={tmp_path}/runs", f"results_dir={tmp_path}/results"]
    plan = make_plan([*words, "scale.epochs=8", "cluster.ranks_per_node=1", *places])
    plan.write()
    for i, planned in enumerate(plan.runs):
        (planned.run.path / "stub.json").write_text(json.dumps({"do": "search", "figure": 10.0 * i}))
    assert launch(plan) == exitcodes.OK
    wait_for((tmp_path / "results" / "report.json").exists, 240)
    assert [p.run.status() for p in plan.runs] == ["paused"] * 3 + ["done"]
    assert [len(p.run.attempts()) for p in plan.runs] == [1, 1, 2, 3]
    assert len(list((plan.folder / "slurm").glob("*_0.out"))) == 3
    assert select(plan.folder).selected["resnet18"]["sgdm"].best is not None


@pytest.mark.slow
def test_array_with_hostile_paths_two_launchers_and_a_report(
    with_stub: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / """a b 'c' "d" $(touch hacked) `touch hacked` %j ;\nnew line"""
    place.mkdir()
    plan = make_plan(["grid=table2", "data=digits", *CPU, "cluster.ranks_per_node=8", f"data.root={tmp_path}/digits"])
    # Hydra's grammar has no newline, a folder may: the plan is moved there.
    plan = replace(moved(plan, place), results_dir=tmp_path / "re sults")

    at_once = [threading.Thread(target=launch, args=(plan,)) for _ in range(2)]
    for t in at_once:
        t.start()
    for t in at_once:
        t.join(300)
    printed = capfd.readouterr().out
    assert printed.count("array    job") == 1  # the second launcher saw the first one's jobs
    assert printed.count("already in the queue") == 6

    report = tmp_path / "re sults" / "report.json"
    wait_for(report.exists, 300)
    made = json.loads(report.read_text())
    assert made["grid"] == "table2" and made["data"] == "digits" and made["runs_dir"] == str(place)
    assert set(made["status"].values()) == {"done"} and len(made["status"]) == 6  # it waited for all
    assert (tmp_path / "digits" / "ffcv" / "train.beton").exists()
    for planned in plan.runs:
        ranks = [json.loads((planned.run.path / f"rank{r}.json").read_text()) for r in range(16)]
        assert all(r["world"] == 16 and r["SLURM_GPUS_ON_NODE"] is None for r in ranks)
        assert len({(r["SLURM_NODEID"], r["SLURM_LOCALID"]) for r in ranks}) == 16
        assert len({(r["MASTER_ADDR"], r["ADAREM_TOKEN"]) for r in ranks}) == 1 and ranks[0]["MASTER_PORT"] is None
    tokens = {json.loads((c.run.path / "rank0.json").read_text())["ADAREM_TOKEN"] for c in plan.runs}
    assert len(tokens) == 6 and all(re.fullmatch("[0-9a-f]{64}", token) for token in tokens)
    assert not list(tmp_path.rglob("hacked")) and not Path("hacked").exists()

    assert launch(plan) == 0  # nothing left to do
    assert "array" not in capfd.readouterr().out


def test_interrupted_failed_and_cancelled_jobs(with_stub: None, digits: list[str], tmp_path: Path) -> None:
    plan = make_plan(
        ["grid=table2", *digits, "optimizer=sgdm,adam,adarem", *CPU, "cluster.ranks_per_node=2"]
        + [f"runs_dir={tmp_path}/runs", f"results_dir={tmp_path}/results"]
        + ["cluster.threads_per_rank=3", "cluster.setup='export OF_THE_SITE=1'"]
    )
    plan.write()
    interrupted, failing, cancelled = (c.run for c in plan.runs)
    for run, do in ((interrupted, "wait"), (failing, "fail"), (cancelled, "wait")):
        (run.path / "stub.json").write_text(json.dumps({"do": do}))
    assert launch(plan) == 0

    for run in (interrupted, cancelled):
        wait_for(lambda run=run: len(list(run.path.glob("rank?.json"))) == 4, 300)  # they handle signals by then
    (kept,) = (plan.folder / "slurm").glob("*.array")  # other tests' jobs may run too
    array = kept.read_text()
    # What Slurm sends before a time limit or a preemption: to the batch shell alone.
    subprocess.run(["scancel", "--batch", "--signal=USR1", f"{array}_0"], check=True)
    subprocess.run(["scancel", f"{array}_2"], check=True)

    wait_for(lambda: interrupted.status() == "done", 300)
    assert [a["why"] for a in interrupted.attempts()] == ["interrupted", "done"]
    assert interrupted.attempts()[0]["detail"] == "SIGUSR1"
    assert len({a["slurm_job"] for a in interrupted.attempts()}) == 1  # the same job, requeued
    assert "start 1: 4 ranks" in log_of(plan, 0) and "start 2: 4 ranks" in log_of(plan, 0)  # one log, appended
    assert json.loads((interrupted.path / "rank0.json").read_text())["OMP_NUM_THREADS"] == "3"

    wait_for((tmp_path / "results" / "report.json").exists, 300)  # the report job waits for every requeue
    assert len(failing.attempts()) == 3 and failing.status() == "failed", f"{log_of(plan, 1)}\n{jobs()}"
    assert "failed 3 times without a new checkpoint" in failing.attempts()[-1]["detail"]
    assert "start 3:" in log_of(plan, 1) and "start 4:" not in log_of(plan, 1)
    assert "CANCELLED" in next(s for s in jobs().splitlines() if s.startswith(f"{array}_2 "))
    assert len(cancelled.attempts()) == 1 and cancelled.status() == "interrupted"


def test_script_by_hand(with_stub: None, tmp_path: Path) -> None:
    """`sbatch slurm/run.sbatch RUN_DIR` with the header's own numbers: 2 nodes of 8 GPUs, one task each."""
    plan = make_plan(
        ["grid=table2", "data=digits", "optimizer=adarem", "scale=smoke", "cluster=slurm", f"runs_dir={tmp_path}/runs"]
    )
    plan.write()
    run = plan.runs[0].run
    script = ROOT / "slurm" / "run.sbatch"
    command = ["sbatch", "--wait", "--cpus-per-task=1", f"--output={tmp_path}/out", str(script), str(run.path)]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"ADAREM_PYTHON": sys.executable})
    ranks = [json.loads((run.path / f"rank{r}.json").read_text()) for r in range(16)]
    assert {r["SLURM_GPUS_ON_NODE"] for r in ranks} == {"8"}
    assert run.status() == "done"
