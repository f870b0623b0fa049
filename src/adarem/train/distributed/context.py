"""The process group of one run: this rank's place in it, and the collectives that the trainer uses outside of DDP."""

import datetime
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adarem.run.errors import UserError
from adarem.train.distributed import rendezvous
from adarem.train.distributed.heartbeat import Heartbeat
from adarem.train.distributed.place import place_of_this_process
from adarem.train.distributed.stop import StopRequest

T = TypeVar("T")


@dataclass(frozen=True)
class RankContext:
    """One rank of a run."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    hosts: tuple[str, ...]  # of each rank, in order
    heartbeat: Heartbeat = field(default_factory=Heartbeat, compare=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def host(self) -> str:
        return self.hosts[self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sums over ranks in place, and returns the tensor."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in order of rank."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T | None) -> T:
        """Rank 0's value; what other ranks give is ignored."""
        box = [value]
        if self.world_size > 1:
            dist.broadcast_object_list(box, src=0)
        return cast(T, box[0])

    def barrier(self) -> None:
        """Waits until every rank is here."""
        self.gather(None)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Gives every rank the buffers of rank 0 (BatchNorm's running statistics), which a checkpoint holds."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


def raise_on_all_ranks(context: RankContext, action: Callable[[], T]) -> T:
    """Runs ``action`` on every rank and returns this rank's value.

    Raises:
        UserError: ``action`` raised one on any rank: that of the first such rank, on every rank, with its exit code.
            It counts as reported on all but rank 0.
    """
    value: T | None = None
    error: UserError | None = None
    context.heartbeat.repeat()  # a start consists of several of these, and some take long
    try:
        value = action()
    except UserError as e:
        error = e
    for rank, failed in enumerate(context.gather(error)):
        if failed is not None:
            line = str(failed) if rank == 0 else f"rank {rank} on {context.hosts[rank]}: {failed}"
            raise UserError(line, retryable=failed.retryable, reported=not context.is_main)
    return cast(T, value)


def on_main_rank(context: RankContext, action: Callable[[], T]) -> T:
    """Runs ``action`` on rank 0 and returns its value on every rank; a UserError is raised on every rank."""
    return context.broadcast(raise_on_all_ranks(context, lambda: action() if context.is_main else None))


def join(device: str, timeout_seconds: float, stop: StopRequest) -> RankContext:
    """Joins the other ranks: NCCL on CUDA, gloo on the CPU.

    Args:
        device: ``cpu`` or ``cuda``.
        timeout_seconds: ranks that do not arrive within it end the run; so does a collective that takes longer.
        stop: asks for an orderly end, also of the wait for the others.

    Raises:
        UserError: fewer GPUs on this host than ranks, or no store to meet at (then retryable).
        RankLost, StoppedWaiting: see ``rendezvous.meet``.
    """
    place = place_of_this_process()
    rank, world_size, local_rank = place
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
    if world_size == 1:
        return RankContext(*place, target, (socket.gethostname(),))
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_RANK": str(local_rank)}
    meeting = rendezvous.meet(rank, world_size, timeout_seconds, lambda: stop.signal)
    try:
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=meeting.store,
            rank=rank,
            world_size=world_size,
            timeout=datetime.timedelta(seconds=timeout_seconds),
            device_id=target if device == "cuda" else None,
        )
    except RuntimeError as e:  # a rank left after the rendezvous
        reason = str(e).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"rank {rank} on {socket.gethostname()}: met the other ranks and cannot connect to them ({reason}); "
            "start again",
            retryable=True,
        ) from None
    return RankContext(*place, target, meeting.hosts)
