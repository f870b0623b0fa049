"""How the ranks of a run find each other: either all of them meet or none starts, and missing ranks are named.

They meet at a store, in which each enters its host: memory that the launcher of a local run hands to its ranks alone,
or one that rank 0 opens for those that know the job's token. The first rank that sees all of them, or that leaves
before that, writes the one verdict that every rank follows: so no rank starts with one that has left.
"""

import errno
import hmac
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn, Protocol

import torch.distributed as dist
from torch.distributed import (  # type: ignore[attr-defined]  # torch exports them unlisted
    FileStore,
    Store,
)

from adarem.run.errors import RankLost, UserError
from adarem.train.distributed.store import Address, Client, Refused, Server, connect

_LOOK_SECONDS = 0.2
_VERDICT, _ALL, _LEFT = "adarem/meeting", "all came", "one left"
_STORE_ERRORS = (dist.DistNetworkError, dist.DistStoreError)
_TOKEN_BYTES = 16
# Below those that the system gives to connections; several, as others may hold some.
_FIRST_PORT, _PORT_RANGE, _PORTS = 10000, 20000, 8


class Meeting(NamedTuple):
    store: Store  # at which the ranks met
    hosts: tuple[str, ...]  # of each rank, in order


class StoppedWaiting(Exception):
    """A signal asked for an end before all ranks were there; nothing has begun.

    Args:
        signal: its name.
        rank: the one that waited.
        missing: the ranks that it waited for.
    """

    def __init__(self, signal: str, rank: int, missing: Sequence[int]) -> None:
        super().__init__(f"{signal} while rank {rank} waited for {_ranks(missing)}")
        self.signal = signal


class _Inherited(NamedTuple):
    """Descriptors of memory that the launcher of a local run hands to its ranks (launch/ranks.py)."""

    store: int
    heartbeats: int


def inherited() -> _Inherited | None:
    """The memory of a local run's ranks; None for others.

    Raises:
        UserError: the variable that names it holds something else.
    """
    given = os.environ.get("ADAREM_RANKS")
    if given is None:
        return None
    store, _, heartbeats = given.partition(",")
    if not (store.isdigit() and heartbeats.isdigit()):
        raise UserError(f"ADAREM_RANKS={given}: only `adarem launch` sets it, for a run's ranks; unset it")
    return _Inherited(int(store), int(heartbeats))


class Board(Protocol):
    """Where each rank publishes one text at a time and reads those of the others."""

    def publish(self, rank: int, text: str) -> None: ...

    def read(self, ranks: Sequence[int]) -> list[str | None]:
        """The newest text of each; None before its first."""


class _MemoryBoard:
    """One slot of fixed size per rank, so that it does not grow."""

    _SLOT = 512  # bytes

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def publish(self, rank: int, text: str) -> None:
        os.pwrite(self._descriptor, text.encode().ljust(self._SLOT), rank * self._SLOT)

    def read(self, ranks: Sequence[int]) -> list[str | None]:
        slots = [os.pread(self._descriptor, self._SLOT, rank * self._SLOT) for rank in ranks]
        return [slot.rstrip(b" \0").decode() or None for slot in slots]


class _StoreBoard:
    def __init__(self, store: Client) -> None:
        self._store = store

    def publish(self, rank: int, text: str) -> None:
        self._store.set(f"adarem/heartbeat/{rank}", text)

    def read(self, ranks: Sequence[int]) -> list[str | None]:
        held = self._store.read([f"adarem/heartbeat/{rank}" for rank in ranks])
        return [None if text is None else text.decode() for text in held]


def open_board(timeout_seconds: float) -> Board:
    """A connection of its own to where this run's ranks publish.

    Raises:
        UserError: see ``meeting_point``.
        OSError: the store does not answer.
    """
    memory = inherited()
    if memory is not None:
        return _MemoryBoard(memory.heartbeats)
    point = meeting_point(int(os.environ["WORLD_SIZE"]))
    return _StoreBoard(Client(lambda: connect(point.addresses, point.token), timeout_seconds))


class MeetingPoint(NamedTuple):
    """Where ranks of several hosts meet, and the secret that proves who belongs to them."""

    host: str
    ports: tuple[int, ...]  # of which rank 0 takes the first that is free
    token: bytes
    place: str  # as a message begins

    @property
    def addresses(self) -> list[Address]:
        return [(self.host, port) for port in self.ports]


def meeting_point(world_size: int) -> MeetingPoint:
    """As the environment has it: MASTER_ADDR and ADAREM_TOKEN, and MASTER_PORT where the ports are not the token's.

    Raises:
        UserError: one of them is missing, or is none.
    """
    env = os.environ
    if "MASTER_ADDR" not in env:
        raise UserError(
            f"MASTER_ADDR: not set, so {world_size} ranks cannot meet; start with `adarem launch` or slurm/run.sbatch"
        )
    if len(given := env.get("ADAREM_TOKEN", "").encode()) < _TOKEN_BYTES:
        raise UserError(
            f"ADAREM_TOKEN: not set, or shorter than {_TOKEN_BYTES} characters, so {world_size} ranks cannot tell each "
            "other from strangers; start with `adarem launch` or slurm/run.sbatch, or give all ranks one random text"
        )
    # torchrun starts its ranks again in the same environment: those of before must not meet the new ones.
    token = hmac.digest(given, f"start {env.get('TORCHELASTIC_RESTART_COUNT', '0')}".encode(), "sha256")
    # One node has no need to be reached from others.
    alone = env.get("SLURM_NNODES") == "1" or env.get("LOCAL_WORLD_SIZE") == str(world_size)
    host, place = "127.0.0.1" if alone else env["MASTER_ADDR"], f"MASTER_ADDR={env['MASTER_ADDR']}"
    if "MASTER_PORT" in env and env.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        place += f" MASTER_PORT={env['MASTER_PORT']}"
        if not (env["MASTER_PORT"].isdigit() and 0 < int(env["MASTER_PORT"]) < 65536):
            raise UserError(f"{place}: no port; give one from 1 to 65535, or unset MASTER_PORT")
        return MeetingPoint(host, (int(env["MASTER_PORT"]),), token, place)
    drawn = [int.from_bytes(hmac.digest(token, b"port %d" % i, "sha256")[:8], "big") for i in range(_PORTS)]
    return MeetingPoint(host, tuple(_FIRST_PORT + n % _PORT_RANGE for n in drawn), token, place)


class _StorePlace(NamedTuple):
    place: str  # as a message begins
    store: Store


def meet(rank: int, world_size: int, timeout_seconds: float, stop_signal: Callable[[], str | None]) -> Meeting:
    """Waits until all ranks are there.

    Args:
        rank: this process's.
        world_size: number of ranks.
        timeout_seconds: the longest wait.
        stop_signal: the name of a signal that asks for an end, or None.

    Raises:
        UserError: there is no store to meet at; retryable.
        RankLost: not every rank came; the missing ones are named on standard error.
        StoppedWaiting: a signal asked for an end.
    """
    host, end = socket.gethostname(), time.monotonic() + timeout_seconds
    if (memory := inherited()) is None:
        place, store = _network_store(rank, world_size, timeout_seconds, stop_signal)
    else:  # opened anew, so that each rank has its own lock on it
        place, store = f"this machine, {host}", FileStore(f"/proc/self/fd/{memory.store}", -1)
    keys, missing = [f"adarem/host/{r}" for r in range(world_size)], [0]
    try:
        store.set(keys[rank], host)
        while not store.check(keys):
            missing = [r for r in range(world_size) if not store.check([keys[r]])]
            late = time.monotonic() > end
            if (stop_signal() or late) and _verdict(store, _LEFT) == _LEFT:
                if late and not stop_signal() and store.add("adarem/reported", 1) == 1:
                    line = f"{_ranks(missing)} of {world_size} did not come within {timeout_seconds:.0f} s"
                    _report_and_raise(f"{place}: {line}")
                break
            if store.check([_VERDICT]) and store.get(_VERDICT).decode() == _LEFT:
                break
            time.sleep(_LOOK_SECONDS)
        else:
            if _verdict(store, _ALL) == _ALL:
                return Meeting(store, tuple(store.get(key).decode() for key in keys))
    except _STORE_ERRORS:
        pass  # rank 0 left and closed the store
    if name := stop_signal():
        raise StoppedWaiting(name, rank, missing)
    raise RankLost(f"{place}: another rank left before {_ranks(missing)} of {world_size} had come")


def _network_store(
    rank: int, world_size: int, timeout_seconds: float, stop_signal: Callable[[], str | None]
) -> _StorePlace:
    """Opens the store on rank 0; the others wait for it. Raises as `meet`."""
    point, host, end = meeting_point(world_size), socket.gethostname(), time.monotonic() + timeout_seconds
    place, stranger, store = point.place, "", None
    if rank == 0:
        try:
            Server(_listening(point), point.token)
        except OSError as e:
            reason = "the port is in use" if e.errno == errno.EADDRINUSE else e.strerror or str(e)
            _refuse(place, rank, host, reason)
    while store is None:
        if name := stop_signal():
            raise StoppedWaiting(name, rank, [0])
        if time.monotonic() > end:
            _report_and_raise(
                f"{place}: rank {rank} on {host} found no store there for {timeout_seconds:.0f} s{stranger}"
            )
        try:
            store = Client(lambda: connect(point.addresses, point.token), timeout_seconds)
        except OSError as e:
            if isinstance(e, socket.gaierror) and e.errno != socket.EAI_AGAIN:
                _refuse(place, rank, host, e.strerror or str(e))
            stranger = f" ({e})" if isinstance(e, Refused) else ""
            time.sleep(_LOOK_SECONDS)
    return _StorePlace(place, store)


def _refuse(place: str, rank: int, host: str, reason: str) -> NoReturn:
    raise UserError(
        f"{place}: rank {rank} on {host} cannot meet the others there ({reason}); choose another port, or start again: "
        "each Slurm job takes its own",
        retryable=True,
    )


def _listening(point: MeetingPoint) -> list[socket.socket]:
    """Sockets at the first free port, at the addresses by which the others know this host and at no others.

    Raises:
        OSError: no port is free, or the host is unknown.
    """
    hosts = {str(found[4][0]) for found in socket.getaddrinfo(point.host, None, type=socket.SOCK_STREAM)}
    own_name_only = all(h.startswith("127.") or h == "::1" for h in hosts)
    if own_name_only and (reached := os.environ.get("SLURM_LAUNCH_NODE_IPADDR")) and point.host != "127.0.0.1":
        hosts.add(reached)  # a host may know its own name as 127.0.1.1 and have another address for the rest
    for last, port in enumerate(point.ports, 1 - len(point.ports)):
        try:
            return _bound(hosts, port) or _bound({""}, port)  # an address of a gateway's, which is not this host's
        except OSError as e:
            if last == 0 or e.errno != errno.EADDRINUSE:
                raise
    raise AssertionError


def _bound(hosts: set[str], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for host in sorted(hosts):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                sockets.append(socket.create_server((host, port), family=family))
            except OSError as e:
                if e.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
    except OSError:
        for s in sockets:
            s.close()
        raise
    return sockets


def _verdict(store: Store, mine: str) -> str:
    """Proposes a verdict and returns the first one that was proposed, which counts."""
    first: bytes = store.compare_set(_VERDICT, "", mine)
    return first.decode()


def _report_and_raise(line: str) -> NoReturn:
    print(f"adarem train: {line}; check that host and start again", file=sys.stderr, flush=True)
    raise RankLost(line)


def _ranks(ranks: Sequence[int]) -> str:
    """``rank 3``, ``ranks 8 to 15``, ``ranks 1, 5, 6``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]} to {ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"
