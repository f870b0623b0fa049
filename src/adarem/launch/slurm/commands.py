"""The sbatch lines of a sweep's jobs, and the folder where the sweep keeps its array lists and job logs."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from adarem.resources import slurm_script
from adarem.run.config import ClusterConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError

_OWN_FLAGS = re.compile(r"--(job-name|array|parsable|wait|test-only|wrap|dependency|clusters?)(?==|$)|-[JaWdM]")


def slurm_folder(sweep: Path) -> Path:
    """Where a sweep keeps what belongs to Slurm: array lists, job logs, counts of failures."""
    return sweep / "slurm"


def array_list(sweep: Path, token: str) -> Path:
    """The file that maps an array's tasks to runs: one name of a run per line."""
    return slurm_folder(sweep) / f"{token}.txt"


def job_file(sweep: Path, token: str) -> Path:
    """The file with what the jobs of a submission need; see ``adarem.launch.slurm.job_file``."""
    return slurm_folder(sweep) / f"{token}.job"


def refusal_file(run: RunDir) -> Path:
    """What Slurm said when it refused to start the run's job again."""
    return slurm_folder(run.path.parent) / f"{run.path.name}.refused.json"


def _reads(sweep: Path, token: str | None) -> list[str]:
    """The word by which a script finds that file."""
    return [f"--job-file={job_file(sweep, token)}"] if token else []


def job_name(sweep: Path, suffix: str) -> str:
    """The name of a sweep's job in the queue; characters that Slurm's options would split or expand become ``_``."""
    return re.sub(r"[^A-Za-z0-9_.=+-]+", "_", f"{sweep.name}-{suffix}")


def array_command(
    sweep: Path, token: str, runs: int, cluster: ClusterConfig, after: str | None, rung: Sequence[str] = ()
) -> list[str]:
    """The sbatch line of one array.

    Args:
        token: what distinguishes the array from the sweep's others; see ``array_list``.
        runs: number of tasks, one run per task.
        after: ids of the jobs that prepare the data, joined by colons; None when nothing has to be prepared.
        rung: ids of the arrays of the rung below, which have to end first, successfully or not.
    """
    waits = [*([f"afterok:{after}"] if after else []), *([f"afterany:{':'.join(rung)}"] if rung else [])]
    limit = f"%{cluster.max_parallel}" if cluster.max_parallel else ""
    return [
        "sbatch",
        "--parsable",
        f"--job-name={job_name(sweep, token)}",
        f"--array=0-{runs - 1}{limit}",
        f"--nodes={cluster.nodes}",
        f"--ntasks-per-node={cluster.ranks_per_node}",
        # run.sbatch asks for GPUs by itself; 0 overrides that
        f"--gpus-per-node={cluster.ranks_per_node if cluster.device == 'cuda' else 0}",
        f"--cpus-per-task={cluster.cpus_per_rank}",
        *([f"--time={cluster.time}"] if cluster.time else []),
        _output(sweep, "%A_%a.out"),
        *([f"--dependency={','.join(waits)}"] if waits else []),
        *(["--kill-on-invalid-dep=yes"] if after else []),
        *_site_options(cluster, auxiliary=False),
        str(slurm_script("run.sbatch")),
        *_reads(sweep, token),
        str(array_list(sweep, token)),
    ]


def prepare_name(key: str) -> str:
    """The name of the jobs that write one data set, whatever the sweep: of them Slurm runs one at a time."""
    return f"adarem-prepare-{key}"


def prepare_command(sweep: Path, run: RunDir, key: str, cluster: ClusterConfig, token: str | None = None) -> list[str]:
    """The job that writes the run's data; of the jobs with the same ``key`` (one data set) one runs at a time."""
    return [
        "sbatch",
        "--parsable",
        f"--job-name={prepare_name(key)}",
        "--dependency=singleton",
        f"--cpus-per-task={cluster.cpus_per_rank * cluster.ranks_per_node}",
        _output(sweep, "prepare-%j.out"),
        *_site_options(cluster, auxiliary=True),
        str(slurm_script("prepare.sbatch")),
        *_reads(sweep, token),
        str(run.path),
    ]


def probe_command(
    sweep: Path,
    folder: Path,
    runs_dir: Path,
    seconds: float,
    cells: int,
    cluster: ClusterConfig,
    token: str | None = None,
) -> list[str]:
    """The job that measures the cells of a folder, one after another, on as many nodes as a run has."""
    minutes = 10 + math.ceil(cells * (3 + 4 * seconds / 60))
    return [
        "sbatch",
        "--parsable",
        f"--job-name={job_name(sweep, _suffix('probe', token))}",
        f"--nodes={cluster.nodes}",
        f"--ntasks-per-node={cluster.ranks_per_node}",
        f"--gpus-per-node={cluster.ranks_per_node if cluster.device == 'cuda' else 0}",
        f"--cpus-per-task={cluster.cpus_per_rank}",
        f"--time={minutes // 60:02d}:{minutes % 60:02d}:00",
        _output(sweep, "probe-%j.out"),
        *_site_options(cluster, auxiliary=False),
        str(slurm_script("probe.sbatch")),
        *_reads(sweep, token),
        str(folder),
        str(runs_dir),
        f"{seconds:g}",
    ]


def report_command(
    sweep: Path,
    arguments: Sequence[str],
    cluster: ClusterConfig,
    after: Sequence[str] = (),
    token: str | None = None,
) -> list[str]:
    """The job that makes the report once every job in ``after``, if any, has ended, successfully or not."""
    return [
        "sbatch",
        "--parsable",
        f"--job-name={job_name(sweep, _suffix('report', token))}",
        *([f"--dependency=afterany:{':'.join(after)}"] if after else []),
        _output(sweep, "report-%j.out"),
        *_site_options(cluster, auxiliary=True),
        str(slurm_script("report.sbatch")),
        *_reads(sweep, token),
        *arguments,
    ]


def _suffix(what: str, token: str | None) -> str:
    return f"{what}-{token}" if token else what


def _output(sweep: Path, pattern: str) -> str:
    logs = str(slurm_folder(sweep))
    if "\\" in logs:  # a backslash switches Slurm's patterns off
        raise UserError(f"{logs}: Slurm cannot write logs to a path with a backslash; give another runs_dir")
    return f"--output={logs.replace('%', '%%')}/{pattern}"


def _site_options(cluster: ClusterConfig, *, auxiliary: bool) -> list[str]:
    """Partition, account and the site's own flags; ``auxiliary`` jobs (prepare, report) need no GPU."""
    partition = cluster.aux_partition or cluster.partition if auxiliary else cluster.partition
    options = [("partition", partition), ("account", cluster.account)]
    key, extra = ("aux_extra", cluster.aux_extra) if auxiliary else ("extra", cluster.extra)
    for flag in extra:
        if match := _OWN_FLAGS.match(flag):
            raise UserError(
                f"cluster.{key}: {flag}: launch has its own {match[0]}, by which it finds its jobs again; leave it out"
            )
    return [*(f"--{flag}={value}" for flag, value in options if value), *extra]
