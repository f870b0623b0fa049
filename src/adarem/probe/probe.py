"""``adarem probe``: which cells of a plan are to be measured, and where: here, or by a job of Slurm."""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adarem.data.prepared import check_prepared
from adarem.launch.commands import environment
from adarem.launch.slurm.commands import job_file, probe_command, slurm_folder
from adarem.launch.slurm.job_file import write_job_file
from adarem.launch.slurm.sbatch import new_token, submit
from adarem.probe.cells import keep, measure_cells, new_folder, started_here
from adarem.run import exitcodes
from adarem.run.config import ClusterConfig, RunConfig
from adarem.run.errors import UserError
from adarem.run.machine import cores
from adarem.run.measurements import probe_file, subject

if TYPE_CHECKING:
    from adarem.plan.plan import Plan


def cells(plan: "Plan") -> list[RunConfig]:
    """One config for each thing whose speed differs, in the plan's order: of several that with the least learning rate,
    which is the last to diverge."""
    found: dict[str, RunConfig] = {}
    for planned in plan.runs:
        config = planned.config
        key = repr(sorted(subject(config).items()))
        if key not in found or config.optimizer.lr < found[key].optimizer.lr:
            found[key] = config
    return list(found.values())


def probe(plan: "Plan", *, seconds: float) -> int:
    """Measures every cell of a plan, or submits the jobs that do.

    Args:
        plan: nothing of it is written.
        seconds: of training, a cell.

    Returns:
        An exit code: FAILED where a cell could not be measured.

    Raises:
        UserError: the data are not prepared; the cluster cannot be used from here.
    """
    if not 0 < seconds < float("inf"):
        raise UserError(f"--seconds={seconds}: needs a number above 0")
    configs = cells(plan)
    for data in {config.data for config in configs}:
        check_prepared(data)
    if configs[0].cluster.name == "slurm":
        return _submit(plan, configs, seconds)
    folder = new_folder(plan.runs_dir, configs, _auto(plan, configs))
    busy = _busy(configs[0].cluster)
    if busy:
        print(busy, file=sys.stderr)
    try:
        failed = keep(measure_cells(folder, seconds, started_here), plan.runs_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failed < len(configs):
        print(f"written: {probe_file(plan.runs_dir)}; `{_next(plan)}` prices the grid")
    return exitcodes.FAILED if failed else exitcodes.OK


def _next(plan: "Plan") -> str:
    return f"adarem plan {plan.words}".strip()


def _auto(plan: "Plan", configs: Sequence[RunConfig]) -> list[RunConfig]:
    """Those whose largest scale.micro_batch_size is asked for."""
    return [c for c in configs if plan.micro_batch_asked and c.scale.micro_batch_size is None]


def _busy(cluster: ClusterConfig) -> str | None:
    """A line where other work slows what is measured."""
    load = os.getloadavg()[0]
    free = cores() - cluster.ranks_per_node
    if cluster.device == "cuda" or load < max(1.0, free + 0.5):
        return None
    return f"load {load:.1f} on {cores()} cores: other work slows what is measured; times are those of this machine now"


def _submit(plan: "Plan", configs: Sequence[RunConfig], seconds: float) -> int:
    """A job for each shape of run."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "cluster=slurm: no sbatch on PATH; log in to the cluster, or measure this machine: cluster=local"
        )
    shapes: dict[ClusterConfig, list[RunConfig]] = {}
    for config in configs:
        shapes.setdefault(config.cluster, []).append(config)
    slurm_folder(plan.folder).mkdir(parents=True, exist_ok=True)
    for i, (cluster, of_shape) in enumerate(shapes.items()):
        folder = new_folder(plan.runs_dir, of_shape, _auto(plan, of_shape), f"-{i}")
        token = new_token()
        command = probe_command(plan.folder, folder, plan.runs_dir, seconds, len(of_shape), cluster, token)
        write_job_file(job_file(plan.folder, token), cluster, os.environ, {})
        try:
            job = submit(command, environment(cluster))
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        print(f"probe    job {job}: {len(of_shape)} cells, {cluster.nodes} nodes x {cluster.ranks_per_node} ranks each")
    print(f"logs     {slurm_folder(plan.folder)}")
    print(f"written  {probe_file(plan.runs_dir)}, when the job has ended; `{_next(plan)}` prices the grid")
    return exitcodes.OK
