"""A launch on Slurm: a job that prepares the data, then an array per shape of run, then a job that makes the report."""

import functools
import math
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.launch.commands import environment, make_report, publishes, report_arguments
from adarem.launch.preparation import unprepared
from adarem.launch.rungs import later, places
from adarem.launch.slurm.accounting import keep_array_job, write_down
from adarem.launch.slurm.commands import array_command, array_list, prepare_command, report_command, slurm_folder
from adarem.launch.slurm.queue import keep_report_job, queued, report_is_queued
from adarem.launch.snapshot import outcome
from adarem.run import exitcodes, locks
from adarem.run.config import ClusterConfig
from adarem.run.credentials import wandb_project
from adarem.run.directory import FINISHED
from adarem.run.errors import UserError
from adarem.run.estimate import FLAT_TIME, time_limit
from adarem.run.files import write_atomically

if TYPE_CHECKING:
    from adarem.plan.plan import Plan, PlannedRun


def launch_on_slurm(plan: "Plan", *, dry_run: bool = False) -> int:
    """Submits what is neither finished, nor running, nor in the queue; returns once Slurm has the jobs.

    Raises:
        UserError: there is no sbatch, it refuses a job, or squeue does not answer.
    """
    if dry_run:
        queue = queued(plan.folder) if shutil.which("squeue") else {}
        return _launch(plan, queue, dry_run=True)
    if shutil.which("sbatch") is None:
        raise UserError(
            "cluster=slurm: no sbatch on PATH; log in to the cluster, or run on this machine's GPUs: "
            "cluster=local cluster.device=cuda cluster.ranks_per_node=8"
        )
    plan.write()
    write_down(plan.folder)  # what earlier jobs took
    with _one_launcher(plan.folder):
        queue = queued(plan.folder) if shutil.which("squeue") else {}
        return _launch(plan, queue, dry_run=False)


def _one_launcher(sweep: Path) -> AbstractContextManager[None]:
    """Two launchers at once would both find the queue empty: the second waits, then sees the first one's jobs."""
    slurm_folder(sweep).mkdir(parents=True, exist_ok=True)
    line = f"{sweep}: another `adarem launch` submits; waiting for it"
    say = functools.partial(print, line, file=sys.stderr, flush=True)
    return locks.hold(slurm_folder(sweep) / "lock", patience=math.inf, on_wait=say)


def _launch(plan: "Plan", queue: Mapping[str, str], *, dry_run: bool) -> int:
    to_start = _to_start(plan, queue)
    if not to_start and not queue:
        make_report(plan)
        return exitcodes.OK
    submission = _Submission(plan, dry_run)
    # An array's tasks have one shape: runs of different shapes (a grid over cluster.nodes) go into different arrays.
    lists: list[Sequence[PlannedRun]] = []
    arrays: list[str] = []
    queued_jobs = sorted({job.split("_")[0] for job in queue.values()})
    after: list[str] = []
    stages = [to_start, *later(plan)] if to_start else []
    for stage in stages:  # a task of a later rung ends at once where its run does not go on
        shapes: dict[ClusterConfig, list[PlannedRun]] = {}
        for planned in stage:
            shapes.setdefault(planned.config.cluster, []).append(planned)
        arrays = [submission.array(cluster, runs, after) for cluster, runs in shapes.items()]
        lists += shapes.values()
        after = [*arrays, *queued_jobs]
    after = after or queued_jobs
    # Without new runs too: the report job of an earlier launch may have been refused or cancelled.
    if arrays or not report_is_queued(plan.folder):
        submission.report(after)
    if dry_run:
        for command in submission.commands:
            print(shlex.join(command))
        for runs in lists:
            print("# the array's runs, task 0 first: " + " ".join(planned.config.run_name for planned in runs))
    else:
        _print_where_to_look(plan, after)
    return exitcodes.OK


def _to_start(plan: "Plan", queue: Mapping[str, str]) -> list["PlannedRun"]:
    """The runs that need a job; prints a line on each of the others."""
    found, known = [], places(plan)
    for planned in plan.runs:
        name, status = planned.config.run_name, planned.run.status()
        if name in queue:
            print(f"{name}: already in the queue as job {queue[name]}")
        elif status in FINISHED:
            print(f"{name}: {outcome(planned.run)}, finished before")
        elif status == "running":
            print(f"{name}: another process trains it; skipped")
        elif (place := known.get(planned.run.path.name)) is not None and place.state != "due":
            print(f"{name}: {place.text()}{place.waiting()}")
        else:
            found.append(planned)
    return found


class _Submission:
    """Submits a launch's jobs one after another, or only collects their lines when ``dry_run``."""

    def __init__(self, plan: "Plan", dry_run: bool) -> None:
        self.plan, self.dry_run = plan, dry_run
        self.commands: list[list[str]] = []
        self._price = plan.price()
        self.prepared_by: dict[str, str] = {}  # a data set's key to the job that prepares it

    def array(self, cluster: ClusterConfig, runs: Sequence["PlannedRun"], rung: Sequence[str] = ()) -> str:
        """Submits one array, and before it a job for each data set that is not prepared; returns the array's id.

        Args:
            rung: the arrays of the rung below.
        """
        sweep, prepared_by = self.plan.folder, []
        for key, run in unprepared(runs).items():
            if key not in self.prepared_by:
                self.prepared_by[key] = self._submit(prepare_command(sweep, run, key, cluster), cluster)
                print(f"prepare  job {self.prepared_by[key]}: writes the .beton files")
            prepared_by.append(self.prepared_by[key])
        cluster = replace(cluster, time=self._time_limit(cluster, runs))
        token = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)
        names = array_list(sweep, token)
        if not self.dry_run:
            write_atomically(names, "".join(f"{planned.config.run_name}\n" for planned in runs))
        try:
            command = array_command(sweep, token, len(runs), cluster, ":".join(prepared_by) or None, rung)
            job = self._submit(command, cluster)
        except UserError:
            names.unlink(missing_ok=True)
            raise
        if not self.dry_run:
            keep_array_job(sweep, token, job)
        on = f", those that go on after job {':'.join(rung)}" if rung else ""
        print(f"array    job {job}: {len(runs)} runs, {cluster.nodes} nodes x {cluster.ranks_per_node} ranks each{on}")
        return job

    def _time_limit(self, cluster: ClusterConfig, runs: Sequence["PlannedRun"]) -> str | None:
        """That of the longest run, where all were measured and the user gives none."""
        limits = self._price.limits
        names = [planned.run.path.name for planned in runs]
        if self.plan.time_given or cluster.time != FLAT_TIME or not all(name in limits for name in names):
            return cluster.time
        return time_limit(max(limits[name] for name in names))

    def report(self, after: Sequence[str]) -> None:
        """Submits the job that makes the report once the jobs ``after`` have ended."""
        cluster = self.plan.runs[0].config.cluster
        command = report_command(self.plan.folder, report_arguments(self.plan), cluster, after)
        try:
            job = self._submit(command, cluster)
        except UserError as e:
            keys = "cluster.aux_partition, cluster.aux_extra or cluster.account"
            raise UserError(f"{e}; the runs are queued without a report: fix {keys}, launch again") from e
        if not self.dry_run:
            keep_report_job(self.plan.folder, job)
        print(f"report   job {job}: when all have ended")

    def _submit(self, command: list[str], cluster: ClusterConfig) -> str:
        self.commands.append(command)
        if self.dry_run:
            return f"JOB{len(self.commands)}"
        env = environment(cluster) | {"ADAREM_PYTHON": sys.executable, "ADAREM_SETUP": cluster.setup}
        env["ADAREM_SWEEP"] = str(self.plan.folder)
        env["ADAREM_PUBLISH"] = str(self.plan.folder) if publishes(self.plan) else ""
        return submit(command, env)


def submit(command: Sequence[str], env: Mapping[str, str]) -> str:
    """Runs one sbatch line, without a shell, and returns the job's id.

    Raises:
        UserError: sbatch refused; the message quotes it.
    """
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"sbatch: refused the job ({'; '.join(lines)}); fix cluster.* of the config")
    return done.stdout.strip().split(";")[0]  # "id" or "id;cluster"


def _print_where_to_look(plan: "Plan", jobs: Sequence[str]) -> None:
    print(f"queue    squeue --array --jobs={','.join(jobs)}")
    print(f"runs     adarem status grid={plan.spec.name} data={plan.spec.data}")
    print(f"logs     {slurm_folder(plan.folder)}")
    config = plan.runs[0].config
    if config.wandb.mode != "disabled":
        runs = shlex.quote(str(plan.folder))
        print(f"wandb    project {wandb_project(config)}; offline runs: wandb sync {runs}/{{.,*}}/wandb/latest-run")
    print(f"results  {plan.results_dir}")
