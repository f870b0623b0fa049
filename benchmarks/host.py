"""What the training loop costs on the host beyond forward, backward and optimizer.

    python -m benchmarks.host [--rounds 15] [--steps 200] [--profile]

A network of almost no work, a linear layer on the mean of each channel, takes steps on 8 images in memory: once by the
trainer's own loop, once by the five lines that any loop needs (forward, loss, zero_grad, backward, step). Both are
timed in interleaved rounds in one process a rank. ``CPU`` is the time of the loop's own thread, which does not run
while other processes have the core; ``wall`` includes waiting for other ranks. ``least`` is the difference of the least
times, which other work on the machine changes least. Reading data is left out. Writes a dated table to
benchmarks/results.
"""

import argparse
import contextlib
import cProfile
import dataclasses
import datetime
import json
import os
import platform
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from adarem.data.prepare import prepare
from adarem.plan.plan import make_plan
from adarem.run.directory import RunDir
from adarem.run.machine import cpu_name
from adarem.train.distributed.context import RankContext
from adarem.train.metrics import EpochTimer
from adarem.train.tasks.base import Batch
from adarem.train.tasks.image import ImageInputs, ImageTask
from adarem.train.trainer import Trainer

TARGETS = {1: 100.0, 2: 200.0}  # µs a step, by ranks
BATCH = 8  # images of a rank


class AlmostNothing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(images.mean(dim=(2, 3)))
        return scores


class NeverStop:
    signal = None


def build(path: Path, context: RankContext, steps: int) -> Trainer:
    """A trainer whose epochs are ``steps`` steps on one batch in memory."""
    run = RunDir(path)
    config = run.config()
    task = ImageTask(config, context)
    task.info = dataclasses.replace(task.info, steps_per_epoch=steps)
    images = torch.randint(0, 256, (BATCH, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    batch = Batch(ImageInputs(images, torch.arange(BATCH)), BATCH * context.world_size)

    @contextlib.contextmanager
    def in_memory(epoch: int, start_step: int) -> Iterator[Iterator[Batch]]:
        yield (batch for _ in range(start_step, steps))

    task.batches = in_memory  # type: ignore[method-assign]
    model = AlmostNothing()
    return Trainer(config, run, context, task, model, torch.optim.SGD(model.parameters(), lr=1e-6))


def bare_loop(trainer: Trainer, network: nn.Module, steps: int) -> None:
    """What no loop can do without."""
    task, optimizer = trainer.task, trainer.optimizer
    assert isinstance(task, ImageTask)
    with task.batches(0, 0) as batches:
        for batch in batches:
            assert isinstance(batch.inputs, ImageInputs)
            loss = F.cross_entropy(network(task._normalise(batch.inputs.images)), batch.inputs.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


def harness_loop(trainer: Trainer, network: nn.Module) -> None:
    trainer.state.step = 0
    trainer._train_epoch(network, 0, EpochTimer(), NeverStop(), lambda progress: None)


def measure(trainer: Trainer, rounds: int, steps: int) -> dict[str, list[float]]:
    """The bare loop, the harness and their difference over rounds, µs a step."""
    network = trainer._wrap()
    loops = {"bare": lambda: bare_loop(trainer, network, steps), "harness": lambda: harness_loop(trainer, network)}
    times: dict[str, list[float]] = {f"{name} {clock}": [] for name in loops for clock in ("CPU", "wall")}
    for round_ in range(rounds + 1):
        for name, loop in loops.items():
            trainer.context.barrier()
            cpu, wall = time.thread_time(), time.perf_counter()
            loop()
            if round_:  # the first one warms up
                times[f"{name} CPU"].append((time.thread_time() - cpu) / steps * 1e6)
                times[f"{name} wall"].append((time.perf_counter() - wall) / steps * 1e6)
    found = {}
    for clock in ("CPU", "wall"):
        bare, harness = times[f"bare {clock}"], times[f"harness {clock}"]
        added = [h - b for h, b in zip(harness, bare, strict=True)]
        found |= {f"{clock}, median": [statistics.median(x) for x in (bare, harness, added)]}
        found |= {f"{clock}, least": [min(bare), min(harness), min(harness) - min(bare)]}
    return found


def one_rank(path: Path, rank: int, ranks: int, rounds: int, steps: int, profile: bool) -> None:
    """Prints what rank 0 measured, as JSON."""
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{path}.store", rank=rank, world_size=ranks)
    context = RankContext(rank, ranks, rank, torch.device("cpu"), (platform.node(),) * ranks)
    trainer = build(path, context, steps)
    if profile:
        network = trainer._wrap()
        harness_loop(trainer, network)
        profiler = cProfile.Profile()
        profiler.runcall(harness_loop, trainer, network)
        if rank == 0:
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(30)
    found = measure(trainer, rounds, steps)
    if rank == 0:
        print(json.dumps(found))
    if ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200, help="of a round")
    parser.add_argument("--profile", action="store_true", help="a profile of the loop's functions, to standard error")
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)  # run directory, rank, ranks
    args = parser.parse_args()
    if args.rank:
        one_rank(Path(args.rank[0]), int(args.rank[1]), int(args.rank[2]), args.rounds, args.steps, args.profile)
        return
    load = os.getloadavg()[0]
    rows = ["| ranks | time | bare loop | harness | added | at most |", "| ---: | --- | ---: | ---: | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as folder:
        places = [f"data.root={folder}/data", "data.backend=folder", "data.workers=1", "wandb.mode=disabled"]
        for ranks, target in TARGETS.items():
            words = ["data=digits", "scale=smoke", "model=resnet18", "optimizer=sgd", f"cluster.ranks_per_node={ranks}"]
            plan = make_plan([*words, *places, f"runs_dir={folder}/runs{ranks}"])
            plan.write()
            prepare(plan.runs[0].config.data, workers=1, progress=False)
            command = [
                sys.executable,
                "-m",
                "benchmarks.host",
                "--rounds",
                str(args.rounds),
                "--steps",
                str(args.steps),
            ]
            command += ["--profile"] if args.profile else []
            started = [
                subprocess.Popen(
                    [*command, "--rank", str(plan.runs[0].run.path), str(rank), str(ranks)],
                    stdout=subprocess.PIPE,
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                )
                for rank in range(ranks)
            ]
            outputs = [process.communicate()[0] for process in started]
            assert [process.returncode for process in started] == [0] * ranks
            found = json.loads(outputs[0])
            for what, values in found.items():
                rows.append(f"| {ranks} | {what} | {' | '.join(f'{v:.0f}' for v in values)} | {target:.0f} |")
    today = datetime.date.today().isoformat()
    text = "\n".join(
        [
            "# What the training loop costs on the host",
            "",
            f"{today}; {cpu_name()}, {os.cpu_count()} cores, 1 thread a rank, load average {load:.1f} before; Python "
            f"{platform.python_version()}, torch {torch.__version__}. Printed by `python -m benchmarks.host`:",
            f"µs a step over {args.rounds} interleaved rounds of {args.steps} steps; gloo between two ranks; no "
            "oscillation.",
            "",
            *rows,
            "",
            "CUDA: not measured.",
        ]
    )
    print(text)
    (Path(__file__).parent / "results" / f"host-{today}-cpu.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
