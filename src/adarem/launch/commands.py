"""The `adarem` commands that a launch is made of: train, prepare, report, publish, and their environment."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adarem.run.config import ClusterConfig
from adarem.run.directory import RunDir
from adarem.run.sweep import sweep_name

if TYPE_CHECKING:  # a launch of a plan that is made needs no Hydra
    from adarem.plan.plan import Plan


def train_command(run: RunDir, ranks: int) -> list[str]:
    """``ranks`` processes on this machine, under the Python that runs this."""
    return ranks_command(["-m", "adarem", "train", str(run.path)], ranks)


def ranks_command(module: Sequence[str], ranks: int) -> list[str]:
    """``ranks`` processes of a module on this machine; ``module``: -m, its name and its arguments."""
    return [sys.executable, "-m", "adarem.launch.ranks", f"--nproc-per-node={ranks}", *module]


def prepare_command(run: RunDir) -> list[str]:
    """Writes the data set that the run reads."""
    return [sys.executable, "-m", "adarem", "prepare", str(run.path)]


def report_command(plan: "Plan") -> list[str]:
    """Makes the report of the plan's sweep."""
    return [sys.executable, "-m", "adarem", "report", *report_arguments(plan)]


def report_arguments(plan: "Plan") -> list[str]:
    """The ``key=value`` words by which `adarem report` finds the plan's sweep."""
    data, scale = str(plan.spec.data), str(plan.spec.scale)
    sweep = [f"grid={plan.spec.name}", f"data={data}", f"scale={scale}"]
    if plan.folder.name != sweep_name(plan.spec.name, data, scale):  # one next to the grid's own
        sweep = [f"grid={plan.folder.name}"]
    return [
        *sweep,
        f"runs_dir={plan.runs_dir}",
        f"results_dir={plan.results_dir}",
    ]


def publish_command(sweep: Path, results_dir: Path) -> list[str]:
    """Sends the sweep's report to wandb."""
    return [sys.executable, "-m", "adarem", "wandb", "publish", str(sweep), f"--results-dir={results_dir}"]


def after_setup(cluster: ClusterConfig, command: list[str]) -> list[str]:
    """The command in a shell that has run ``cluster.setup`` before; without a setup the command itself."""
    return ["bash", "-c", f'{cluster.setup}\nexec "$@"', "bash", *command] if cluster.setup else command


def environment(cluster: ClusterConfig) -> dict[str, str]:
    """This process's environment, with the number of threads that the config asks for."""
    env = dict(os.environ)
    if cluster.threads_per_rank > 0:
        env["OMP_NUM_THREADS"] = str(cluster.threads_per_rank)
    return env


def publishes(plan: "Plan") -> bool:
    """Whether wandb gets the table and the figures too."""
    return plan.runs[0].config.wandb.mode != "disabled" and os.environ.get("WANDB_MODE") != "disabled"


def make_report(plan: "Plan") -> None:
    """Makes and prints the report, then publishes it, in child processes: their failure is not the launch's."""
    command = report_command(plan)
    if subprocess.run(command).returncode:
        print(f"report: not made; rerun it alone: {shlex.join(command)}", file=sys.stderr)
    elif publishes(plan):
        command = publish_command(plan.folder, plan.results_dir)
        if subprocess.run(command).returncode:
            print(f"wandb: table and figures not published; rerun it alone: {shlex.join(command)}", file=sys.stderr)
