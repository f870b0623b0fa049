"""The process group of one run: this rank's place in it, and the collectives that the trainer uses outside of DDP."""

import datetime
import hmac
import json
import math
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from adarem.run.errors import UserError
from adarem.train.distributed import rendezvous
from adarem.train.distributed.heartbeat import Heartbeat
from adarem.train.distributed.place import place_of_this_process
from adarem.train.distributed.stop import StopRequest

T = TypeVar("T")
# What ranks send each other: JSON, which nothing executes. A tuple would arrive as a list.
Message: TypeAlias = None | bool | int | float | str | list["Message"] | dict[str, "Message"]
_PROOF_BYTES = 32  # of SHA-256
M = TypeVar("M")  # a Message; a list of texts is one, which its type does not say


@dataclass(frozen=True)
class RankContext:
    """One rank of a run."""

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    hosts: tuple[str, ...]  # of each rank, in order
    secret: bytes = field(default=b"", repr=False)  # that the ranks share
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

    def gather(self, value: M) -> list[M]:
        """Every rank's value, a Message, in order of rank."""
        data = _encoded(value)
        return [cast(M, json.loads(its)) for its in self._gather_bytes(data)]

    def gather_tensors(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Every rank's tensors, on the host, in order of rank. Shapes may differ, types do not."""
        shapes = self.gather([list(t.shape) for t in tensors])
        raw = b"".join(t.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() for t in tensors)
        ranks = []
        for its, data in zip(shapes, self._gather_bytes(raw), strict=True):
            sizes = [math.prod(shape) * t.element_size() for shape, t in zip(its, tensors, strict=True)]
            parts = torch.split(torch.frombuffer(bytearray(data), dtype=torch.uint8), sizes)
            ranks.append([p.view(t.dtype).reshape(shape) for p, t, shape in zip(parts, tensors, its, strict=True)])
        return ranks

    def broadcast(self, value: M | None) -> M:
        """Rank 0's value, a Message; what other ranks give is ignored."""
        data = _encoded(value) if self.is_main else b""
        if self.world_size > 1:
            size = torch.tensor([len(data)], device=self.device)
            dist.broadcast(size, src=0)
            held = self._as_tensor(data, int(size.item()))
            dist.broadcast(held, src=0)
            data = held.cpu().numpy().tobytes()
        return cast(M, json.loads(data))

    def _gather_bytes(self, data: bytes) -> list[bytes]:
        if self.world_size == 1:
            return [data]
        sizes = torch.zeros(self.world_size, dtype=torch.int64, device=self.device)
        sizes[self.rank] = len(data)
        dist.all_reduce(sizes)
        longest = max(1, int(sizes.max().item()))
        held = [torch.empty(longest, dtype=torch.uint8, device=self.device) for _ in range(self.world_size)]
        dist.all_gather(held, self._as_tensor(data, longest))
        return [t[:size].cpu().numpy().tobytes() for t, size in zip(held, sizes.tolist(), strict=True)]

    def _as_tensor(self, data: bytes, length: int) -> Tensor:
        return torch.frombuffer(bytearray(data.ljust(length, b"\0")), dtype=torch.uint8).to(self.device)

    def barrier(self) -> None:
        """Waits until every rank is here."""
        self.gather(None)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Gives every rank the buffers of rank 0 (BatchNorm's running statistics), which a checkpoint holds."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def check_peers(self, group: dist.ProcessGroup | None, name: str) -> None:
        """Makes sure that the other end of each of a gloo group's connections is the rank that it should be.

        gloo gives a rank's place to whoever connects to its port first. NCCL asks for a secret of its own.

        Args:
            name: differs for each group, so that no proof serves for another.

        Raises:
            UserError: something else is there; retryable.
        """
        everyone = range(self.world_size)
        sent = b"".join(_proof(self.secret, name, self.rank, other) for other in everyone)
        received = torch.zeros(len(sent), dtype=torch.uint8)
        dist.all_to_all_single(received, torch.frombuffer(bytearray(sent), dtype=torch.uint8), group=group)
        proofs = received.numpy().tobytes()
        for other in everyone:
            proof = proofs[other * _PROOF_BYTES : (other + 1) * _PROOF_BYTES]
            if not hmac.compare_digest(proof, _proof(self.secret, name, other, self.rank)):
                raise UserError(
                    f"rank {self.rank} on {self.host}: another program has taken the connection of rank {other} on "
                    f"{self.hosts[other]}; start again, and ask who else is on these machines",
                    retryable=True,
                )

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
    own: Message = None if error is None else [str(error), error.retryable]
    for rank, failed in enumerate(context.gather(own)):
        if isinstance(failed, list):
            line = str(failed[0]) if rank == 0 else f"rank {rank} on {context.hosts[rank]}: {failed[0]}"
            raise UserError(line, retryable=failed[1] is True, reported=not context.is_main)
    return cast(T, value)


def on_main_rank(context: RankContext, action: Callable[[], M]) -> M:
    """Runs ``action`` on rank 0 and returns its value, a Message, on all ranks, where a UserError is raised too."""
    return context.broadcast(raise_on_all_ranks(context, lambda: action() if context.is_main else None))


def _proof(secret: bytes, group: str, sender: int, receiver: int) -> bytes:
    return hmac.digest(secret, f"{group}: {sender} to {receiver}".encode(), "sha256")


def _encoded(value: object) -> bytes:
    """As JSON. Raises TypeError for what would not arrive as it is."""
    _check_message(value)
    return json.dumps(value).encode()


def _check_message(value: object) -> None:
    if type(value) is list:
        for item in value:
            _check_message(item)
    elif type(value) is dict and all(type(k) is str for k in value):
        for item in value.values():
            _check_message(item)
    elif value is not None and type(value) not in (bool, int, float, str):
        raise TypeError(f"{type(value).__name__}: no JSON, and ranks exchange nothing else")


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
    if len(set(meeting.hosts)) == 1:  # nothing else has to reach the ports of these ranks
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    try:
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=meeting.store,
            rank=rank,
            world_size=world_size,
            timeout=datetime.timedelta(seconds=timeout_seconds),
            device_id=target if device == "cuda" else None,
        )
        secret = _secret(meeting, rank)
        context = RankContext(*place, target, meeting.hosts, secret)
        if device != "cuda":
            context.check_peers(dist.group.WORLD, "world")
    except RuntimeError as e:  # a rank left after the rendezvous, or something else has taken its place
        reason = str(e).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"rank {rank} on {socket.gethostname()}: met the other ranks and cannot connect to them ({reason}); "
            "start again",
            retryable=True,
        ) from None
    return context


def _secret(meeting: rendezvous.Meeting, rank: int) -> bytes:
    """Random bytes that all ranks, and nobody else, read from the store."""
    if rank == 0:
        meeting.store.set("adarem/secret", secrets.token_hex(32))
    secret: bytes = meeting.store.get("adarem/secret")
    return secret
