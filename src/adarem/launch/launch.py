"""Control plane, second half: starts what is not finished, on this machine or as one Slurm array.

Never imports torch. A cell's outcome is read from its run directory, never from an exit code alone.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.data import is_prepared
from adarem.data.text.corpus import read_corpus
from adarem.launch.child import run_child
from adarem.launch.slurm import jobs as slurm
from adarem.run import exitcodes
from adarem.run.config import ClusterConfig, TextConfig
from adarem.run.directory import FINISHED, RunDir
from adarem.run.errors import UserError
from adarem.run.files import write_atomically

if TYPE_CHECKING:  # a launch of planned cells needs no Hydra
    from adarem.plan.plan import Cell, Plan


def launch(plan: "Plan", *, dry_run: bool = False) -> int:
    """Starts every cell of the plan that is neither finished nor being worked on.

    Args:
        plan: the cells; their run directories are frozen first.
        dry_run: print the exact commands instead of running them; writes nothing.

    Returns:
        An exit code of ``adarem.run.exitcodes``.

    Raises:
        UserError: the cluster that the config names cannot be used from here; a text's files are not as they should.
    """
    if not plan.cells:
        raise UserError("the plan has no cells; give the grid at least one value an axis")
    kinds = {c.config.cluster.name for c in plan.cells}
    if len(kinds) > 1:
        raise UserError("cluster: one launch goes to one kind of cluster; launch local and slurm cells apart")
    for data in {c.config.data for c in plan.cells if isinstance(c.config.data, TextConfig)}:
        if not data.embedded and not dry_run:
            read_corpus(data)  # there is nothing to prepare: wrong files need not wait in the queue
    return _slurm(plan, dry_run) if kinds == {"slurm"} else _local(plan, dry_run)


def _unprepared(cells: list["Cell"]) -> dict[str, RunDir]:
    """One run for each data set that has to be written, under a key that stands for the data set."""
    found = {}
    for cell in cells:
        data = cell.config.data
        if not is_prepared(data):
            place = os.path.abspath(data.root if isinstance(data, TextConfig) else data.beton_dir)
            found.setdefault(hashlib.sha256(place.encode()).hexdigest()[:8], cell.run)
    return found


def _report_arguments(plan: "Plan") -> list[str]:
    return [
        f"grid={plan.grid['name']}",
        f"data={plan.grid['data']}",
        f"scale={plan.grid['scale']}",
        f"runs_dir={plan.runs_dir}",
        f"results_dir={plan.results_dir}",
    ]


def _environment(cluster: ClusterConfig) -> dict[str, str]:
    env = dict(os.environ)
    if cluster.threads_per_rank > 0:
        env["OMP_NUM_THREADS"] = str(cluster.threads_per_rank)
    return env


# --- this machine ---------------------------------------------------------------------------------------------------


def train_command(run: RunDir, ranks: int) -> list[str]:
    """torchrun, with the Python that runs this."""
    torchrun = [sys.executable, "-m", "adarem.launch.torchrun", "--standalone", f"--nproc-per-node={ranks}"]
    return [*torchrun, "-m", "adarem", "train", str(run.path)]


def _setup(cluster: ClusterConfig, command: list[str]) -> list[str]:
    return ["bash", "-c", f'{cluster.setup}\nexec "$@"', "bash", *command] if cluster.setup else command


def _local(plan: "Plan", dry_run: bool) -> int:
    for cell in plan.cells:
        nodes = cell.config.cluster.nodes
        if nodes > 1:
            raise UserError(f"cluster.nodes={nodes}: this machine is one node; give cluster.nodes=1 or cluster=slurm")
    if not dry_run:
        plan.write()
    todo = [c for c in plan.cells if c.run.status() not in FINISHED]
    commands = [[sys.executable, "-m", "adarem", "prepare", str(r.path)] for r in _unprepared(todo).values()]
    if dry_run:
        commands += [_setup(c.config.cluster, train_command(c.run, c.config.cluster.ranks_per_node)) for c in todo]
        for command in (*commands, [sys.executable, "-m", "adarem", "report", *_report_arguments(plan)]):
            print(shlex.join(command))
        return exitcodes.OK
    for command in commands:
        code, stopped = run_child(command, dict(os.environ))
        if code:
            print(f"preparing the data ended with exit code {code}; nothing was trained", file=sys.stderr)
            return exitcodes.REQUEUE if stopped else code if code == exitcodes.USER_ERROR else exitcodes.FAILED
    failed, busy = [], []
    for i, cell in enumerate(plan.cells, 1):
        name, run, cluster = f"[{i}/{len(plan.cells)}] {cell.config.cell}", cell.run, cell.config.cluster
        if run.status() in FINISHED:
            print(f"{name}: {_outcome(run)}, finished before", flush=True)
            continue
        if run.locked() or run.status() == "running":
            busy.append(cell)
            print(f"{name}: another process works on it; left alone", flush=True)
            continue
        print(f"{name}: starts on {cluster.ranks_per_node} ranks", flush=True)
        began = time.monotonic()
        command = _setup(cluster, train_command(run, cluster.ranks_per_node))
        code, stopped = run_child(command, _environment(cluster))
        took = f"{time.monotonic() - began:.0f} s"
        if run.status() in FINISHED:
            print(f"{name}: {_outcome(run)}, {took}", flush=True)
        elif stopped:
            print(f"{name}: stopped after {took}; the same command goes on where it stopped", flush=True)
            return exitcodes.REQUEUE
        elif run.locked():
            busy.append(cell)
            print(f"{name}: another process took it meanwhile; left alone", flush=True)
        else:
            failed.append(cell)
            print(f"{name}: FAILED after {took} (exit code {code})", flush=True)
    _print_report(plan)
    for cell in busy:
        print(f"left alone, another process works on it: {cell.run.path}")
    for cell in failed:
        log = cell.run.log_file
        print(f"failed: {cell.config.cell}; log: {log if log.exists() else 'above, it never came to write one'}")
    if failed:
        print(f"{len(failed)} of {len(plan.cells)} cells failed; the same command tries them again")
    return exitcodes.FAILED if failed else exitcodes.OK


def _outcome(run: RunDir) -> str:
    result = run.result() or {}
    if result.get("status") == "diverged":
        return f"diverged in epoch {result.get('epoch', '?')}"
    if "perplexity" in result:
        return f"test perplexity {result['perplexity']:.2f}"
    return f"top-1 {result['top1']:.2f} %"


def _print_report(plan: "Plan") -> None:
    # A child process, so that a report that cannot be made does not hide what the launch has to say.
    command = [sys.executable, "-m", "adarem", "report", *_report_arguments(plan)]
    if subprocess.run(command).returncode:
        print(f"the report could not be made; try it alone: {shlex.join(command)}", file=sys.stderr)
    elif _publishes(plan):
        command = [sys.executable, "-m", "adarem", "wandb", "publish", str(plan.folder)]
        command.append(f"--results-dir={plan.results_dir}")
        if subprocess.run(command).returncode:
            print(f"wandb has no table of it; try it alone: {shlex.join(command)}", file=sys.stderr)


def _publishes(plan: "Plan") -> bool:
    """Whether wandb shows the table and the figures too."""
    return plan.cells[0].config.wandb.mode != "disabled" and os.environ.get("WANDB_MODE") != "disabled"


# --- Slurm ----------------------------------------------------------------------------------------------------------


def _slurm(plan: "Plan", dry_run: bool) -> int:
    if not dry_run and shutil.which("sbatch") is None:
        raise UserError(
            "cluster=slurm: no sbatch on PATH; log in to the cluster, or run on this machine's GPUs: "
            "cluster=local cluster.device=cuda cluster.ranks_per_node=8"
        )
    if not dry_run:
        plan.write()
    with contextlib.nullcontext() if dry_run else _one_at_a_time(plan.folder):
        queue = slurm.queued(plan.folder) if shutil.which("squeue") else {}
        todo = []
        for cell in plan.cells:
            status = cell.run.status()
            if cell.config.cell in queue:
                print(f"{cell.config.cell}: already in the queue as job {queue[cell.config.cell]}")
            elif status in FINISHED:
                print(f"{cell.config.cell}: {_outcome(cell.run)}, finished before")
            elif status == "running":
                print(f"{cell.config.cell}: another process works on it; left alone")
            else:
                todo.append(cell)
        return _submit(plan, todo, queue, dry_run)


def _submit(plan: "Plan", todo: list["Cell"], queue: dict[str, str], dry_run: bool) -> int:
    if not todo and not queue:
        _print_report(plan)
        return exitcodes.OK
    # Array jobs are uniform: cells of different shapes (a grid over cluster.nodes) go into arrays of their own.
    shapes: dict[ClusterConfig, list[Cell]] = {}
    for cell in todo:
        shapes.setdefault(cell.config.cluster, []).append(cell)
    arrays, commands = [], []

    def submit(command: list[str], cluster: ClusterConfig) -> str:
        commands.append(command)
        if dry_run:
            return f"JOB{len(commands)}"
        env = _environment(cluster) | {"ADAREM_PYTHON": sys.executable, "ADAREM_SETUP": cluster.setup}
        env["ADAREM_PUBLISH"] = str(plan.folder) if _publishes(plan) else ""
        return slurm.submit(command, env)

    for cluster, cells in shapes.items():
        first = []
        for key, run in _unprepared(cells).items():
            first.append(submit(slurm.prepare_command(plan.folder, run, key, cluster), cluster))
            print(f"prepare  job {first[-1]}: writes the .beton files")
        token = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(3)
        listing = slurm.array_list(plan.folder, token)
        if not dry_run:
            write_atomically(listing, "".join(f"{c.config.cell}\n" for c in cells))
        command = slurm.array_command(plan.folder, token, len(cells), cluster, ":".join(first) or None)
        try:
            arrays.append(submit(command, cluster))
        except UserError:
            listing.unlink(missing_ok=True)
            raise
        print(
            f"array    job {arrays[-1]}: {len(cells)} runs, {cluster.nodes} nodes x {cluster.ranks_per_node} ranks each"
        )
    waits_for = [*arrays, *sorted({job.split("_")[0] for job in queue.values()})]
    cluster = plan.cells[0].config.cluster
    # Without new runs too: a report job that was refused before, or cancelled, is made up for.
    if arrays or not slurm.report_waits(plan.folder):
        try:
            report = submit(slurm.report_command(plan.folder, _report_arguments(plan), cluster, waits_for), cluster)
        except UserError as e:
            keys = "cluster.aux_partition, cluster.aux_extra or cluster.account"
            raise UserError(f"{e}; the runs are queued without a report: mend {keys}, launch again") from e
        if not dry_run:
            slurm.note_report(plan.folder, report)
        print(f"report   job {report}: when all have ended")
    if dry_run:
        for command in commands:
            print(shlex.join(command))
        for cells in shapes.values():
            print("# the array's runs, task 0 first: " + " ".join(c.config.cell for c in cells))
        return exitcodes.OK
    print(f"queue    squeue --array --jobs={','.join(waits_for)}")
    print(f"runs     adarem status grid={plan.grid['name']} data={plan.grid['data']}")
    print(f"logs     {slurm.folder(plan.folder)}")
    wandb = plan.cells[0].config.wandb
    if wandb.mode != "disabled":
        runs = shlex.quote(str(plan.folder))
        print(f"wandb    project {wandb.project}; offline runs: wandb sync {runs}/{{.,*}}/wandb/latest-run")
    print(f"results  {plan.results_dir}")
    return exitcodes.OK


@contextlib.contextmanager
def _one_at_a_time(campaign: Path) -> Iterator[None]:
    """Two launchers at once would both find the queue empty: the second waits, then sees the first one's jobs."""
    slurm.folder(campaign).mkdir(parents=True, exist_ok=True)
    with open(slurm.folder(campaign) / "lock", "a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another `adarem launch` submits from {campaign}; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(f, fcntl.LOCK_EX)
        yield
