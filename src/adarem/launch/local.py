"""A launch on this machine: prepares data, trains the runs as `parallel` hands out GPUs or cores, makes the report."""

import contextlib
import importlib.util
import os
import shlex
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from adarem.dependencies import install_command
from adarem.launch.commands import (
    after_setup,
    environment,
    make_report,
    prepare_command,
    report_command,
    train_command,
)
from adarem.launch.devices import device_pool
from adarem.launch.fork_server import ForkServer
from adarem.launch.parallel import Outcome, Task, train_all
from adarem.launch.preparation import unprepared
from adarem.launch.rungs import due, later, places, undecided
from adarem.launch.signal_forwarding import run_forwarding_signals
from adarem.launch.slurm.changes import UNKNOWN, write_plan
from adarem.launch.slurm.queue import Job
from adarem.launch.snapshot import outcome
from adarem.run import exitcodes
from adarem.run.config import DataConfig
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError

if TYPE_CHECKING:
    from adarem.plan.plan import Plan, PlannedRun


def launch_here(plan: "Plan", *, dry_run: bool = False) -> int:
    """Prepares the data, trains the runs in the plan's order, makes the report.

    Returns:
        OK; FAILED when a run failed; REQUEUE when a signal stopped the launch; the exit code of `adarem prepare` when
        the data could not be prepared.

    Raises:
        UserError: a run asks for more than one node or more GPUs than there are, or reads through FFCV, which is not
            installed.
    """
    for planned in plan.runs:
        nodes = planned.config.cluster.nodes
        if nodes > 1:
            raise UserError(f"cluster.nodes={nodes}: this machine is one node; give cluster.nodes=1 or cluster=slurm")
    if dry_run:
        _print_commands(plan)
        return exitcodes.OK
    _check_loader(plan)
    with _fork_server(plan) as server:  # which imports while data are prepared
        plan = _without_queued(plan, write_plan(plan))
        if not plan.runs:
            return exitcodes.OK
        if code := _prepare(plan):
            return code
        return _train(plan, server)


def _without_queued(plan: "Plan", queue: Mapping[str, Job]) -> "Plan":
    """What Slurm's queue leaves to this machine; prints a line on each of the others."""
    for name, job in queue.items():
        known = f"in Slurm's queue as job {job.id}; skipped, scancel {job.id} to train it here"
        print(f"{name}: {known if job.id != UNKNOWN else 'submitted to Slurm, which does not answer; skipped'}")
    return replace(plan, runs=[p for p in plan.runs if p.config.run_name not in queue]) if queue else plan


def _fork_server(plan: "Plan") -> contextlib.AbstractContextManager[ForkServer | None]:
    """One for runs on CPUs whose number of threads is stated: torch reads what is not stated when it is imported."""
    for planned in due(plan)[:1]:
        cluster = planned.config.cluster
        if cluster.device == "cpu" and not cluster.setup and cluster.threads_per_rank > 0:
            return ForkServer(environment(cluster))
    return contextlib.nullcontext()


def _check_loader(plan: "Plan") -> None:
    """FFCV is an extra of its own: without it each run would fail after the data are prepared."""
    reads = any(
        isinstance(planned.config.data, DataConfig) and planned.config.data.backend == "ffcv" for planned in due(plan)
    )
    if reads and importlib.util.find_spec("ffcv") is None:
        raise UserError(
            f"data.backend=ffcv: ffcv is not installed; run `{install_command('ffcv')}`, or set data.backend=folder"
        )


def _command(planned: "PlannedRun") -> list[str]:
    cluster = planned.config.cluster
    return after_setup(cluster, train_command(planned.run, cluster.ranks_per_node))


def _print_commands(plan: "Plan") -> None:
    to_train = due(plan)
    commands = [prepare_command(run) for run in unprepared(to_train).values()]
    for command in (*commands, *map(_command, to_train)):
        print(shlex.join(command))
    for runs in later(plan):
        print(f"# then, of {len(runs)} runs, those that go on")
    print(shlex.join(report_command(plan)))


def _prepare(plan: "Plan") -> int:
    for run in unprepared(due(plan)).values():
        end = run_forwarding_signals(prepare_command(run), dict(os.environ))
        if end.code:
            print(f"data: not prepared, exit code {end.code}; nothing was trained", file=sys.stderr)
            if end.stopped:
                return exitcodes.REQUEUE
            return end.code if end.code == exitcodes.USER_ERROR else exitcodes.FAILED
        plan.check_data()  # once more: what was prepared may be other data than finished runs have read
    return exitcodes.OK


def _train(plan: "Plan", server: ForkServer | None) -> int:
    cluster = plan.runs[0].config.cluster
    _print_settled(plan)
    outcomes: list[Outcome] = []
    # Once, but in a search with halving: there once for each rung. What failed is not tried again.
    while tasks := _tasks(plan, {o.task.run for o in outcomes if o.ended != "done"}):
        pool = device_pool(cluster.device)
        outcomes += train_all(tasks, pool, at_a_time=cluster.max_parallel, server=server)
        if any(o.ended == "stopped" for o in outcomes):
            return exitcodes.REQUEUE
    make_report(plan)
    for line in undecided(plan):
        print(line)
    for o in outcomes:
        if o.ended == "elsewhere":
            print(f"skipped, another process trains it: {o.task.run.path}")
    failed = [o.task.run for o in outcomes if o.ended == "failed"]
    for run in failed:
        log = run.log_file
        print(f"failed: {run.path.name}; log: {log if log.exists() else 'none, its output is above'}")
    if failed:
        print(f"{len(failed)} of {len(plan.runs)} runs failed; the same command tries them again")
    return exitcodes.FAILED if failed else exitcodes.OK


def _print_settled(plan: "Plan") -> None:
    """A line on each run that nothing is left to do of."""
    known = places(plan)
    for planned, name in zip(plan.runs, _names(plan), strict=True):
        place = known.get(planned.run.path.name)
        if planned.run.status() in FINISHED:
            print(f"{name}: {outcome(planned.run)}, finished before", flush=True)
        elif place is not None and place.state != "due":
            print(f"{name}: {place.text()}", flush=True)


def _names(plan: "Plan") -> list[str]:
    return [f"[{i}/{len(plan.runs)}] {planned.config.run_name}" for i, planned in enumerate(plan.runs, 1)]


def _tasks(plan: "Plan", left: Collection[RunDir]) -> list[Task]:
    """What may train now, without the runs that are ``left``."""
    tasks, known = [], places(plan)
    to_train = {planned.run for planned in due(plan)}
    for planned, name in zip(plan.runs, _names(plan), strict=True):
        cluster, run = planned.config.cluster, planned.run
        if run in to_train and run not in left:
            place = known.get(run.path.name)
            until = planned.config.scale.epochs if place is None else place.until
            devices = cluster.ranks_per_node * (1 if cluster.device == "cuda" else cluster.cpus_per_rank)
            tasks.append(Task(name, run, _command(planned), environment(cluster), devices, until))
    return tasks
