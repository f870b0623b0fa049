"""Plans that meet jobs in the queue: a queued run's config stays as it was, and what does not reach its job is said."""

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from adarem.launch.slurm.commands import slurm_folder
from adarem.launch.slurm.queue import Job, queued
from adarem.run.config import to_dict
from adarem.run.directory import FINISHED
from adarem.run.errors import UserError

if TYPE_CHECKING:
    from adarem.plan.plan import Plan, PlannedRun

# Settings that a waiting job's own can be changed to, with Slurm's names of them; of the array's one.
_UPDATES = {"cluster.partition": "Partition", "cluster.account": "Account", "cluster.time": "TimeLimit"}
_OF_ARRAY = {"cluster.max_parallel": "ArrayTaskThrottle"}
UNKNOWN = "?"  # the id of a job that may be in the queue
_OF_OTHER_JOBS = ("cluster.aux_partition", "cluster.aux_extra", "cluster.price_per_gpu_hour")


def write_plan(plan: "Plan") -> dict[str, Job]:
    """Writes a plan, but not the configs of runs that wait or run in Slurm, and prints what does not reach those.

    Returns:
        The queued runs, by name. Where Slurm does not answer, every run that was submitted and is not finished.

    Raises:
        UserError: as ``Plan.write``.
    """
    queue = _in_queue(plan)
    lines = unreached(plan.runs, queue)  # before anything is written
    plan.write(keep=queue.keys())
    for line in lines:
        print(line)
    return queue


def _in_queue(plan: "Plan") -> dict[str, Job]:
    if shutil.which("squeue") is None:
        return {}
    try:
        return {name: job for name, job in queued(plan.folder, patience=30.0).items() if not job.is_ending}
    except UserError as e:
        print(f"{str(e).partition(', so nothing')[0]}; runs that were submitted keep their config.yaml until it does")
        listed = {n for p in slurm_folder(plan.folder).glob("*.txt") for n in p.read_text(encoding="utf-8").split()}
        left = [p for p in plan.runs if p.config.run_name in listed and p.run.status() not in FINISHED]
        return {p.config.run_name: Job(UNKNOWN) for p in left}


def unreached(runs: Sequence["PlannedRun"], queue: Mapping[str, Job]) -> list[str]:
    """A line for each setting that was changed after jobs were queued, with the command that brings it to them."""
    jobs: dict[tuple[str, str, str, str], list[Job]] = {}
    for planned in runs:
        job = queue.get(planned.config.run_name)
        if job is None or not planned.run.config_file.exists():
            continue
        old, new = _flat(to_dict(planned.run.config())), _flat(to_dict(planned.config))
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and key not in _OF_OTHER_JOBS:
                change = (job.array, key, _text(old.get(key)), _text(new.get(key)))
                jobs.setdefault(change, []).append(job)
    tasks: dict[str, int] = {}
    for job in queue.values():
        tasks[job.array] = tasks.get(job.array, 0) + 1
    lines = []
    for (array, key, before, now), changed in jobs.items():
        which = array if len(changed) == tasks[array] else ",".join(job.id for job in changed)
        if key in _OF_ARRAY:
            remedy = f"scontrol update JobId={array} {_OF_ARRAY[key]}={now}"
        elif key in _UPDATES and now != "null":
            remedy = f"scontrol update JobId={which} {_UPDATES[key]}={now}"
        else:
            remedy = f"scancel {which.replace(',', ' ')}, then the same command again"
        noun = f"{len(changed)} run{'' if len(changed) == 1 else 's'}"
        where = f"job {which}" if array != UNKNOWN else "a job that may be in the queue"
        lines.append(f"{key}={now}: does not reach {noun} queued with {before} as {where}; {remedy}")
    return lines


def _flat(node: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _text(value: object) -> str:
    return "null" if value is None else str(value)
