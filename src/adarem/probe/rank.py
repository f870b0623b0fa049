"""One rank of a measurement: the data, network, optimizer and loop of `adarem train`, stopped once enough is measured.

python -m adarem.probe.rank RUN_DIR BEGAN SECONDS [BYTES]     with ranks started as those of a run are
"""

import contextlib
import dataclasses
import json
import resource
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch

from adarem.probe.cells import MEASURED, NO_MEMORY, PROBLEM
from adarem.probe.stopwatch import EnoughEvaluated, Stopwatch, TooFewSteps, timing
from adarem.run import exitcodes, streams
from adarem.run.directory import RunDir
from adarem.run.errors import RankLost, UserError
from adarem.run.files import write_atomically
from adarem.run.machine import cpu_name
from adarem.train.distributed.context import join
from adarem.train.distributed.heartbeat import Activity
from adarem.train.distributed.place import check_step
from adarem.train.distributed.watchdog import Watchdog
from adarem.train.implementation import agree
from adarem.train.metrics import peak_memory_bytes
from adarem.train.tasks.image import ImageTask
from adarem.train.train import COLLECTIVE_TIMEOUT_MARGIN_SECONDS
from adarem.train.train import _build as build_trainer
from adarem.train.trainer import Diverged, Interrupted, Trainer

_NO_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")


@dataclass(frozen=True)
class Measured:
    """What the ranks know; `adarem.probe.cells` adds what their command took."""

    device: str
    cpu: str
    hosts: tuple[str, ...]
    unit: str
    ranks: int
    units_per_s: float
    loader_share: float
    memory_bytes: int
    checkpoint_bytes: int
    first_step_seconds: float
    before_record_seconds: float
    start_seconds: float  # from the command to steady training
    start_cpu_seconds: float
    ended: float  # time.time() after the last step
    counted_cpu_seconds: float  # of all ranks, that is not of a run's end
    probe_only_seconds: float  # after that, which no run has
    steps_per_epoch: int
    epoch_seconds: float
    epoch_cpu_seconds: float
    evaluated: int
    evaluation_seconds: float
    evaluation_cpu_seconds: float
    steps: int
    chunks: int
    epochs: int


@dataclass(frozen=True)
class _Evaluated:
    seconds: float
    cpu: float
    count: int


def measure(run: RunDir, began: float, seconds: float) -> None:
    """Trains for so long and writes MEASURED.

    Args:
        run: a run directory of this measurement alone.
        began: when the command began, as time.time() has it.
        seconds: of training to measure.

    Raises:
        UserError, RankLost: as training.
        TooFewSteps: the run is too short.
    """
    config = run.config()
    timeout = config.cluster.stall_seconds + COLLECTIVE_TIMEOUT_MARGIN_SECONDS
    watch = Stopwatch(seconds)
    check_step(config.cluster)
    context = dataclasses.replace(join(config.cluster.device, timeout, watch), heartbeat=watch)
    try:
        with Watchdog(context, config.cluster.stall_seconds, lambda line: print(line, file=sys.stderr)):
            implementation = agree(context, config.optimizer)
            fused = implementation is None or implementation.fused
            before_record = time.time() - began
            trainer = build_trainer(run, config, context, fused=fused)
            _measure(trainer, run, watch, began, before_record)
            context.barrier()
    finally:
        context.close()


def _measure(trainer: Trainer, run: RunDir, watch: Stopwatch, began: float, before_record: float) -> None:
    context, steps_per_epoch = trainer.context, trainer.task.info.steps_per_epoch
    watch.events.clear()
    watch.steps_per_epoch = steps_per_epoch
    offset = time.time() - time.perf_counter()
    with contextlib.suppress(Interrupted, Diverged):  # what diverges is as fast
        trainer.fit(watch, lambda progress: None)
    watch.events.append(watch.now(trainer.state.step, Activity.STARTING))
    first, last = watch.events[0], watch.events[-1]
    found = timing(watch.events, steps_per_epoch)
    evaluated = _evaluation(trainer, watch, found.evaluation, found.evaluation_cpu)
    now = watch.now(0, Activity.STARTING)
    # The checkpoint that a run writes after its last step is a part of its end.
    writing = [e for e in watch.events if e.activity == Activity.WRITING_CHECKPOINT]
    end = writing[-1] if writing else last
    mine = {
        "start": first.seconds + offset - began + found.warm_up,
        "start_cpu": first.cpu + found.warm_up_cpu,
        "memory": peak_memory_bytes(context.device),
        "cpu": end.cpu + now.cpu - last.cpu,
        "epoch": found.epoch,
        "epoch_cpu": found.epoch_cpu,
        "evaluation": evaluated.seconds,
        "evaluation_cpu": evaluated.cpu,
    }
    ranks = context.gather(mine)
    if not context.is_main:
        return
    units = _units_per_epoch(trainer, steps_per_epoch)
    files = sorted(run.checkpoints.glob("[!.]*"), key=lambda p: p.stat().st_mtime)
    cuda = context.device.type == "cuda"
    record = Measured(
        device=torch.cuda.get_device_name(context.device) if cuda else "cpu",
        cpu=cpu_name(),
        hosts=tuple(sorted(set(context.hosts))),
        unit=trainer.task.info.unit,
        ranks=context.world_size,
        units_per_s=units / max(r["epoch"] for r in ranks),
        loader_share=found.loader_share,
        memory_bytes=int(max(r["memory"] for r in ranks)),
        checkpoint_bytes=files[-1].stat().st_size if files else 0,
        first_step_seconds=first.seconds + offset - began + found.first_step,
        before_record_seconds=before_record,
        start_seconds=max(r["start"] for r in ranks),
        start_cpu_seconds=sum(r["start_cpu"] for r in ranks),
        ended=end.seconds + offset,
        counted_cpu_seconds=sum(r["cpu"] for r in ranks),
        probe_only_seconds=now.seconds - last.seconds,
        steps_per_epoch=steps_per_epoch,
        epoch_seconds=max(r["epoch"] for r in ranks),
        epoch_cpu_seconds=sum(r["epoch_cpu"] for r in ranks),
        evaluated=evaluated.count,
        evaluation_seconds=max(r["evaluation"] for r in ranks),
        evaluation_cpu_seconds=sum(r["evaluation_cpu"] for r in ranks),
        steps=found.steps,
        chunks=found.chunks,
        epochs=found.epochs,
    )
    write_atomically(run.path / MEASURED, json.dumps(dataclasses.asdict(record)))


def _units_per_epoch(trainer: Trainer, steps_per_epoch: int) -> float:
    """Images; of a text its tokens, which is what metrics.jsonl counts as one epoch."""
    if trainer.task.info.unit == "images":
        return float(steps_per_epoch * trainer.config.scale.global_batch_size)
    train = trainer.task.info.fingerprint["train"]
    tokens = train.get("num_tokens")
    return float(tokens) if isinstance(tokens, int) else float(steps_per_epoch)


def _evaluation(trainer: Trainer, watch: Stopwatch, seen: float | None, seen_cpu: float | None) -> _Evaluated:
    """An evaluation that training came to, else one of its own, of which images may be a part."""
    task, world_size = trainer.task, trainer.context.world_size
    count = _evaluated_units(trainer)
    if seen is not None and seen_cpu is not None:
        return _Evaluated(seen, seen_cpu, count)
    begin = watch.now(trainer.state.step, Activity.EVALUATING)
    size = trainer.config.scale.images_per_pass(world_size)
    if isinstance(task, ImageTask):
        watch.evaluate_a_part(trainer.state.step, batches=count // world_size // size)
    try:
        task.evaluate(trainer.model)
    except EnoughEvaluated:
        a, b = watch.evaluated[1], watch.evaluated[-1]  # the first batch warms up
        factor = count / world_size / (size * (len(watch.evaluated) - 2))
        return _Evaluated((b.seconds - a.seconds) * factor, (b.cpu - a.cpu) * factor, count)
    end = watch.now(trainer.state.step, Activity.EVALUATING)
    return _Evaluated(end.seconds - begin.seconds, end.cpu - begin.cpu, count)


def _evaluated_units(trainer: Trainer) -> int:
    if isinstance(trainer.task, ImageTask):
        return trainer.task.eval_loader.num_images
    tokens = trainer.task.info.fingerprint["val"].get("num_tokens")
    return tokens if isinstance(tokens, int) else 1


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY_WORDS)


def _limit_memory(more: int) -> None:
    """This process gets an error where it takes ``more`` bytes than now, before the kernel ends some process."""
    taken = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmData")
    )
    limit = int(taken.split()[1]) * 1024 + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _report(run: RunDir, line: str) -> None:
    """The first rank's line counts."""
    with contextlib.suppress(OSError), open(run.path / PROBLEM, "x", encoding="utf-8") as f:
        f.write(line)


def main(argv: list[str]) -> int:
    """Measures; returns an exit code.

    Args:
        argv: see the module; BYTES is the memory that this rank may take.
    """
    run = RunDir(Path(argv[0]))
    try:
        if len(argv) > 3:
            _limit_memory(int(argv[3]))
        measure(run, float(argv[1]), float(argv[2]))
        return exitcodes.OK
    except UserError as e:
        if not e.reported:
            _report(run, str(e))
        return exitcodes.USER_ERROR
    except RankLost:
        return exitcodes.FAILED
    except TooFewSteps as e:
        _report(run, f"{e}; a run of more steps can be measured: raise scale.epochs or lower scale.global_batch_size")
        return exitcodes.USER_ERROR
    except Exception as e:
        if _is_out_of_memory(e):
            (run.path / NO_MEMORY).touch()
            _report(run, "out of memory; lower scale.micro_batch_size, or let it be found: scale.micro_batch_size=auto")
            return exitcodes.FAILED
        traceback.print_exc()
        line = str(e).strip().splitlines()[:1]
        _report(run, f"{type(e).__name__}: {line[0] if line else ''}")
        return exitcodes.FAILED


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
