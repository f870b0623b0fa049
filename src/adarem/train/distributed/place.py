"""This process's place among the ranks of a run, as torchrun, srun or a local launch says it.

A process that finds itself alone where it was started as one of several is refused: it would train the run by itself,
and so would each of the others.
"""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from adarem.run.config import ClusterConfig
from adarem.run.errors import UserError

_INTERACTIVE_STEP = "4294967290"  # of salloc: a shell on the job's first node
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "ADAREM_RANKS")  # set what they say of a rank themselves, also within a step
# Other launchers' counts of processes, whose variables for the rank are not read.
_OF_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


class Place(NamedTuple):
    rank: int
    world_size: int
    local_rank: int


def place_of_this_process(env: Mapping[str, str] = os.environ) -> Place:
    """A lone process is rank 0 of 1.

    Raises:
        UserError: the variables contradict each other, or are those of a launcher that is not known.
    """
    in_step = _in_step(env)
    if "RANK" in env:
        place = _place(env, ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        if in_step and not any(name in env for name in _LAUNCHERS):
            of_step = _of_step(env)
            if of_step.world_size > 1 and of_step[:2] != place[:2]:
                raise UserError(
                    f"RANK={place.rank} WORLD_SIZE={place.world_size}: this is task {of_step.rank} of "
                    f"{of_step.world_size} of a Slurm step; unset both before srun, or let torchrun set them"
                )
        return place
    if in_step:
        return _of_step(env)
    for name in _OF_MPI:
        if env.get(name, "1") not in ("", "0", "1"):
            raise UserError(f"{name}={env[name]}: started by MPI, by which ranks cannot meet; use torchrun or srun")
    return Place(0, 1, 0)


def check_step(cluster: ClusterConfig, env: Mapping[str, str] = os.environ) -> None:
    """Raises UserError where srun started another number of tasks than the run's config asks for, but in a terminal,
    where one process is what a user who looks for a fault wants."""
    if not _in_step(env) or "RANK" in env and any(name in env for name in _LAUNCHERS):
        return
    tasks = _of_step(env).world_size
    if tasks == cluster.world_size or tasks == 1 and ("SLURM_PTY_PORT" in env or sys.stdin.isatty()):
        return
    asked = f"cluster.nodes={cluster.nodes} cluster.ranks_per_node={cluster.ranks_per_node}"
    raise UserError(
        f"{asked}: {cluster.world_size} ranks, and srun started {tasks}; start with `adarem launch` or "
        "slurm/run.sbatch, which run cluster.setup too, or plan the run again with the numbers that you want"
    )


def _in_step(env: Mapping[str, str]) -> bool:
    """Inside a job but outside of srun there is no step: a shell on a node, or a batch script that names no srun."""
    return {"SLURM_PROCID", "SLURM_STEP_ID"} <= env.keys() and env["SLURM_STEP_ID"] != _INTERACTIVE_STEP


def _of_step(env: Mapping[str, str]) -> Place:
    # SLURM_NTASKS may be the job's; that of the step counts.
    tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    return _place(env, ("SLURM_PROCID", tasks, "SLURM_LOCALID"))


def _place(env: Mapping[str, str], names: tuple[str, str, str]) -> Place:
    rank, world_size, local_rank = (env.get(name, "0" if name == "LOCAL_RANK" else "") for name in names)
    if not (rank.isdigit() and world_size.isdigit() and local_rank.isdigit() and int(rank) < int(world_size)):
        given = ", ".join(f"{name}={env.get(name, '')}" for name in names)
        raise UserError(f"{given}: no ranks of one run; start with torchrun or slurm/run.sbatch, or unset {names[0]}")
    return Place(int(rank), int(world_size), int(local_rank))
