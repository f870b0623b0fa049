"""A launch on this machine: prepares data, trains the runs as `parallel` hands out GPUs or cores, makes the report."""

import importlib.util
import os
import shlex
import sys
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
from adarem.launch.parallel import Task, train_all
from adarem.launch.preparation import unprepared
from adarem.launch.signal_forwarding import run_forwarding_signals
from adarem.launch.snapshot import outcome
from adarem.run import exitcodes
from adarem.run.config import DataConfig
from adarem.run.directory import FINISHED
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
    plan.write()
    if code := _prepare(plan):
        return code
    return _train(plan)


def _check_loader(plan: "Plan") -> None:
    """FFCV is an extra of its own: without it each run would fail after the data are prepared."""
    reads = any(
        isinstance(planned.config.data, DataConfig) and planned.config.data.backend == "ffcv"
        for planned in _unfinished(plan)
    )
    if reads and importlib.util.find_spec("ffcv") is None:
        raise UserError(
            f"data.backend=ffcv: ffcv is not installed; run `{install_command('ffcv')}`, or set data.backend=folder"
        )


def _unfinished(plan: "Plan") -> list["PlannedRun"]:
    return [planned for planned in plan.runs if planned.run.status() not in FINISHED]


def _command(planned: "PlannedRun") -> list[str]:
    cluster = planned.config.cluster
    return after_setup(cluster, train_command(planned.run, cluster.ranks_per_node))


def _print_commands(plan: "Plan") -> None:
    to_train = _unfinished(plan)
    commands = [prepare_command(run) for run in unprepared(to_train).values()]
    for command in (*commands, *map(_command, to_train), report_command(plan)):
        print(shlex.join(command))


def _prepare(plan: "Plan") -> int:
    for run in unprepared(_unfinished(plan)).values():
        end = run_forwarding_signals(prepare_command(run), dict(os.environ))
        if end.code:
            print(f"data: not prepared, exit code {end.code}; nothing was trained", file=sys.stderr)
            if end.stopped:
                return exitcodes.REQUEUE
            return end.code if end.code == exitcodes.USER_ERROR else exitcodes.FAILED
        plan.check_data()  # once more: what was prepared may be other data than finished runs have read
    return exitcodes.OK


def _train(plan: "Plan") -> int:
    cluster = plan.runs[0].config.cluster
    tasks = _tasks(plan)
    outcomes = train_all(tasks, device_pool(cluster.device), at_a_time=cluster.max_parallel) if tasks else []
    if any(o.ended == "stopped" for o in outcomes):
        return exitcodes.REQUEUE
    make_report(plan)
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


def _tasks(plan: "Plan") -> list[Task]:
    """What is left to train; the rest is named."""
    tasks = []
    for i, planned in enumerate(plan.runs, 1):
        name, cluster = f"[{i}/{len(plan.runs)}] {planned.config.run_name}", planned.config.cluster
        if planned.run.status() in FINISHED:
            print(f"{name}: {outcome(planned.run)}, finished before", flush=True)
            continue
        devices = cluster.ranks_per_node * (1 if cluster.device == "cuda" else cluster.cpus_per_rank)
        tasks.append(Task(name, planned.run, _command(planned), environment(cluster), devices))
    return tasks
