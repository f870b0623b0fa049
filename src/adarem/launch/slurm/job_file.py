"""What a sweep's jobs need, in a file of the sweep: Python, setup, threads.

Slurm may start a job without the environment in which it was submitted (``--export=NONE``, SBATCH_EXPORT, a site's
default). The scripts in slurm/ read this file, which nobody but its owner can write, before anything else.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from adarem.run.config import ClusterConfig
from adarem.run.files import writing

# Of the launcher's environment: where modules and configs are found, and what becomes of copies on wandb. No secret.
_TRAVEL = ("PYTHONPATH", "ADAREM_CONFIGS", "ADAREM_DECODE", "WANDB_MODE", "WANDB_BASE_URL")


def write_job_file(path: Path, cluster: ClusterConfig, given: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Writes the file of a job of this shape.

    Args:
        given: the launcher's environment.
        own: further variables of this job.

    Raises:
        UserError: it cannot be written.
    """
    variables = {"ADAREM_PYTHON": sys.executable, "ADAREM_SETUP": cluster.setup}
    variables |= own
    variables |= {key: given[key] for key in _TRAVEL if given.get(key)}
    if places := variables.get("PYTHONPATH"):
        variables["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, places.split(os.pathsep)))
    if place := variables.get("ADAREM_CONFIGS"):
        variables["ADAREM_CONFIGS"] = os.path.abspath(place)
    threads = str(cluster.threads_per_rank) if cluster.threads_per_rank > 0 else given.get("OMP_NUM_THREADS")
    if threads:
        variables["OMP_NUM_THREADS"] = threads
    lines = [
        "# Written by `adarem launch`: what its jobs need, whatever becomes of the environment on the way.",
        *(f"export {key}={shlex.quote(value)}" for key, value in variables.items()),
    ]
    if conf := given.get("SLURM_CONF"):
        lines.append(f"[[ -n ${{SLURM_CONF-}} ]] || export SLURM_CONF={shlex.quote(conf)}")
    if sbatch := shutil.which("sbatch"):  # srun and scontrol lie next to it
        lines.append(f'export PATH="${{PATH:-/usr/bin:/bin}}":{shlex.quote(os.path.dirname(sbatch))}')
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write("\n".join([*lines, ""]))
            f.flush()
            os.fsync(f.fileno())
