"""Which rank a process is, as its launcher says; one that would train alone by accident is refused."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adarem.run.config import ClusterConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.train.distributed.place import check_step, place_of_this_process
from tests.support.sweeps import make_config

STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4"}
STEP |= {"SLURM_STEP_NUM_TASKS": "4", "MASTER_ADDR": "n1", "MASTER_PORT": "10007"}
RANK = {"RANK": "2", "WORLD_SIZE": "8", "LOCAL_RANK": "2"}


def without(env: dict[str, str], *keys: str) -> dict[str, str]:
    return {k: v for k, v in env.items() if k not in keys}


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, (0, 1, 0)),
        (RANK, (2, 8, 2)),
        (without(RANK, "LOCAL_RANK"), (2, 8, 0)),
        (STEP, (1, 4, 1)),
        (STEP | {"SLURM_NTASKS": "16"}, (1, 4, 1)),  # the job's, of which the step has a part
        (without(STEP, "SLURM_STEP_NUM_TASKS"), (1, 4, 1)),
        (without(STEP, "MASTER_ADDR", "MASTER_PORT"), (1, 4, 1)),  # the rendezvous says that it lacks them
        (without(STEP, "SLURM_STEP_ID"), (0, 1, 0)),  # a batch script that names no srun
        (STEP | {"SLURM_STEP_ID": "4294967290"}, (0, 1, 0)),  # salloc's shell on the first node
        (STEP | RANK | {"TORCHELASTIC_RUN_ID": "x"}, (2, 8, 2)),  # srun starts a torchrun on each node
        (STEP | RANK | {"ADAREM_RANKS": "3,4"}, (2, 8, 2)),  # a local launch within a step
        (STEP | {"RANK": "1", "WORLD_SIZE": "4"}, (1, 4, 0)),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, (0, 1, 0)),
        (RANK | {"OMPI_COMM_WORLD_SIZE": "8"}, (2, 8, 2)),
    ],
)
def test_the_place(env: dict[str, str], place: tuple[int, int, int]) -> None:
    assert place_of_this_process(env) == place


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        (STEP | {"RANK": "0", "WORLD_SIZE": "1"}, "RANK=0 WORLD_SIZE=1: this is task 1 of 4 of a Slurm step; unset"),
        (STEP | RANK, "this is task 1 of 4 of a Slurm step; unset both before srun"),
        (STEP | {"SLURM_PROCID": "x"}, "SLURM_PROCID=x, .*: no ranks of one run"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, "no ranks of one run"),
        ({"RANK": "0"}, "RANK=0, WORLD_SIZE=, LOCAL_RANK=: no ranks of one run"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4: started by MPI"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE=2: started by MPI"),
    ],
)
def test_a_contradiction_is_refused(env: dict[str, str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        place_of_this_process(env)


def cluster(nodes: int, ranks_per_node: int) -> ClusterConfig:
    config = make_config("resnet18", "sgdm").cluster
    return replace(config, device="cpu", nodes=nodes, ranks_per_node=ranks_per_node)


def test_the_tasks_of_a_step_are_those_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    two_by_two, one = cluster(2, 2), STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    check_step(two_by_two, STEP)
    check_step(cluster(1, 1), one)
    for env in ({}, RANK, STEP | RANK | {"TORCHELASTIC_RUN_ID": "x"}, without(STEP, "SLURM_STEP_ID")):
        check_step(cluster(2, 8), env)
    check_step(two_by_two, one | {"SLURM_PTY_PORT": "9"})  # srun --pty: somebody looks for a fault
    for wanted, env, tasks in ((cluster(2, 8), STEP, 4), (two_by_two, one, 1), (cluster(1, 1), STEP, 4)):
        with pytest.raises(UserError, match=f"cluster.nodes={wanted.nodes} .* ranks, and srun started {tasks}; start"):
            check_step(wanted, env)


@pytest.mark.parametrize(
    ("lost", "started", "said"),
    [
        (("MASTER_ADDR", "MASTER_PORT"), "4", "MASTER_ADDR: not set, so 4 ranks cannot meet"),
        ((), "1", "cluster.nodes=2 cluster.ranks_per_node=2: 4 ranks, and srun started 1;"),
    ],
)
def test_a_rank_that_would_train_alone_ends_with_one_line(
    lost: tuple[str, ...], started: str, said: str, tmp_path: Path
) -> None:
    """With an exit code after which Slurm does not start the job again; nothing is written."""
    config = make_config("resnet18", "sgdm")
    run = RunDir(tmp_path / "table2" / config.run_name)
    run.freeze(replace(config, cluster=cluster(2, 2)))
    env = without(STEP, *lost) | {"SLURM_STEP_NUM_TASKS": started, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    clean = {k: v for k, v in os.environ.items() if k not in RANK and not k.startswith(("SLURM_", "MASTER_"))}
    done = subprocess.run(
        [sys.executable, "-m", "adarem", "train", str(run.path)],
        env=clean | env, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith(f"adarem train: {said}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [p.name for p in run.path.iterdir()] == ["config.yaml"]
