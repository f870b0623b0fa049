"""All checks, in order. Without a config they are those of the rehearsal on this machine; with one, of that config.

No check leaves a file behind. What may crash, hang or take seconds runs in a process of its own (isolated_checks). This
process imports the standard library alone until a config is there, so that the doctor also runs where an installed
package is missing or broken, or where a file of the current folder is imported in its place.
"""

from collections.abc import Callable, Iterable, Iterator

from adarem.dependencies import import_problem
from adarem.doctor import cluster, inputs, machine, software
from adarem.doctor.check import Check, split_fix
from adarem.run import exitcodes
from adarem.run.config import DataConfig, RunConfig


def doctor(config: RunConfig | None, *, uncomposed: str | None = None) -> int:
    """Prints every check and returns exitcodes.OK, or FAILED when something that is needed is missing.

    Args:
        config: whose needs are checked; None: those of the rehearsal on this machine.
        uncomposed: which import kept the config that was asked for from being composed; counts as a problem.
    """
    failed = 0
    asked = [Check("config", False, *split_fix(uncomposed))] if uncomposed else []
    for check in (*asked, *checks(config)):
        print(check, flush=True)
        failed += check.ok is False
    print(f"{failed} problem{'s' * (failed > 1)}" if failed else "nothing is missing")
    return exitcodes.FAILED if failed else exitcodes.OK


def checks(config: RunConfig | None) -> Iterator[Check]:
    """All checks, one after another as they are made; slow ones take seconds."""
    on_slurm = config is not None and config.cluster.name == "slurm"
    reads_ffcv = config is None or (isinstance(config.data, DataConfig) and config.data.backend == "ffcv")
    yield software.python()
    yield software.packages(("harness", "ffcv") if reads_ffcv else ("harness",))
    yield from software.imports()
    yield from software.torch(config.cluster if config else None)
    yield software.turbojpeg(needed=reads_ffcv)
    yield software.ffcv(needed=reads_ffcv)
    yield software.compiler()
    yield machine.hostname()
    if config is not None and not on_slurm:
        yield machine.cores(config.cluster)
    yield machine.disk()
    yield machine.shm()
    yield from _guarded("slurm", lambda: cluster.slurm(config.cluster if on_slurm and config else None))
    yield inputs.wandb(config)
    if config is not None:
        data = config.data
        yield from _guarded("data", lambda: [inputs.dataset(data)])


def _guarded(name: str, check: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """The check, or a failed one that says which import it lacks."""
    try:
        yield from check()
    except Exception as e:
        if (problem := import_problem(e)) is None:
            raise
        yield Check(name, False, *split_fix(problem))
