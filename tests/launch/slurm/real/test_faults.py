"""What happens to jobs on a real two-node Slurm cluster, and the same final bits as without it."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts.torture import SLOW_DISK, differences, state_of

from adarem.plan.plan import make_plan
from adarem.run.directory import RunDir
from tests.support.cluster import Cluster

pytestmark = pytest.mark.slurm

SHORT, LONG = 15, 40  # epochs of four steps
STALL = "cluster.stall_seconds=60"  # longer than a first batch takes on a busy machine

Undisturbed = Callable[..., dict[str, Any]]  # epochs, ranks -> training state of the run that nothing happened to


def run_of(folder: Path, digits: list[str], epochs: int, *cluster: str) -> list[str]:
    return [
        *("grid=table2", "optimizer=adarem", "model=shufflenet_v2_0.5", *digits, "wandb.mode=disabled"),
        *("scale=smoke", "scale.global_batch_size=288", f"scale.epochs={epochs}", STALL),
        *("cluster.device=cpu", f"runs_dir={folder}/runs", f"results_dir={folder}/results", *cluster),
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, digits: list[str]) -> Undisturbed:
    """What a run of so many epochs comes to when nothing happens to it, without Slurm."""
    known: dict[tuple[int, int], dict[str, Any]] = {}

    def state(epochs: int, ranks: int = 2) -> dict[str, Any]:
        if (epochs, ranks) not in known:
            overrides = run_of(
                tmp_path_factory.mktemp("undisturbed"), digits, epochs, f"cluster.ranks_per_node={ranks}"
            )
            subprocess.run([sys.executable, "-m", "adarem", "launch", *overrides], check=True, timeout=600)
            known[epochs, ranks] = state_of(make_plan(overrides).runs[0].run)
        return known[epochs, ranks]

    return state


class Job:
    """One run on two nodes, as ``adarem launch`` submits it."""

    def __init__(self, cluster: Cluster, overrides: list[str], python_path: Path | None = None) -> None:
        self.cluster, self.first, self.second = cluster, *cluster.nodes
        self.env = os.environ | {k: cluster.env[k] for k in ("SLURM_CONF", "PATH")} | {"OMP_NUM_THREADS": "1"}
        if python_path:
            paths = [str(python_path), *filter(None, [os.environ.get("PYTHONPATH")])]
            self.env["PYTHONPATH"] = os.pathsep.join(paths)
        self.overrides = overrides
        self.launch()
        self.run: RunDir = make_plan(overrides).runs[0].run

    def launch(self) -> None:
        command = [sys.executable, "-m", "adarem", "launch", *self.overrides]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        self.id = re.search(r"array    job (\d+)", done.stdout)[1]

    def ranks(self) -> list[int]:
        """Process ids of the ranks on both nodes."""
        return [pid for node in self.cluster.nodes for pid in self.cluster.ranks_on(node)]

    def wait(self, ready: Callable[[], object], seconds: float) -> None:
        """Until ``ready``; fails where the run records nothing new for so many seconds."""
        seen, since = (0, 0), time.monotonic()
        while not ready():
            recorded = len(self.run.attempts()), len(self.run.metrics())
            if recorded != seen:
                seen, since = recorded, time.monotonic()
            assert time.monotonic() < since + seconds, f"nothing new within {seconds:.0f} s\n{self.said()}"
            time.sleep(0.2)

    def wait_for_progress(self) -> None:
        """Until one more epoch is recorded, and the run goes on."""
        known = len(self.run.metrics())
        self.wait(lambda: len(self.run.metrics()) >= known + 2 or self.run.status() == "done", 240)
        assert self.run.status() == "running", self.said()

    def slurm(self, *command: str) -> str:
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=True).stdout

    def state(self) -> str:
        return self.slurm("squeue", "--noheader", "--states=all", f"--jobs={self.id}", "--format=%T").strip()

    def said(self) -> str:
        logs = [p.read_text() for p in sorted(self.run.path.parent.glob("slurm/*.out"))]
        return "\n".join([*logs, self.slurm("squeue", "--array", "--states=all"), self.slurm("sinfo", "--Node")])

    def ends_as(self, undisturbed: dict[str, Any], *reasons: str) -> None:
        """Done, in one job, with the bits of ``undisturbed``; its attempts record these reasons, in this order.

        Slurm repeats a termination that was not acknowledged, a minute later and then to the next start: more
        interruptions than intended are no fault.
        """
        self.wait(lambda: self.run.status() == "done" and "end" in self.run.attempts()[-1], 420)
        attempts = self.run.attempts()
        ends = [f"{a.get('why', 'not recorded')}: {a.get('detail', '')}" for a in attempts]
        left = iter(ends)
        for reason in (*reasons, "done: "):
            assert any(re.match(reason, end) for end in left), f"{reason} not in {ends}\n{self.said()}"
        assert {a["slurm_job"] for a in attempts} == {f"{self.id}_0"}
        assert differences(undisturbed, state_of(self.run)) == []


@pytest.mark.slow
def test_preempted_then_a_rank_killed(
    slurm_cluster: Cluster, digits: list[str], tmp_path: Path, slow_disk: Path, undisturbed: Undisturbed
) -> None:
    job = Job(slurm_cluster, run_of(tmp_path, digits, SHORT, *ON_SLURM, ONE_A_NODE), slow_disk)
    job.wait_for_progress()
    job.slurm("scancel", "--batch", "--signal=USR1", f"{job.id}_0")
    job.wait(lambda: len(job.run.attempts()) > 1, 120)
    job.wait_for_progress()
    (rank,) = slurm_cluster.ranks_on(job.second)
    os.kill(rank, signal.SIGKILL)
    gone = r"failed: rank 1 on \S+ is gone after step \d+, while it"
    job.ends_as(undisturbed(SHORT), r"interrupted: SIGUSR1 at step \d+", gone)


@pytest.mark.slow
def test_a_rank_is_stopped(
    slurm_cluster: Cluster, digits: list[str], tmp_path: Path, slow_disk: Path, undisturbed: Undisturbed
) -> None:
    """A job of its own: what Slurm repeats of an earlier termination would end the stopped rank before its time."""
    job = Job(slurm_cluster, run_of(tmp_path, digits, SHORT, *ON_SLURM, ONE_A_NODE), slow_disk)
    job.wait_for_progress()
    (rank,) = slurm_cluster.ranks_on(job.second)
    os.kill(rank, signal.SIGSTOP)
    silent = r"failed: rank 1 on \S+ sent no heartbeat for ([6-9]\d|\d{3}) s after step \d+, while it"
    job.ends_as(undisturbed(SHORT), silent)


FAIL_WHILE_THE_OTHER_WAITS = """\
import os, time
if os.environ.get("SLURM_PROCID") == "1":
    from adarem.train.distributed.rendezvous import meeting_point
    from adarem.train.distributed.store import connect
    point = meeting_point(2)
    while True:
        time.sleep(1)
        try:
            connect(point.addresses, point.token)
        except OSError:
            continue
        os._exit(2)
"""


def test_a_rank_that_ends_with_a_user_error_ends_the_job(
    slurm_cluster: Cluster, digits: list[str], tmp_path: Path
) -> None:
    """The ranks that wait for it get SIGTERM from srun; that must not look like an interruption, which starts again."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FAIL_WHILE_THE_OTHER_WAITS)
    job = Job(slurm_cluster, run_of(tmp_path, digits, SHORT, *ON_SLURM, ONE_A_NODE), tmp_path / "site")
    job.wait(lambda: job.state() not in ("PENDING", "RUNNING", "COMPLETING"), 120)
    said = job.said()
    assert job.state() == "FAILED" and "ended with exit code 2" in said and "start 2" not in said, said
    assert job.run.status() == "planned"


@pytest.fixture
def slow_disk(tmp_path: Path) -> Path:
    """Every fsync takes 0.3 s, so that a run lasts as long as Slurm's own clocks need."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SLOW_DISK)
    return tmp_path / "site"


ONE_A_NODE = "cluster.ranks_per_node=1"
ON_SLURM = ("cluster=slurm", "cluster.nodes=2", "cluster.cpus_per_rank=1")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["slurmd killed", "power cut"])
def test_the_node_of_the_batch_shell_fails(
    fault: str, slurm_cluster: Cluster, digits: list[str], tmp_path: Path, slow_disk: Path, undisturbed: Undisturbed
) -> None:
    """Slurm takes the node for down after SlurmdTimeout, ends what is left of the job and requeues it: for two nodes,
    so it starts once the node is back."""
    job = Job(slurm_cluster, run_of(tmp_path, digits, LONG, *ON_SLURM, ONE_A_NODE), slow_disk)
    job.wait_for_progress()
    try:
        if fault == "slurmd killed":
            slurm_cluster.kill_slurmd(job.first)
        else:
            slurm_cluster.kill_node(job.first)
        job.wait(lambda: "PENDING" in job.slurm("squeue", "--noheader", f"--jobs={job.id}", "--format=%T"), 300)
    finally:
        slurm_cluster.start(job.first)
    gone = r"failed: rank 0 on \S+ is gone after step \d+, while it"
    job.ends_as(undisturbed(LONG), "interrupted: " if fault == "slurmd killed" else gone)


@pytest.mark.slow
def test_random_ranks_are_killed_at_random_moments(
    slurm_cluster: Cluster, digits: list[str], tmp_path: Path, slow_disk: Path, undisturbed: Undisturbed
) -> None:
    """Four ranks on two nodes, six times one of them, or SIGTERM to all. Three failures in a row without a checkpoint
    end the job; then it is launched again."""
    dice = random.Random(20)
    job = Job(slurm_cluster, run_of(tmp_path, digits, LONG, *ON_SLURM, "cluster.ranks_per_node=2"), slow_disk)
    for attack in range(6):
        job.wait(lambda: len(job.ranks()) == 4 or job.run.status() == "done" or job.state() == "FAILED", 300)
        if job.state() == "FAILED":
            job.launch()
            job.wait(lambda: len(job.ranks()) == 4, 300)
        if attack % 2:  # within training, however long a start takes here; else at any moment, a start's too
            known = len(job.run.metrics())
            job.wait(lambda known=known: len(job.run.metrics()) > known or job.run.status() == "done", 300)
        time.sleep(dice.uniform(0, 3 if attack % 2 else 25))
        ranks = job.ranks()
        if len(ranks) < 4:  # it ended before
            continue
        for pid in ranks if attack == 3 else [dice.choice(ranks)]:
            os.kill(pid, signal.SIGTERM if attack == 3 else signal.SIGKILL)
        job.wait(lambda ranks=ranks: not set(ranks) & set(job.ranks()), 120)
    job.wait(lambda: job.run.status() == "done" or job.state() == "FAILED", 420)
    if job.run.status() != "done":
        job.launch()
    job.wait(lambda: job.run.status() == "done" and "end" in job.run.attempts()[-1], 420)
    print("\n".join(f"{a.get('why', 'not recorded')}: {a.get('detail', '')}" for a in job.run.attempts()))
    assert len(job.run.attempts()) > 2, job.said()
    assert differences(undisturbed(LONG, 4), state_of(job.run)) == []


@pytest.mark.slow
def test_the_time_limit_is_reached(
    slurm_cluster: Cluster, digits: list[str], tmp_path: Path, slow_disk: Path, undisturbed: Undisturbed
) -> None:
    """A minute, which is less than the run takes; Slurm warns 5 s before, or up to half a minute earlier than that."""
    extra = 'cluster.extra=["--signal=B:USR1@5"]'
    job = Job(
        slurm_cluster, run_of(tmp_path, digits, LONG, *ON_SLURM, ONE_A_NODE, "cluster.time='1'", extra), slow_disk
    )
    job.ends_as(undisturbed(LONG), r"interrupted: SIGUSR1 at step \d+")
