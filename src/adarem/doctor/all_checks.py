"""All checks, in order. Without a config they are those of the rehearsal on this machine; with one, of that config.

No check leaves a file behind. What may crash, hang or take seconds runs in a process of its own (isolated_checks).
"""

from collections.abc import Iterator

from adarem.doctor import cluster, inputs, machine, software
from adarem.doctor.check import Check
from adarem.run import exitcodes
from adarem.run.config import DataConfig, RunConfig


def doctor(config: RunConfig | None) -> int:
    """Prints every check and returns exitcodes.OK, or FAILED when something that is needed is missing."""
    failed = 0
    for check in checks(config):
        print(check, flush=True)
        failed += check.ok is False
    print(f"{failed} problems" if failed else "nothing is missing")
    return exitcodes.FAILED if failed else exitcodes.OK


def checks(config: RunConfig | None) -> Iterator[Check]:
    """All checks, one after another as they are made; slow ones take seconds."""
    on_slurm = config is not None and config.cluster.name == "slurm"
    reads_ffcv = config is None or (isinstance(config.data, DataConfig) and config.data.backend == "ffcv")
    yield software.python()
    yield from software.packages()
    yield from software.torch(config.cluster if config else None)
    yield software.turbojpeg()
    yield software.ffcv(needed=reads_ffcv)
    yield software.compiler()
    yield machine.hostname()
    if config is not None and not on_slurm:
        yield machine.cores(config.cluster)
    yield machine.disk()
    yield machine.shm()
    yield from cluster.slurm(config.cluster if on_slurm and config else None)
    yield inputs.wandb(config)
    if config is not None:
        yield inputs.dataset(config.data)
