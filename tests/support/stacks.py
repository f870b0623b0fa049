"""AdaRem and AdaRem-S in training stacks: each row trains in one, and is compared with a plain loop in one process.

``python -m tests.support.stacks`` runs every cell and prints the table of docs/stacks.md; with names of rows only
those. A network of two layers without bias on one sphere, LayerNorm and ReLU after each, and a last layer learns 8
batches of 16 in float64, with λ = 0.5 multiplied every third step, from the same weights everywhere. Data-parallel
ranks share each batch.
"""

import functools
import math
import platform
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adarem import AdaRem, AdaRemS
from adarem.optim import param_groups
from tests.support.warm import start_server

SPHERICAL = ["first.weight", "second.weight"]
SETTINGS: dict[str, Any] = {"lr": 0.3, "lam": 0.5, "decay_every": 3}
WEIGHT_DECAY = 0.01
STEPS = 8
IMPLEMENTATIONS: dict[str, dict[str, bool]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
CLASSES = {"AdaRem": AdaRem, "AdaRem-S": AdaRemS}

Flags = dict[str, Any]  # of the implementation, and settings of the row
Weights = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]


class Cell(NamedTuple):
    kind: Literal["equal", "differs", "refused", "error"]
    detail: str  # the largest difference, or the line


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    layers = {
        "first": nn.Linear(12, 16, bias=False),
        "norm": nn.LayerNorm(16),
        "relu": nn.ReLU(),
        "second": nn.Linear(16, 10, bias=False),
        "norm2": nn.LayerNorm(10),
        "relu2": nn.ReLU(),
        "last": nn.Linear(10, 4),
    }
    model = nn.Sequential(OrderedDict(layers))
    return model.to(dtype)


def batches(dtype: torch.dtype = torch.float64) -> list[Batch]:
    draw = torch.Generator().manual_seed(1)
    inputs = torch.randn(STEPS, 16, 12, generator=draw, dtype=torch.float64).to(dtype)
    return list(zip(inputs, torch.randint(4, (STEPS, 16), generator=draw), strict=True))


def groups(cls: type[AdaRem], model: nn.Module) -> list[dict[str, object]]:
    return param_groups(model, spherical=SPHERICAL if cls is AdaRemS else None, weight_decay=WEIGHT_DECAY)


def build(cls: type[AdaRem], model: nn.Module, flags: Flags, **settings: Any) -> AdaRem:
    return cls(groups(cls, model), **{**SETTINGS, **flags, **settings})


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Iterable[Batch]) -> None:
    for x, y in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def weights(model: nn.Module) -> Weights:
    """The full values, by the names of ``network``."""
    full = {n: p.full_tensor() if hasattr(p, "full_tensor") else p for n, p in model.named_parameters()}
    return {n.removeprefix("module."): p.detach().clone() for n, p in full.items()}


# ---- one process -----------------------------------------------------------------------------------------------------


def plain_loop(cls: type[AdaRem], flags: Flags) -> Weights:
    """What every cell is compared with, as single-tensor, unless its row says otherwise."""
    model = network()
    train(model, build(cls, model, flags), batches())
    return weights(model)


OVERFLOW = 3  # the step whose gradients are infinite


def scaled(cls: type[AdaRem], flags: Flags, with_scaler: bool = True) -> Weights:
    model = network(torch.float32)
    optimizer = build(cls, model, flags)
    scaler = torch.amp.GradScaler("cpu", enabled=with_scaler)
    for step, (x, y) in enumerate(batches(torch.float32)):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        if step == OVERFLOW:
            for p in model.parameters():
                p.grad.fill_(math.inf)
            if not with_scaler:
                continue
        scaler.step(optimizer)
        scaler.update()
    return weights(model)


def schedules(optimizer: torch.optim.Optimizer) -> Iterator[Callable[[], object]]:
    """One after the other, each for a few steps: schedulers of every kind, without a momentum to cycle."""
    lrs = torch.optim.lr_scheduler
    for scheduler in (
        lrs.CosineAnnealingLR(optimizer, STEPS),
        lrs.OneCycleLR(optimizer, 0.5, total_steps=STEPS + 1, cycle_momentum=False),
        lrs.CyclicLR(optimizer, 0.1, 0.5, step_size_up=2, cycle_momentum=False),
        lrs.ReduceLROnPlateau(optimizer, patience=0),
    ):
        if isinstance(scheduler, lrs.ReduceLROnPlateau):
            yield functools.partial(scheduler.step, 1.0)
        else:
            yield scheduler.step


def scheduled(cls: type[AdaRem], flags: Flags, by_hand: bool = False) -> Weights:
    """Rates of four schedulers; by hand they come from schedulers around another optimizer."""
    model = network()
    optimizer = build(cls, model, flags)
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=SETTINGS["lr"]) if by_hand else optimizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other optimizer makes no steps
        for step in schedules(other):
            for batch in batches():
                for group in optimizer.param_groups:
                    group["lr"] = other.param_groups[0]["lr"]
                train(model, optimizer, [batch])
                step()
    return weights(model)


def averaged(cls: type[AdaRem], flags: Flags, by_hand: bool = False) -> Weights:
    """The mean of the weights after each step, by AveragedModel."""
    model = network()
    optimizer = build(cls, model, flags)
    mean = torch.optim.swa_utils.AveragedModel(model)
    sums = {n: torch.zeros_like(p) for n, p in weights(model).items()}
    for batch in batches():
        train(model, optimizer, [batch])
        mean.update_parameters(model)
        for n, p in weights(model).items():
            sums[n] += p
    return {n: s / STEPS for n, s in sums.items()} if by_hand else weights(mean)


def compiled_step(cls: type[AdaRem], flags: Flags) -> Weights:
    torch._dynamo.reset()
    model = network()
    optimizer = build(cls, model, flags, lr=torch.tensor(SETTINGS["lr"], dtype=torch.float64))
    step = torch.compile(optimizer.step)
    for x, y in batches():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        step()
    return weights(model)


def compiled_autograd(cls: type[AdaRem], flags: Flags) -> Weights:
    """An optimizer of each parameter steps in a backward pass that is compiled."""
    torch._dynamo.reset()
    return in_backward(cls, flags, torch.compile(_backward, backend="aot_eager"))


def _backward(model: nn.Module, x: Tensor, y: Tensor) -> None:
    nn.functional.cross_entropy(model(x), y).backward()


def in_backward(cls: type[AdaRem], flags: Flags, backward: Callable[..., None] = _backward) -> Weights:
    """An optimizer of each parameter steps as soon as the gradient is there."""
    model = network()
    for group in groups(cls, model):
        for p in group["params"]:
            optimizer = cls([{**group, "params": [p], "param_names": None}], **SETTINGS, **flags)
            optimizer.param_groups[0].pop("param_names")

            def step(_: Tensor, optimizer: AdaRem = optimizer) -> None:
                optimizer.step()
                optimizer.zero_grad()

            p.register_post_accumulate_grad_hook(step)
    with torch._dynamo.config.patch(compiled_autograd=backward is not _backward):
        for x, y in batches():
            backward(model, x, y)
    return weights(model)


def checkpointed(cls: type[AdaRem], flags: Flags, place: Callable[[nn.Module], nn.Module], full: bool) -> Weights:
    """Half of the steps; the state through torch.distributed.checkpoint into a new model and optimizer; the rest."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

    half = STEPS // 2
    model = place(network())
    optimizer = build(cls, model, flags)
    train(model, optimizer, share(batches()[:half]))
    options = StateDictOptions(full_state_dict=full, broadcast_from_rank0=full and dist.is_initialized())
    of_model, of_optimizer = get_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=full))

    torch.manual_seed(1)
    other = network()
    for p in other.parameters():
        nn.init.normal_(p)
    other = place(other)
    fresh = build(cls, other, flags)
    if not full:
        with _folder() as folder:
            dcp.save({"model": of_model, "optimizer": of_optimizer}, checkpoint_id=folder)
            of_model, of_optimizer = get_state_dict(other, fresh)
            state = {"model": of_model, "optimizer": of_optimizer}
            dcp.load(state, checkpoint_id=folder)
        of_model, of_optimizer = state["model"], state["optimizer"]
    set_state_dict(other, fresh, model_state_dict=of_model, optim_state_dict=of_optimizer, options=options)
    train(other, fresh, share(batches()[half:]))
    return weights(other)


class _folder:
    """A folder that all ranks share, gone at the end."""

    def __enter__(self) -> str:
        path = [tempfile.mkdtemp(prefix="adarem-stacks-")]
        if dist.is_initialized():
            if dist.get_rank():
                shutil.rmtree(path[0])
            dist.broadcast_object_list(path)
        self.path: str = path[0]
        return self.path

    def __exit__(self, *_: object) -> None:
        if dist.is_initialized():
            dist.barrier()
        if not dist.is_initialized() or dist.get_rank() == 0:
            shutil.rmtree(self.path)


# ---- libraries -------------------------------------------------------------------------------------------------------


def timm(cls: type[AdaRem], flags: Flags) -> Weights:
    from timm.optim import create_optimizer_v2

    from adarem.optim import register_timm

    register_timm()
    model = network()
    name = "adarems" if cls is AdaRemS else "adarem"
    optimizer = create_optimizer_v2(model, name, param_group_fn=lambda m: groups(cls, m), **SETTINGS, **flags)
    assert type(optimizer) is cls
    train(model, optimizer, batches())
    return weights(model)


def lightning(cls: type[AdaRem], flags: Flags) -> Weights:
    import lightning
    from torch.utils.data import DataLoader

    class Learner(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: Batch, _: int) -> Tensor:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> AdaRem:
            return build(cls, self.network, flags)

    learner = Learner()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, precision="64-true", enable_checkpointing=False, **quiet
    ).fit(learner, DataLoader(batches(), batch_size=None))
    return weights(learner.network)


def accelerate(cls: type[AdaRem], flags: Flags) -> Weights:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = network()
    prepared, optimizer = accelerator.prepare(model, build(cls, model, flags))
    for x, y in batches():
        optimizer.zero_grad()
        accelerator.backward(nn.functional.cross_entropy(prepared(x), y))
        optimizer.step()
    return weights(model)


class _WithLoss(nn.Module):
    """What Hugging Face's Trainer trains."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.model(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class _InOrder(torch.utils.data.IterableDataset[dict[str, Tensor]]):
    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for xs, ys in batches():
            for x, y in zip(xs, ys, strict=True):
                yield {"x": x, "labels": y}


def hf_trainer(cls: type[AdaRem], flags: Flags) -> Weights:
    from transformers import Trainer, TrainingArguments

    model = network()
    with tempfile.TemporaryDirectory(prefix="adarem-stacks-") as folder:
        arguments = TrainingArguments(
            folder, max_steps=STEPS, per_device_train_batch_size=16, lr_scheduler_type="constant", max_grad_norm=0.0,
            use_cpu=True, report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        optimizers = (build(cls, model, flags), None)
        Trainer(_WithLoss(model), arguments, train_dataset=_InOrder(), optimizers=optimizers).train()
    return weights(model)


# ---- several processes -----------------------------------------------------------------------------------------------


def share(data: list[Batch], ranks: int | None = None, rank: int | None = None) -> list[Batch]:
    """This rank's part of each batch."""
    ranks = dist.get_world_size() if ranks is None and dist.is_initialized() else ranks or 1
    rank = dist.get_rank() if rank is None and dist.is_initialized() else rank or 0
    return [(x[rank::ranks], y[rank::ranks]) for x, y in data]


def ddp(cls: type[AdaRem], flags: Flags) -> Weights:
    model = nn.parallel.DistributedDataParallel(network())
    train(model, build(cls, model.module, flags), share(batches()))
    return weights(model)


def zero(cls: type[AdaRem], flags: Flags) -> Weights:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = nn.parallel.DistributedDataParallel(network())
    optimizer = ZeroRedundancyOptimizer(groups(cls, model.module), cls, **SETTINGS, **flags)
    train(model, optimizer, share(batches()))
    return weights(model)


def fsdp1(cls: type[AdaRem], flags: Flags) -> Weights:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(network(), device_id=torch.device("cpu"), use_orig_params=True)
    named = [(n.removeprefix("_fsdp_wrapped_module."), p) for n, p in model.named_parameters()]
    first = {"params": [p for n, p in named if n in SPHERICAL], **({"spherical": True} if cls is AdaRemS else {})}
    rest = {"params": [p for n, p in named if n not in SPHERICAL]}
    train(model, cls([first, rest], weight_decay=WEIGHT_DECAY, **SETTINGS, **flags), share(batches()))
    with FullyShardedDataParallel.summon_full_params(model):
        return {n.removeprefix("_fsdp_wrapped_module."): p.detach().clone() for n, p in model.named_parameters()}


def _fsdp2(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    fully_shard(model.first)
    fully_shard(model)
    return model


def fsdp2(cls: type[AdaRem], flags: Flags) -> Weights:
    model = _fsdp2(network())
    train(model, build(cls, model, flags), share(batches()))
    return weights(model)


def _parallelize(model: nn.Module, mesh: Any) -> nn.Module:
    from torch.distributed.tensor import Replicate
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan = {
        "first": ColwiseParallel(output_layouts=Replicate()),
        "second": ColwiseParallel(output_layouts=Replicate()),
        "last": RowwiseParallel(input_layouts=Replicate()),
    }
    return parallelize_module(model, mesh, plan)


def tensor_parallel(cls: type[AdaRem], flags: Flags) -> Weights:
    model = _parallelize(network(), dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),)))
    train(model, build(cls, model, flags), batches())
    return weights(model)


def fsdp2_and_tensor_parallel(cls: type[AdaRem], flags: Flags) -> Weights:
    from torch.distributed.fsdp import fully_shard

    mesh = dist.device_mesh.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = _parallelize(network(), mesh["tp"])
    fully_shard(model, mesh=mesh["dp"])
    data = share(batches(), mesh["dp"].size(), mesh["dp"].get_local_rank())
    train(model, build(cls, model, flags), data)
    return weights(model)


# ---- the table -------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    run: Callable[[type[AdaRem], Flags], Weights]
    ranks: int = 1
    slow: bool = False  # seconds a cell
    settings: Mapping[str, str] = MappingProxyType({})  # sphere is left out for AdaRem
    reference: Callable[[type[AdaRem], Flags], Weights] = plain_loop
    tolerance: float = 1e-12


ALONE = {"sphere": "tensor"}  # each weight on a sphere of its own
ROWS: dict[str, Row] = {
    "plain loop": Row(plain_loop),
    "autocast and GradScaler on the CPU, one overflow": Row(
        scaled, reference=lambda cls, flags: scaled(cls, flags, with_scaler=False), tolerance=1e-5
    ),
    "schedulers: cosine, OneCycleLR, CyclicLR, ReduceLROnPlateau": Row(
        scheduled, reference=lambda cls, flags: scheduled(cls, flags, by_hand=True)
    ),
    "AveragedModel (SWA, EMA)": Row(averaged, reference=lambda cls, flags: averaged(cls, flags, by_hand=True)),
    "torch.compile(optimizer.step), inductor": Row(compiled_step, slow=True),
    'optimizer in the backward pass, sphere="tensor"': Row(in_backward, settings=ALONE),
    "the same under compiled autograd": Row(compiled_autograd, settings=ALONE, slow=True),
    "timm": Row(timm),
    "Lightning": Row(lightning, slow=True),
    "accelerate": Row(accelerate, slow=True),
    "Hugging Face Trainer": Row(hf_trainer, slow=True),
    "DDP": Row(ddp, ranks=2),
    "ZeroRedundancyOptimizer": Row(zero, ranks=2),
    'ZeroRedundancyOptimizer, sphere="tensor"': Row(zero, ranks=2, settings=ALONE),
    'ZeroRedundancyOptimizer, scope="model", sphere="tensor"': Row(zero, ranks=2, settings={"scope": "model", **ALONE}),
    "FSDP2": Row(fsdp2, ranks=2),
    'FSDP2, scope="model", sphere="tensor"': Row(fsdp2, ranks=2, settings={"scope": "model", **ALONE}),
    "tensor parallel": Row(tensor_parallel, ranks=2),
    "FSDP2 with tensor parallel": Row(fsdp2_and_tensor_parallel, ranks=4),
    "FSDP1": Row(fsdp1, ranks=2),
    "DCP, full state dict, one process": Row(functools.partial(checkpointed, place=lambda m: m, full=True)),
    "DCP, full state dict, FSDP2": Row(functools.partial(checkpointed, place=_fsdp2, full=True), ranks=2),
    "DCP, sharded save and load, FSDP2": Row(functools.partial(checkpointed, place=_fsdp2, full=False), ranks=2),
}


def cell(row: Row, cls: type[AdaRem], flags: Flags) -> Cell:
    settings = {k: v for k, v in row.settings.items() if k != "sphere" or cls is AdaRemS}
    try:
        got = row.run(cls, {**flags, **settings})
        expected = row.reference(cls, {**IMPLEMENTATIONS["single"], **settings})
        difference = max((got[n] - expected[n]).abs().max().item() for n in expected)
    except Exception as error:
        line = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        ours = "adarem" in files[-1].parts and "optim" in files[-1].parts and type(error) in (ValueError, RuntimeError)
        return Cell("refused" if ours else "error", line)
    return Cell("equal" if difference <= row.tolerance else "differs", f"{difference:.0e}")


def _run_rows(names: list[str]) -> dict[tuple[str, str, str], Cell]:
    found = {}
    for name in names:
        for of, cls in CLASSES.items():
            for how, flags in IMPLEMENTATIONS.items():
                found[name, of, how] = cell(ROWS[name], cls, flags)
    return found


def _rank(rank: int, ranks: int, folder: str, names: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
    )
    found = _run_rows(names)
    everyone: list[Any] = [None] * ranks
    dist.all_gather_object(everyone, found)
    if rank == 0:
        worst = {key: max((of[key] for of in everyone), key=lambda c: (c.kind != "equal", c.detail)) for key in found}
        torch.save({key: tuple(value) for key, value in worst.items()}, f"{folder}/found.pt")
    dist.barrier()
    dist.destroy_process_group()


def run(names: list[str]) -> dict[tuple[str, str, str], Cell]:
    """Every cell of the rows, by row, optimizer and implementation; one process group for each number of ranks."""
    found = _run_rows([n for n in names if ROWS[n].ranks == 1])
    for ranks in sorted({ROWS[n].ranks for n in names} - {1}):
        chosen = [n for n in names if ROWS[n].ranks == ranks]
        with tempfile.TemporaryDirectory(prefix="adarem-stacks-") as folder:
            start_server()
            torch.multiprocessing.start_processes(
                _rank, (ranks, folder, chosen), nprocs=ranks, start_method="forkserver"
            )
            found |= {key: Cell(*value) for key, value in torch.load(f"{folder}/found.pt").items()}
    return found


def table(found: dict[tuple[str, str, str], Cell]) -> str:
    """Markdown: a row for each stack; lines of errors below, by letter."""
    columns = [(of, how) for of in CLASSES for how in IMPLEMENTATIONS]
    lines = [
        "| stack | processes | " + " | ".join(f"{of} {how}" for of, how in columns) + " |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    notes: list[str] = []
    for name in ROWS:
        if (name, *columns[0]) not in found:
            continue
        shown = []
        for of, how in columns:
            kind, detail = found[name, of, how]
            if kind in ("refused", "error"):
                if detail not in notes:
                    notes.append(detail)
                detail = f"[{chr(ord('a') + notes.index(detail))}]"
            shown.append(f"{kind} {detail}" if detail.startswith("[") else f"{kind} ({detail})")
        lines.append(f"| {name} | {ROWS[name].ranks} | " + " | ".join(shown) + " |")
    listed = [f"- [{chr(ord('a') + i)}] `{note}`" for i, note in enumerate(notes)]
    return "\n".join([*lines, *([""] if listed else []), *listed])


def versions() -> str:
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("timm", "lightning", "accelerate", "transformers"))
    return f"Python {platform.python_version()}, torch {torch.__version__.partition('+')[0]}, {libraries}"


if __name__ == "__main__":
    import contextlib
    import io
    import logging

    logging.disable()
    warnings.simplefilter("ignore")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # of the libraries
        cells = run([n for n in ROWS if n in (sys.argv[1:] or ROWS)])
    print(table(cells))
    print(f"\n{date.today()}, {versions()}")
