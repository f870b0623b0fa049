"""The ranks of one run: who they are, and the few things they say to each other outside of DDP."""

import datetime
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from adarem.run.errors import UserError
from adarem.train.distributed import rendezvous

T = TypeVar("T")

DOING = ("starts", "waits for data", "trains", "evaluates", "writes a checkpoint")
STARTS, WAITS_FOR_DATA, TRAINS, EVALUATES, WRITES_CHECKPOINT = range(len(DOING))


class Pulse:
    """Where a rank's own training loop is. The watchdog reads it from another thread; a beat costs 0.2 µs."""

    def __init__(self) -> None:
        self.beat = (0, 0, STARTS)  # count of beats, last step done, place in DOING; replaced whole, so never torn

    def at(self, step: int, doing: int) -> None:
        self.beat = (self.beat[0] + 1, step, doing)

    def on(self) -> None:
        """Still the same, and getting on with it."""
        count, step, doing = self.beat
        self.beat = (count + 1, step, doing)


@dataclass(frozen=True)
class World:
    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    hosts: tuple[str, ...]  # of each rank, in order
    pulse: Pulse = field(default_factory=Pulse, compare=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sums over ranks in place, and returns the tensor."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value."""
        box = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def sync_buffers(self, model: torch.nn.Module) -> None:
        """Gives every rank the buffers (BatchNorm's running statistics) of rank 0, as a checkpoint would hold them."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


def together(world: World, build: Callable[[], T]) -> T:
    """Runs ``build`` on every rank; if it fails for a user's mistake on any, every rank raises that UserError."""
    value, error = None, None
    world.pulse.on()  # building takes several of these, some of them long
    try:
        value = build()
    except UserError as e:
        error = e
    for rank, failed in enumerate(world.gather(error)):
        if failed is not None:
            line = str(failed) if rank == 0 else f"rank {rank} on {world.hosts[rank]}: {failed}"
            raise UserError(line, retryable=failed.retryable, reported=not world.is_main)
    return value  # type: ignore[return-value]


def _from_environment() -> tuple[int, int, int]:
    """Rank, world size and local rank as torchrun or srun says; a lone process is rank 0 of 1."""
    env = os.environ
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "RANK" not in env:
        # Inside a job but outside of srun (a shell on a node) there is no step, and this is a lone process.
        if not {"SLURM_PROCID", "SLURM_STEP_ID", "MASTER_ADDR"} <= env.keys():
            return 0, 1, 0
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    rank, world_size, local_rank = (env.get(name, "0" if name == "LOCAL_RANK" else "") for name in names)
    if not (rank.isdigit() and world_size.isdigit() and local_rank.isdigit() and int(rank) < int(world_size)):
        given = ", ".join(f"{name}={env.get(name, '')}" for name in names)
        raise UserError(f"{given}: no ranks of one run; start with torchrun or slurm/run.sbatch, or unset {names[0]}")
    return int(rank), int(world_size), int(local_rank)


def start_world(device: str, timeout_seconds: float, stop: "StopRequest") -> World:
    """Joins the other ranks: NCCL on CUDA, gloo on the CPU.

    Args:
        device: ``cpu`` or ``cuda``.
        timeout_seconds: ranks that do not come within it end the run; so does a collective that takes longer.
        stop: asks for an orderly end, also of the wait for the others.

    Raises:
        UserError: fewer GPUs on this host than ranks, or no store to meet at (then retryable).
        RankLost, StoppedWaiting: see ``rendezvous.meet``.
    """
    rank, world_size, local_rank = _from_environment()
    if device == "cuda":
        found = torch.cuda.device_count()
        if local_rank >= found:
            line = (
                f"cluster.ranks_per_node: rank {rank} needs GPU {local_rank} on {socket.gethostname()}, which has "
                f"{found}; lower it, or use cluster.device=cpu"
            )
            if local_rank == found:  # the first on this host that lacks one
                print(f"adarem train: {line}", file=sys.stderr, flush=True)
            raise UserError(line, reported=True)
        target = torch.device("cuda", local_rank)
        torch.cuda.set_device(target)
    else:
        target = torch.device("cpu")
    hosts = (socket.gethostname(),)
    if world_size > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(local_rank)}
        store, hosts = rendezvous.meet(rank, world_size, timeout_seconds, lambda: stop.signal)
        try:
            dist.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                store=store,
                rank=rank,
                world_size=world_size,
                timeout=datetime.timedelta(seconds=timeout_seconds),
                device_id=target if device == "cuda" else None,
            )
        except RuntimeError as e:  # a rank left between the meeting and this
            raise UserError(
                f"rank {rank} on {socket.gethostname()} met the others and could not connect to them "
                f"({str(e).strip().splitlines()[0].rstrip('.')}); start again",
                retryable=True,
            ) from None
    return World(rank, world_size, local_rank, target, hosts)


def data_parallel(model: nn.Module, world: World, example_loss: Callable[[nn.Module], torch.Tensor]) -> nn.Module:
    """The model under DDP, its layout of gradients settled; alone, the model itself.

    DDP lays the gradients out anew after its first backward pass, in the order in which they came, and with more than
    two ranks a sum over ranks depends on the layout. So each start's first step would be summed as no later one is, and
    a run that was interrupted would differ in its last bits. Here the first backward pass is one that leaves no trace.

    Args:
        example_loss: of a network, any loss that every parameter bears on.
    """
    if world.world_size == 1:
        return model
    ids = [world.local_rank] if world.device.type == "cuda" else None
    network = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    example_loss(network).backward()
    network.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return network


class Agreement:
    """Ranks agree on a code (0: go on) one step late, so that no rank waits for another because of it.

    Each call hands in this rank's code and returns the largest code of the call before over all ranks: the same value
    on every rank at the same call. It travels over gloo on the host and never touches the device.
    """

    def __init__(self, world: World) -> None:
        self._alone = world.world_size == 1
        self._group = None if self._alone else dist.new_group(backend="gloo")
        self._pending: tuple[Any, torch.Tensor] | None = None

    def exchange(self, code: int) -> int:
        if self._alone:
            return code
        agreed = self.settle()
        flag = torch.tensor([code])
        self._pending = (dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True), flag)
        return agreed

    def settle(self) -> int:
        """The result of the last exchange; afterwards nothing is under way."""
        if self._pending is None:
            return 0
        work, flag = self._pending
        work.wait()
        self._pending = None
        return int(flag)


class StopRequest:
    """Remembers a signal that asks for an orderly end; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._since = 0.0
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        now = time.monotonic()
        # One Ctrl-C arrives twice, from the terminal and from torchrun; a second one comes later than that.
        if number == signal.SIGINT and self.signal is not None and now - self._since > 2.0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if self.signal is None:
            self.signal, self._since = signal.Signals(number).name, now
