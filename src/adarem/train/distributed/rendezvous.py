"""How the ranks of a run find each other: all of them meet, or none goes on, and who never came is named.

They meet at a store (torchrun's own, else one that rank 0 keeps), in which each leaves its host. Whoever sees that all
have come, or leaves before that, writes the one verdict that all obey: so nobody goes on with a rank that has left.
"""

import datetime
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import torch.distributed as dist

from adarem.run.errors import RankLost, UserError

_LOOK_SECONDS = 0.2
_VERDICT, _ALL, _LEFT = "adarem/meeting", "all came", "one left"
_STORE_ERRORS = (dist.DistNetworkError, dist.DistStoreError)


class StoppedWaiting(Exception):
    """A signal asked for an end before all ranks had come; nothing was begun."""

    def __init__(self, name: str, rank: int, missing: list[int]) -> None:
        super().__init__(f"{name} while rank {rank} waited for {_ranks(missing)}")
        self.signal = name


def connect(timeout_seconds: float, *, keep: bool = False) -> dist.Store:
    """A connection of its own to the store, which is there already unless this rank is to ``keep`` it.

    Raises:
        DistNetworkError, DistStoreError, OSError, ValueError, OverflowError: no address, port or store.
    """
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=keep,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=timeout_seconds),
    )
    # torchrun's store outlives a restart of its ranks, and what the ranks before left in it.
    return dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def meet(
    rank: int, world_size: int, timeout_seconds: float, signal: Callable[[], str | None]
) -> tuple[dist.Store, tuple[str, ...]]:
    """Waits until all ranks have come.

    Args:
        timeout_seconds: for how long.
        signal: the name of one that asks for an end, or None.

    Returns:
        The store at which they met, and each rank's host.

    Raises:
        UserError: there is no store to meet at; retryable.
        RankLost: not every rank came; those that did not are named on standard error.
        StoppedWaiting: ``signal`` asked for an end.
    """
    for key in ("MASTER_ADDR", "MASTER_PORT"):
        if key not in os.environ:
            raise UserError(
                f"{key} is not set, so {world_size} ranks can't meet; start with torchrun or slurm/run.sbatch"
            )
    here, end = socket.gethostname(), time.monotonic() + timeout_seconds
    place = f"MASTER_ADDR={os.environ['MASTER_ADDR']} MASTER_PORT={os.environ['MASTER_PORT']}"
    keeper = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    store = None
    while store is None:
        if name := signal():
            raise StoppedWaiting(name, rank, [r for r in range(world_size) if r != rank] if keeper else [0])
        if time.monotonic() > end:
            _tell(f"{place}: no store answers there since {timeout_seconds:.0f} s, says rank {rank} on {here}")
        try:
            if keeper or _answers():
                store = connect(timeout_seconds, keep=keeper)
            else:
                time.sleep(_LOOK_SECONDS)
        except (*_STORE_ERRORS, OSError, ValueError, OverflowError) as e:
            reason = "the port is in use" if "EADDRINUSE" in str(e) else str(e).strip().splitlines()[0].rstrip(".")
            raise UserError(
                f"{place}: rank {rank} on {here} cannot meet the others there ({reason}); choose another port, or "
                "start again: each Slurm job and torchrun takes its own",
                retryable=True,
            ) from None
    keys, missing = [f"adarem/host/{r}" for r in range(world_size)], [0]
    try:
        store.set(keys[rank], here)
        while not store.check(keys):
            missing = [r for r in range(world_size) if not store.check([keys[r]])]
            late = time.monotonic() > end
            if (signal() or late) and _verdict(store, _LEFT) == _LEFT:
                if late and not signal() and store.add("adarem/told", 1) == 1:
                    _tell(f"{place}: {_ranks(missing)} of {world_size} did not come within {timeout_seconds:.0f} s")
                break
            if store.check([_VERDICT]) and store.get(_VERDICT).decode() == _LEFT:
                break
            time.sleep(_LOOK_SECONDS)
        else:
            if _verdict(store, _ALL) == _ALL:
                return store, tuple(store.get(key).decode() for key in keys)
    except _STORE_ERRORS:
        pass  # rank 0 left, and took the store along
    if name := signal():
        raise StoppedWaiting(name, rank, missing)
    raise RankLost(f"{place}: another rank left before {_ranks(missing)} of {world_size} had come")


def _verdict(store: dist.Store, mine: str) -> str:
    """The verdict that stands: the first one given."""
    return store.compare_set(_VERDICT, "", mine).decode()


def _tell(line: str) -> NoReturn:
    print(f"adarem train: {line}; see to that host and start again", file=sys.stderr, flush=True)
    raise RankLost(line)


def _answers() -> bool:
    """Whether a store listens by now. Raises OSError for an address that no one knows."""
    try:
        with socket.create_connection((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])), timeout=2.0):
            return True
    except socket.gaierror as e:
        if e.errno == socket.EAI_AGAIN:
            return False
        raise
    except OSError:
        return False


def _ranks(ranks: list[int]) -> str:
    """``rank 3``, ``ranks 8 to 15``, ``ranks 1, 5, 6``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if ranks == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]} to {ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"
