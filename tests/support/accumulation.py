"""A few steps of a run, its batches in parts or not, on one rank or on several, in float64 or float32.

``python -m tests.support.accumulation`` prints how far the steps in parts are from those without.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from adarem.data.prepare import prepare
from adarem.plan.plan import make_plan
from adarem.run.directory import RunDir
from adarem.train.distributed.context import RankContext
from adarem.train.train import _build
from tests.support import ROOT

STEPS = 4  # of an epoch of the digits at a global batch of 288
# A network without BatchNorm and without dropout; everything that a step can have.
RECIPE = (
    "model=timm:test_convnext", "scale=smoke", "scale.epochs=1", "scale.global_batch_size=288", "data=digits",
    "optimizer.weight_decay=0.01", "train.clip_grad_norm=0.5", "train.label_smoothing=0.1", "wandb.mode=disabled",
)  # fmt: skip
OPTIMIZERS = ("sgdm", "adamw", "adarem", "adarem_s", "pytorch_optimizer:ScheduleFreeSGD")


def train_steps(path: Path, dtype: torch.dtype, context: RankContext | None = None) -> dict[str, torch.Tensor]:
    """Totals over all ranks, weights and buffers after the run's first steps."""
    context = context or RankContext(0, 1, 0, torch.device("cpu"), ("here",))
    run = RunDir(path)
    trainer = _build(run, run.config(), context)
    task, model = trainer.task, trainer.model.to(dtype)
    if run.config().data.kind == "images":
        normalise, example = task._normalise, task.example_input
        task._normalise = lambda images: normalise(images).to(dtype)
        task.example_input = lambda: example().to(dtype)
    network = trainer._wrap()
    exchanged = [0]
    if isinstance(network, DistributedDataParallel):
        network.register_comm_hook(exchanged, _exchange)
    totals = torch.zeros(len(task.info.totals), dtype=torch.float64)
    with task.batches(0, 0) as batches:
        for _ in range(STEPS):
            totals += trainer._step(network, next(batches))
    found = {"totals": context.sum(totals), **{k: v.detach().clone() for k, v in model.state_dict().items()}}
    return found | ({"exchanges": torch.tensor(exchanged[0])} if context.world_size > 1 else {})


def _exchange(counter: list[int], bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    counter[0] += 1
    return default_hooks.allreduce_hook(None, bucket)


def on_ranks(path: Path, dtype: torch.dtype, ranks: int) -> dict[str, torch.Tensor]:
    """`train_steps` on several ranks; what rank 0 has."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.support.accumulation", str(path), str(dtype).removeprefix("torch.")]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen([*words, folder, str(rank), str(ranks)], env=environment, cwd=ROOT)
            for rank in range(ranks)
        ]
        assert [process.wait(300) for process in started] == [0] * ranks
        return pickle.loads((Path(folder) / "found").read_bytes())


def _as_rank(path: Path, dtype: torch.dtype, folder: Path, rank: int, ranks: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    found = train_steps(path, dtype, RankContext(rank, ranks, rank, torch.device("cpu"), ("here",) * ranks))
    if rank == 0:
        (folder / "found").write_bytes(pickle.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest of all values, each relative to the largest of its tensor, at least 1e-3: some are 0 when exact."""
    worst = 0.0
    for key in (a | b).keys() - {"exchanges"}:
        x, y = a[key].double(), b[key].double()
        if x.numel():
            worst = max(worst, ((x - y).abs().max() / y.abs().max().clamp(min=1e-3)).item())
    return worst


def _table() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        places = (f"data.root={folder}/data", f"runs_dir={folder}/runs", "data.backend=folder", "data.workers=1")
        prepare(make_plan([*RECIPE, *places]).runs[0].config.data, workers=1, progress=False)
        print("| optimizer | ranks | parts | micro batch | float64 | float32 |\n| --- | --- | --- | --- | --- | --- |")
        for optimizer in OPTIMIZERS:
            of_optimizer = (*RECIPE, *places, f"optimizer={optimizer}")
            if ":" in optimizer:
                of_optimizer = (*of_optimizer, "optimizer.lr=0.1")
            exact: dict[torch.dtype, dict[str, torch.Tensor]] = {}
            for ranks in (1, 2):
                for parts in (1, 2, 4, 8):
                    micro = 288 // ranks // parts
                    plan = make_plan(
                        [*of_optimizer, f"cluster.ranks_per_node={ranks}", f"scale.micro_batch_size={micro}"]
                    )
                    plan.write()
                    path, found = plan.runs[0].run.path, []
                    for dtype in (torch.float64, torch.float32):
                        state = train_steps(path, dtype) if ranks == 1 else on_ranks(path, dtype, ranks)
                        found.append(difference(state, exact.setdefault(dtype, state)))
                    print(
                        f"| {optimizer} | {ranks} | {parts} | {micro} | {found[0]:.1e} | {found[1]:.1e} |", flush=True
                    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _as_rank(Path(sys.argv[1]), getattr(torch, sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
    else:
        _table()
