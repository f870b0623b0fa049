"""`adarem doctor`: what this machine has and what it lacks, with the fix for each failure.

Without a config it checks what the rehearsal on this machine needs; with one, what that config needs. Nothing is
left behind. What may crash, hang or take seconds runs in a process of its own (adarem.doctor.probes).
"""

from collections.abc import Iterator

from adarem.doctor import machine, software
from adarem.doctor import sweep as campaign
from adarem.doctor.check import Check
from adarem.run import exitcodes
from adarem.run.config import RunConfig


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
    device = config.cluster.device if config else "cpu"
    yield software.python()
    yield from software.packages()
    yield from software.torch(device, on_slurm, config.cluster.ranks_per_node if config else 1)
    yield software.turbojpeg()
    yield software.ffcv(needed=config is None or getattr(config.data, "backend", None) == "ffcv")
    yield software.compiler()
    yield machine.hostname()
    if config is not None and not on_slurm:
        yield machine.cores(config.cluster)
    yield machine.disk()
    yield machine.shm()
    yield from campaign.slurm(config)
    yield campaign.wandb(config)
    if config is not None:
        yield campaign.dataset(config)
