"""Ends a run that cannot continue: a rank that died or hangs would make the others wait for ever.

Each rank's training loop leaves beats in its own memory (heartbeat.Heartbeat). A thread of each rank publishes the
newest one every second where all of them can read it, and reads the others'. So a rank that is stopped, dead or
unreachable differs from one that merely waits, and the training loop pays for no communication.
"""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from adarem.train.distributed import rendezvous
from adarem.train.distributed.context import RankContext
from adarem.train.distributed.heartbeat import Activity

PERIOD_SECONDS = 1.0
SILENT_SECONDS = 6.0  # a rank whose watchdog thread publishes nothing for so long counts as dead or stopped
# How the collectives of gloo and NCCL word the loss of another rank.
_CONNECTION = re.compile(r"onnection|peer|Broken pipe|[Tt]imed out|gloo|NCCL|recvValue|store", re.I)


class _Published(TypedDict):
    """What a rank's watchdog thread publishes."""

    published: int  # how often so far
    beats: int  # of the training loop so far
    step: int
    activity: int
    pid: int
    closed: bool  # this rank left in order


@dataclass
class _RankStatus:
    """The newest that is known of a rank, and by this process's clock since when."""

    published: int = -1
    beats: int = -1
    step: int = 0
    activity: Activity = Activity.STARTING
    pid: int = 0
    closed: bool = False
    published_at: float = 0.0
    progress_at: float = 0.0

    def update(self, new: _Published, now: float) -> None:
        if new["published"] != self.published:
            self.published_at = now
        if new["beats"] != self.beats:
            self.progress_at = now
        self.published, self.beats, self.closed = new["published"], new["beats"], new["closed"]
        self.step, self.activity, self.pid = new["step"], Activity(new["activity"]), new["pid"]


class Stall(NamedTuple):
    line: str  # which ranks do not continue, since when, and where
    culprits: list[int]


class Watchdog:
    """A thread that runs from construction until the context manager is left.

    When several ranks leave it with an exception, it runs until the process ends: a rank may hang on its way out.

    Args:
        context: of this rank; its training loop leaves beats in ``context.heartbeat``.
        stall_seconds: a rank without any progress for longer ends the run with exit code 1.
        report: called once, on one of the ranks that are alive, with the line that says what happened.
    """

    def __init__(self, context: RankContext, stall_seconds: float, report: Callable[[str], None]) -> None:
        self._context, self._stall_seconds, self._report = context, stall_seconds, report
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._published = 0
        now = time.monotonic()
        self._ranks = [_RankStatus(published_at=now, progress_at=now) for _ in range(context.world_size)]
        self._board_answered = now
        # A launcher that dies leaves its ranks behind; they would hold the run's lock and train next to a new start.
        launched = any(name in os.environ for name in ("ADAREM_RANKS", "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID"))
        self._parent = os.getppid() if launched else None
        self._board = rendezvous.open_board(30.0) if context.world_size > 1 else None
        self._exchange(now)
        context.barrier()  # from here on every rank's first heartbeat can be read
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._context.world_size == 1:
            self._closing.set()
            self._thread.join(5.0)
            with contextlib.suppress(Exception):
                self._exchange(time.monotonic())  # the others read that this rank left, and was not lost

    def lost_rank(self, error: BaseException) -> str | None:
        """Which rank's end caused ``error``, in one line; None if this rank caused it itself. Takes up to 8 s."""
        alone = self._context.world_size == 1
        if alone or not isinstance(error, RuntimeError) or not _CONNECTION.search(str(error)):
            return None
        end = time.monotonic() + SILENT_SECONDS + 2 * PERIOD_SECONDS
        while time.monotonic() < end:
            silent = self._silent(time.monotonic())
            if silent:
                return f"{self._names(silent)} is gone{self._after(silent[0])}"
            time.sleep(0.2)
        return None

    def is_reporter(self, culprits: Sequence[int] = ()) -> bool:
        """True on one rank only: the first that is alive and not among ``culprits``."""
        silent = self._silent(time.monotonic())
        alive = [r for r in range(self._context.world_size) if r not in silent]
        return self._context.rank == next((r for r in alive if r not in culprits), alive[0])

    def _watch(self) -> None:
        while not self._closing.wait(PERIOD_SECONDS):
            now = time.monotonic()
            with contextlib.suppress(Exception):  # the time since the store last answered counts
                self._exchange(now)
                self._board_answered = now
            stall = self._find_stall(time.monotonic())
            if stall and not self._closing.is_set():
                self._end(stall)

    def _exchange(self, now: float) -> None:
        """Publishes this rank's heartbeat and reads the others'."""
        with self._lock:
            self._published += 1
            beat, rank = self._context.heartbeat.last, self._context.rank
            mine = _Published(
                published=self._published,
                beats=beat.number,
                step=beat.step,
                activity=beat.activity.value,
                pid=os.getpid(),
                closed=self._closing.is_set(),
            )
            self._ranks[rank].update(mine, now)
            if self._board is None:
                return
            self._board.publish(rank, json.dumps(mine))
            others = [r for r in range(len(self._ranks)) if r != rank]
            for other, its in zip(others, self._board.read(others), strict=True):
                if its is not None:
                    self._ranks[other].update(json.loads(its), time.monotonic())

    def _silent(self, now: float) -> list[int]:
        """Ranks that publish nothing; rank 0, whose process or host has the store, if the store does not answer."""
        if self._board is not None and now - self._board_answered > SILENT_SECONDS:
            return [0] if self._context.rank else []
        return [r for r, s in enumerate(self._ranks) if not s.closed and now - s.published_at > SILENT_SECONDS]

    def _find_stall(self, now: float) -> Stall | None:
        """Which ranks keep the run from continuing; None while it continues."""
        if self._parent is not None and os.getppid() != self._parent:
            return Stall(f"its launcher (pid {self._parent}) on {socket.gethostname()} is gone", [])
        waited = {r: now - s.progress_at for r, s in enumerate(self._ranks) if not s.closed}
        if max(waited.values(), default=0.0) < self._stall_seconds:
            return None
        silent = self._silent(now)
        seconds = f"{max(waited.values()):.0f} s"
        if silent:
            return Stall(f"{self._names(silent)} sent no heartbeat for {seconds}{self._after(silent[0])}", silent)
        # All are alive and wait for those that are furthest behind: no stall while one of these makes progress.
        behind = min((self._ranks[r].step, self._ranks[r].activity) for r in waited)
        culprits = [r for r in waited if (self._ranks[r].step, self._ranks[r].activity) == behind]
        if min(waited[r] for r in culprits) < self._stall_seconds:
            return None
        return Stall(f"{self._names(culprits)} stalled for {seconds}{self._after(culprits[0])}", culprits)

    def _names(self, ranks: Sequence[int]) -> str:
        names = ", ".join(f"rank {r} on {self._context.hosts[r]}" for r in ranks[:4])
        return f"{names} and {len(ranks) - 4} more" if len(ranks) > 4 else names

    def _after(self, rank: int) -> str:
        status = self._ranks[rank]
        return f" after step {status.step}, while it {status.activity.words}"

    def _end(self, stall: Stall) -> None:
        if not self.is_reporter(stall.culprits):
            time.sleep(5.0)  # the reporter's line comes first: an exit may end the whole job
            os._exit(1)
        reporting = threading.Thread(target=self._report, args=(stall.line,), daemon=True)
        reporting.start()
        try:
            reporting.join(10.0)  # the run directory's disk may be what hangs
        finally:
            for rank in stall.culprits:  # a stopped process does not react to its launcher's SIGTERM
                if rank != self._context.rank and self._context.hosts[rank] == socket.gethostname():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(self._ranks[rank].pid, signal.SIGKILL)
            os._exit(1)
