"""Measures the cells of a folder one after another, here or within a Slurm job, and keeps what comes of each."""

import dataclasses
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adarem.launch.commands import after_setup, environment, ranks_command
from adarem.run import streams
from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.run.files import read_json
from adarem.run.machine import available_memory
from adarem.run.measurements import Measurement, keep_measurement, machine, subject, torch_version

# What the ranks leave in the run directory: a record, a mark, a line.
MEASURED, NO_MEMORY, PROBLEM = "measured.json", "out-of-memory", "problem"
AUTO = "auto"  # a file in a cell's folder: the largest scale.micro_batch_size that fits is asked for
TRY_SECONDS = 1.0  # of training, to see whether a size fits
MEMORY_SHARE = 0.9  # of what is free on this machine, for all ranks of a node

Start = Callable[[RunConfig, Sequence[str]], list[str]]  # the command of all ranks of a module


def started_here(config: RunConfig, module: Sequence[str]) -> list[str]:
    """The ranks of a module on this machine."""
    return after_setup(config.cluster, ranks_command(module, config.cluster.ranks_per_node))


def started_by_slurm(config: RunConfig, module: Sequence[str]) -> list[str]:
    """The ranks of a module in the job that this process is in."""
    return ["srun", "--export=ALL", "--kill-on-bad-exit=1", sys.executable, *module]


def new_folder(runs_dir: Path, configs: Sequence[RunConfig], auto: Sequence[RunConfig], name: str = "") -> Path:
    """A folder with one folder for each config, next to the runs: checkpoints are written at the speed of that disk.

    Args:
        auto: those of the configs whose largest scale.micro_batch_size is asked for.
        name: what sets several folders of one process apart.
    """
    folder = runs_dir / ".probe" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}{name}"
    for i, config in enumerate(configs):
        RunDir(folder / str(i)).freeze(config)
        if config in auto:
            (folder / str(i) / AUTO).touch()
    return folder


@dataclass(frozen=True)
class Outcome:
    """Of one cell."""

    config: RunConfig
    measurement: Measurement | None
    problem: str = ""


def measure_cells(folder: Path, seconds: float, start: Start) -> Iterator[Outcome]:
    """Measures each cell of a folder, in order. One that fails is an outcome as well."""
    for cell in sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)):
        config = RunDir(cell).config()
        try:
            found = _largest(cell, config, seconds, start) if (cell / AUTO).exists() else None
            found = found or _tried(cell / "run", config, seconds, start)
            yield Outcome(config, found.measurement, found.problem)
        except UserError as e:
            yield Outcome(config, None, str(e))


@dataclass(frozen=True)
class _Tried:
    measurement: Measurement | None
    problem: str
    fits: bool


def _largest(cell: Path, config: RunConfig, seconds: float, start: Start) -> _Tried:
    """Measures with the largest size that fits: the complete part of a rank first, then by bisection."""
    of_rank = config.scale.global_batch_size // config.cluster.world_size
    sizes = [n for n in range(1, of_rank + 1) if of_rank % n == 0]

    def tried(size: int, how_long: float, name: str) -> _Tried:
        scale = dataclasses.replace(config.scale, micro_batch_size=size)
        return _tried(cell / f"{name}-{size}", dataclasses.replace(config, scale=scale), how_long, start, limited=True)

    found = tried(sizes[-1], seconds, "all")
    if not found.fits and not _out_of_memory(cell / f"all-{sizes[-1]}"):
        return found
    fits, too_large = (len(sizes) - 1 if found.fits else -1), (len(sizes) if found.fits else len(sizes) - 1)
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        one = tried(sizes[middle], TRY_SECONDS, "try")
        if one.fits:
            fits = middle
        elif _out_of_memory(cell / f"try-{sizes[middle]}"):
            too_large = middle
        else:
            return one
    if fits < 0:
        return _Tried(None, "scale.micro_batch_size=1: takes more memory than there is; take a smaller network", False)
    if fits < len(sizes) - 1:
        found = tried(sizes[fits], seconds, "run")
    if found.measurement is None:
        return found
    return dataclasses.replace(
        found, measurement=dataclasses.replace(found.measurement, largest_micro_batch_size=sizes[fits])
    )


def _out_of_memory(path: Path) -> bool:
    return (path / NO_MEMORY).exists()


def _tried(path: Path, config: RunConfig, seconds: float, start: Start, *, limited: bool = False) -> _Tried:
    """Runs the ranks' program once; ``limited``: a rank on a CPU takes no more memory than its part of what is free."""
    run = RunDir(path)
    run.freeze(config)
    load = os.getloadavg()[0]
    module = ["-m", "adarem.probe.rank", str(path), repr(time.time()), repr(seconds)]
    if limited and config.cluster.device == "cpu":
        module.append(str(int(MEMORY_SHARE * available_memory() / config.cluster.ranks_per_node)))
    before = _children_cpu()
    with open(path / "log.txt", "wb") as log:
        child = subprocess.Popen(start(config, module), env=environment(config.cluster), stdout=log, stderr=log)
        try:
            child.wait()
        finally:
            if child.poll() is None:  # Ctrl-C
                child.terminate()
                child.wait()
    ended, spent = time.time(), _children_cpu() - before
    record = read_json(path / MEASURED)
    if record is None:
        return _Tried(None, _problem(path, child.returncode), False)
    counted, only = _number(record, "counted_cpu_seconds"), _number(record, "probe_only_seconds")
    at_end, began_with = _number(record, "ended"), _number(record, "start_seconds")
    start_cpu = _number(record, "start_cpu_seconds")
    for key in ("counted_cpu_seconds", "probe_only_seconds", "ended", "start_seconds", "start_cpu_seconds"):
        del record[key]
    measurement = Measurement(
        subject=subject(config),
        machine=machine(config.cluster),
        torch=torch_version(),
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        load=load,
        start_seconds=began_with + max(0.0, ended - at_end - only),
        start_cpu_seconds=start_cpu + max(0.0, spent - counted),
        **record,  # type: ignore[arg-type]  # the fields of adarem.probe.rank.Measured
    )
    return _Tried(measurement, "", True)


def _number(record: dict[str, object], key: str) -> float:
    value = record[key]
    assert isinstance(value, int | float)
    return float(value)


def _children_cpu() -> float:
    """Of the processes that this one has waited for, and theirs; ranks that srun starts elsewhere are none."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _problem(path: Path, code: int) -> str:
    try:
        return (path / PROBLEM).read_text(encoding="utf-8")
    except FileNotFoundError:
        lines = (path / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {code}"


def keep(outcomes: Iterator[Outcome], runs_dir: Path, say: Callable[[str], None] = print) -> int:
    """Keeps each measurement as it comes, with a line for each cell; returns how many failed."""
    failed = 0
    for outcome in outcomes:
        name = f"{outcome.config.model.label}, {outcome.config.optimizer.label}"
        if outcome.measurement is None:
            failed += 1
            say(f"{name}: not measured: {outcome.problem}")
            continue
        keep_measurement(runs_dir, outcome.measurement)
        say(f"{name}: {line(outcome.measurement)}")
    return failed


def line(m: Measurement) -> str:
    """What a person reads of a measurement."""
    micro = f", scale.micro_batch_size up to {m.largest_micro_batch_size}" if m.largest_micro_batch_size else ""
    return (
        f"{m.units_per_s_of_a_rank:,.0f} {m.unit}/s a rank x {m.ranks}, {m.memory_bytes / 2**30:.2f} GiB a rank, "
        f"waits {100 * m.loader_share:.1f} % for data, checkpoint {m.checkpoint_bytes / 1e6:.1f} MB, first step after "
        f"{m.first_step_seconds:.1f} s, evaluates {m.evaluated_per_s:,.0f} {m.unit}/s{micro}"
    )


def main(argv: list[str]) -> int:
    """``python -m adarem.probe.cells FOLDER RUNS_DIR SECONDS``: the batch script of slurm/probe.sbatch calls it."""
    folder, runs_dir, seconds = Path(argv[0]), Path(argv[1]), float(argv[2])
    print(f"on {socket.gethostname()}", flush=True)
    failed = keep(measure_cells(folder, seconds, started_by_slurm), runs_dir)
    shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
