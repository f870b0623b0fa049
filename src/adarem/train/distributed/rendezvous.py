"""How the ranks of a run find each other: either all of them meet or none starts, and missing ranks are named.

They meet at a store, in which each enters its host: memory that the launcher of a local run hands to its ranks alone,
torchrun's own store, or one that rank 0 opens. The first rank that sees all of them, or that leaves before that, writes
the one verdict that every rank follows: so no rank starts with one that has left.
"""

import datetime
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn, Protocol

import torch.distributed as dist
from torch.distributed import (  # type: ignore[attr-defined]  # torch exports them unlisted
    FileStore,
    PrefixStore,
    Store,
    TCPStore,
)

from adarem.run.errors import RankLost, UserError

_LOOK_SECONDS = 0.2
_VERDICT, _ALL, _LEFT = "adarem/meeting", "all came", "one left"
_STORE_ERRORS = (dist.DistNetworkError, dist.DistStoreError)


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
    """The memory of a local run's ranks; None on Slurm and under torchrun.

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

    def read(self, rank: int) -> str | None:
        """The newest text of a rank; None before its first."""


class _MemoryBoard:
    """One slot of fixed size per rank, so that it does not grow."""

    _SLOT = 512  # bytes

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def publish(self, rank: int, text: str) -> None:
        os.pwrite(self._descriptor, text.encode().ljust(self._SLOT), rank * self._SLOT)

    def read(self, rank: int) -> str | None:
        return os.pread(self._descriptor, self._SLOT, rank * self._SLOT).rstrip(b" \0").decode() or None


class _StoreBoard:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: set[int] = set()  # ranks that have published: a store blocks who reads too early

    def publish(self, rank: int, text: str) -> None:
        self._store.set(f"adarem/heartbeat/{rank}", text)

    def read(self, rank: int) -> str | None:
        key = f"adarem/heartbeat/{rank}"
        if rank not in self._known and not self._store.check([key]):
            return None
        self._known.add(rank)
        return self._store.get(key).decode()


def open_board(timeout_seconds: float) -> Board:
    """A connection of its own to where this run's ranks publish. Raises as ``connect``."""
    memory = inherited()
    return _StoreBoard(connect(timeout_seconds)) if memory is None else _MemoryBoard(memory.heartbeats)


def connect(timeout_seconds: float, *, is_server: bool = False) -> Store:
    """A new connection to the store on the network; with ``is_server`` this process opens the store.

    Raises:
        DistNetworkError, DistStoreError, OSError, ValueError, OverflowError: no address, port or store.
    """
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=is_server,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=timeout_seconds),
    )
    # torchrun's store outlives a restart of its ranks, with the entries of the ranks before.
    return PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


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
    """Opens the store at MASTER_ADDR on rank 0 where no launcher has; the others wait for it. Raises as `meet`."""
    for key in ("MASTER_ADDR", "MASTER_PORT"):
        if key not in os.environ:
            raise UserError(
                f"{key}: not set, so {world_size} ranks cannot meet; start with `adarem launch` or slurm/run.sbatch"
            )
    host, end = socket.gethostname(), time.monotonic() + timeout_seconds
    place = f"MASTER_ADDR={os.environ['MASTER_ADDR']} MASTER_PORT={os.environ['MASTER_PORT']}"
    is_server = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store: Store | None = None
    while store is None:
        if name := stop_signal():
            raise StoppedWaiting(name, rank, [r for r in range(world_size) if r != rank] if is_server else [0])
        if time.monotonic() > end:
            _report_and_raise(f"{place}: rank {rank} on {host} found no store there for {timeout_seconds:.0f} s")
        try:
            if is_server or _store_answers():
                store = connect(timeout_seconds, is_server=is_server)
            else:
                time.sleep(_LOOK_SECONDS)
        except (*_STORE_ERRORS, OSError, ValueError, OverflowError) as e:
            reason = "the port is in use" if "EADDRINUSE" in str(e) else str(e).strip().splitlines()[0].rstrip(".")
            raise UserError(
                f"{place}: rank {rank} on {host} cannot meet the others there ({reason}); choose another port, or "
                "start again: each Slurm job and torchrun takes its own",
                retryable=True,
            ) from None
    return _StorePlace(place, store)


def _verdict(store: Store, mine: str) -> str:
    """Proposes a verdict and returns the first one that was proposed, which counts."""
    first: bytes = store.compare_set(_VERDICT, "", mine)
    return first.decode()


def _report_and_raise(line: str) -> NoReturn:
    print(f"adarem train: {line}; check that host and start again", file=sys.stderr, flush=True)
    raise RankLost(line)


def _store_answers() -> bool:
    """Whether a store listens by now. Raises OSError for an address that does not exist."""
    try:
        with socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=2.0):
            return True
    except socket.gaierror as e:
        if e.errno == socket.EAI_AGAIN:
            return False
        raise
    except OSError:
        return False


def _ranks(ranks: Sequence[int]) -> str:
    """``rank 3``, ``ranks 8 to 15``, ``ranks 1, 5, 6``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]} to {ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"
