"""Networks spread over processes in each way that DTensors know, and a process group that runs functions one by one."""

import datetime
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from tests.support.warm import start_server

LAYOUTS = {2: ("fsdp", "tp"), 4: ("fsdp", "hsdp", "tp", "fsdp+tp")}  # by number of processes


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A small network whose sizes do not divide by 2 and 4: parts of unequal size, and empty ones in four processes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3), nn.LayerNorm(3), nn.Linear(3, 5)).to(dtype)


def spread(model: nn.Sequential, layout: str) -> nn.Sequential:
    """``model`` with DTensors for parameters; under tensor parallelism the last two layers keep plain ones."""
    world = dist.get_world_size()
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    if layout == "fsdp":
        mesh = init_device_mesh("cpu", (world,))
        fully_shard(model[0], mesh=mesh)
        fully_shard(model, mesh=mesh)
    elif layout == "hsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replicate", "shard")))
    elif layout == "tp":
        parallelize_module(model, init_device_mesh("cpu", (world,)), plan)
    else:
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
        parallelize_module(model, mesh["tp"], plan)
        fully_shard(model, mesh=mesh["dp"])
    return model


def full(x: Tensor) -> Tensor:
    """All elements of ``x``, in every process."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 1) -> None:
    """``steps`` steps on the same data in every process: gradients are those of one process."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        optimizer.zero_grad()
        y = full(model(torch.randn(4, 6, generator=generator).to(dtype)))
        (y.square() + y.sin()).mean().backward()
        optimizer.step()


def values(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every parameter and every tensor of its state, complete, by name."""
    found = {}
    for name, p in model.named_parameters():
        found[name] = full(p.detach()).clone()
        found.update({f"{name} {key}": full(value).clone() for key, value in optimizer.state.get(p, {}).items()})
    return found


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Over all entries; both must have the same."""
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    differences = [(one[k].double() - other[k].double()).abs().max() for k in one if one[k].numel()]
    return float(torch.stack(differences).max())


def save(folder: str, model: nn.Module, optimizer: torch.optim.Optimizer, options: StateDictOptions) -> None:
    """Writes both into a folder, each process its parts."""
    weights, state = get_state_dict(model, optimizer, options=options)
    checkpoint.save({"model": weights, "optimizer": state}, checkpoint_id=folder)


def load(folder: str, model: nn.Module, optimizer: torch.optim.Optimizer, options: StateDictOptions) -> None:
    """Reads what :func:`save` wrote into a model and optimizer that may be spread in another way."""
    weights, state = get_state_dict(model, optimizer, options=options)
    saved = {"model": weights, "optimizer": state}
    checkpoint.load(saved, checkpoint_id=folder)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=saved["model"],
        optim_state_dict=saved["optimizer"],  # type: ignore[arg-type]
        options=options,
    )


def _rank(rank: int, world: int, meeting_point: str, functions: Sequence[Callable[[], None]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting_point}",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=20),
    )
    try:
        for function in functions:
            try:
                function()
            except Exception as error:
                raise AssertionError(f"{function} in process {rank} of {world}") from error
    finally:
        dist.destroy_process_group()


def run_in_processes(world: int, functions: Sequence[Callable[[], None]]) -> None:
    """Runs each of ``functions`` in ``world`` processes of one group; raises the first error."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world, str(Path(folder) / "meet"), functions)
        start_server()
        torch.multiprocessing.start_processes(_rank, arguments, nprocs=world, start_method="forkserver")
