"""What watching the optimizer (train.watch_every, steps.jsonl) costs.

    python -m benchmarks.watch [--pairs 7] [--batch 8] [--side 224]

ResNet-18 takes the trainer's own steps on one batch in memory, on one thread. A watched step is timed next to one that
is not, in interleaved pairs whose order alternates; both by the CPU time of the process, which other work on the
machine changes least. A watched step's time has the reading of the step watched before and the writing of its line. The
share of a run is the median difference, once every default interval, by the median step. Writes a dated table to
benchmarks/results.
"""

import argparse
import contextlib
import dataclasses
import datetime
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from adarem.data.prepare import prepare
from adarem.plan.plan import make_plan
from adarem.run.config import TrainConfig
from adarem.run.directory import RunDir
from adarem.run.machine import cpu_name
from adarem.train.distributed.context import RankContext
from adarem.train.tasks.base import Batch
from adarem.train.tasks.image import ImageInputs
from adarem.train.train import _build
from adarem.train.trainer import Trainer

OPTIMIZERS = ("sgdm", "adam", "adarem", "adarem_s")
AT_MOST = 1.0  # percent of a run's step
EVERY = next(f.default for f in dataclasses.fields(TrainConfig) if f.name == "watch_every")


def build(path: Path) -> Trainer:
    """A trainer that watches every step; ``step`` chooses which."""
    context = RankContext(0, 1, 0, torch.device("cpu"), (platform.node(),))
    return _build(RunDir(path), RunDir(path).config(), context)


@contextlib.contextmanager
def unwatched(trainer: Trainer) -> Iterator[None]:
    watch, trainer._watch = trainer._watch, None
    try:
        yield
    finally:
        trainer._watch = watch


def step(trainer: Trainer, batch: Batch, *, watched: bool) -> float:
    """CPU seconds."""
    with contextlib.nullcontext() if watched else unwatched(trainer):
        began = time.process_time()
        trainer._step(trainer.model, batch)
        return time.process_time() - began


def measure(trainer: Trainer, batch: Batch, pairs: int) -> list[tuple[float, float]]:
    """Of each pair: seconds of the step that is watched and of the one that is not."""
    for watched in (True, False, True):  # state and buffers are made
        step(trainer, batch, watched=watched)
    found = []
    for k in range(pairs):
        order = (True, False) if k % 2 else (False, True)
        seconds = {watched: step(trainer, batch, watched=watched) for watched in order}
        found.append((seconds[True], seconds[False]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=8, help="images; more make the share smaller")
    parser.add_argument("--side", type=int, default=224, help="pixels")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    rows = [
        f"| optimizer | step, ms | watched step, more by ms | of that step, % | of a run at {EVERY}, % | at most, % |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    images = torch.randint(0, 256, (args.batch, args.side, args.side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    batch = Batch(ImageInputs(images, torch.arange(args.batch) % 10), args.batch)
    with tempfile.TemporaryDirectory() as folder:
        places = [f"data.root={folder}/data", "data.backend=folder", "data.workers=1", "wandb.mode=disabled"]
        words = ["data=digits", "scale=smoke", "model=resnet18", "cluster.ranks_per_node=1", "train.watch_every=1"]
        plan = make_plan([*words, f"optimizer={','.join(OPTIMIZERS)}", *places, f"runs_dir={folder}/runs"])
        plan.write()
        prepare(plan.runs[0].config.data, workers=1, progress=False)
        for run in plan.runs:
            pairs = measure(build(run.run.path), batch, args.pairs)
            plain = statistics.median(p for _, p in pairs)
            more = statistics.median(w - p for w, p in pairs)
            rows.append(
                f"| {run.config.optimizer.label} | {1e3 * plain:.1f} | {1e3 * more:.1f} | {100 * more / plain:.1f} | "
                f"{100 * more / plain / EVERY:.2f} | {AT_MOST:g} |"
            )
    today = datetime.date.today().isoformat()
    command = f"python -m benchmarks.watch --pairs {args.pairs} --batch {args.batch} --side {args.side}"
    text = "\n".join(
        [
            "# What watching the optimizer costs",
            "",
            f"{today}; {cpu_name()}, {os.cpu_count()} cores, 1 thread, load average {load:.1f} before; Python "
            f"{platform.python_version()}, torch {torch.__version__}. Printed by `{command}`:",
            f"CPU time of ResNet-18's step on {args.batch} images of {args.side} px, medians over {args.pairs} "
            "interleaved pairs of a watched step and one that is not.",
            "",
            *rows,
            "",
            "A GPU: not measured.",
        ]
    )
    print(text)
    (Path(__file__).parent / "results" / f"watch-{today}-cpu.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
