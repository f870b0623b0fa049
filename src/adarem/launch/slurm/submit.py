"""A launch on Slurm: a job that prepares the data, then arrays of runs, then a job that makes the report."""

import functools
import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from adarem.launch.commands import make_report
from adarem.launch.rungs import later, places
from adarem.launch.slurm.accounting import write_down
from adarem.launch.slurm.changes import write_plan
from adarem.launch.slurm.commands import slurm_folder
from adarem.launch.slurm.programs import ignored
from adarem.launch.slurm.queue import Job, queued, report_job
from adarem.launch.slurm.sbatch import NotSubmitted
from adarem.launch.slurm.submission import Submission
from adarem.launch.snapshot import outcome
from adarem.run import exitcodes, locks
from adarem.run.config import ClusterConfig
from adarem.run.credentials import wandb_project
from adarem.run.directory import FINISHED
from adarem.run.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from adarem.plan.plan import Plan, PlannedRun


def launch_on_slurm(plan: "Plan", *, dry_run: bool = False) -> int:
    """Submits what is neither finished, nor running, nor in the queue; returns once Slurm has the jobs.

    Returns:
        OK; REQUEUE where the site's limits left runs for the same command to submit later.

    Raises:
        UserError: there is no sbatch or squeue, sbatch refuses a job, or squeue does not answer.
    """
    if dry_run:
        queue = queued(plan.folder) if shutil.which("squeue") else {}
        return _launch(plan, queue, dry_run=True)
    for program in ("sbatch", "squeue"):
        if shutil.which(program) is None:
            raise UserError(
                f"cluster=slurm: no {program} on PATH; log in to the cluster, or run on this machine's GPUs: "
                "cluster=local cluster.device=cuda cluster.ranks_per_node=8"
            )
    for name in ignored(os.environ):
        print(f"{name}={os.environ[name]}: not used; give cluster.partition, cluster.account or cluster.extra")
    write_plan(plan)
    write_down(plan.folder)  # what earlier jobs took
    with _one_launcher(plan.folder):
        return _launch(plan, queued(plan.folder), dry_run=False)


def _one_launcher(sweep: "Path") -> AbstractContextManager[None]:
    """Two launchers at once would both find the queue empty: the second waits, then sees the first one's jobs."""
    slurm_folder(sweep).mkdir(parents=True, exist_ok=True)
    line = f"{sweep}: another `adarem launch` submits; waiting for it"
    say = functools.partial(print, line, file=sys.stderr, flush=True)
    return locks.hold(slurm_folder(sweep) / "lock", patience=math.inf, on_wait=say)


def _launch(plan: "Plan", queue: Mapping[str, Job], *, dry_run: bool) -> int:
    to_start = _to_start(plan, queue)
    if not to_start and not any(not job.is_ending for job in queue.values()):
        make_report(plan)
        return exitcodes.OK
    submission = Submission(plan, queue, dry_run=dry_run)
    waiting = sorted({job.array for job in queue.values() if not job.is_ending})
    try:
        arrays = _submit_arrays(submission, [to_start, *later(plan)] if to_start else [], queue, waiting)
    except NotSubmitted as e:
        if e.kind != "unsure":
            submission.undo()
        raise
    except BaseException:
        submission.drop_needless()
        raise
    submission.drop_needless()
    if submission.full and not arrays and not waiting:
        raise UserError(
            f"sbatch: takes no job ({submission.full}), so nothing was submitted; run the same command again once some "
            "of your jobs have ended",
            retryable=True,
        )
    after = arrays or waiting
    # Without new runs too: the report job of an earlier launch may have been refused or cancelled.
    if arrays or report_job(plan.folder) is None:
        submission.report(after)
    if dry_run:
        for command in submission.commands:
            print(shlex.join(command))
        for runs in submission.lists:
            print("# the array's runs, task 0 first: " + " ".join(planned.config.run_name for planned in runs))
    else:
        _print_where_to_look(plan, after)
    if submission.full:
        left = f"{len(submission.left)} runs" if submission.left else "the report"
        print(f"left     {left}: {submission.full}; the same command submits the rest once jobs have ended")
        return exitcodes.REQUEUE
    return exitcodes.OK


def _submit_arrays(
    submission: Submission,
    stages: Sequence[Sequence["PlannedRun"]],
    queue: Mapping[str, Job],
    waiting: Sequence[str],
) -> list[str]:
    """Submits each rung's runs; returns the arrays that the report has to wait for, those of before included."""
    after: list[str] = []
    for stage in stages:  # a task of a later rung ends at once where its run does not go on
        # An array's tasks have one shape: runs of different shapes go into different arrays. Those whose last job is
        # about to end wait for it, and hold up no other.
        shapes: dict[tuple[ClusterConfig, bool], list[PlannedRun]] = {}
        for planned in stage:
            job = queue.get(planned.config.run_name)
            shapes.setdefault((planned.config.cluster, job is not None and job.is_ending), []).append(planned)
        arrays: list[str] = []
        for (cluster, ends), runs in shapes.items():
            ending = [queue[planned.config.run_name].id for planned in runs] if ends else []
            arrays += submission.arrays(cluster, runs, after, ending)
        if submission.full:  # the rungs above are for a launch that finds this one complete
            return [*after, *arrays, *waiting] if arrays or after else []
        after = [*arrays, *waiting]
    return after


def _to_start(plan: "Plan", queue: Mapping[str, Job]) -> list["PlannedRun"]:
    """The runs that need a job; prints a line on each of the others."""
    found, known = [], places(plan)
    for planned in plan.runs:
        name, status = planned.config.run_name, planned.run.status()
        job = queue.get(name)
        if job is not None and not job.is_ending:
            print(f"{name}: already in the queue as job {job.id}")
        elif status in FINISHED:
            print(f"{name}: {outcome(planned.run)}, finished before")
        elif status == "running" and job is None:
            print(f"{name}: another process trains it; skipped")
        elif (place := known.get(planned.run.path.name)) is not None and place.state != "due":
            print(f"{name}: {place.text()}{place.waiting()}")
        elif job is not None:
            print(f"{name}: job {job.id} is ending; it goes on in a new one after that")
            found.append(planned)
        else:
            found.append(planned)
    return found


def _print_where_to_look(plan: "Plan", jobs: Sequence[str]) -> None:
    print(f"queue    squeue --array --jobs={','.join(jobs)}")
    print(f"runs     adarem status grid={plan.spec.name} data={plan.spec.data}")
    print(f"logs     {slurm_folder(plan.folder)}")
    config = plan.runs[0].config
    if config.wandb.mode != "disabled":
        runs = shlex.quote(str(plan.folder))
        print(f"wandb    project {wandb_project(config)}; offline runs: wandb sync {runs}/{{.,*}}/wandb/latest-run")
    print(f"results  {plan.results_dir}")
