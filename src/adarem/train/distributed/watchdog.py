"""Ends a run whose ranks no longer get on: one that died or stands still makes the others wait for ever.

Each rank's training loop leaves a beat in its own memory (distributed.Pulse). A thread of each rank publishes it once
a second in the store at which the ranks met, and reads the others': so a rank that is stopped, dead or unreachable is
told from one that is merely waiting, and the loop itself pays for nothing.
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
from typing import Any

from adarem.train.distributed import rendezvous
from adarem.train.distributed.context import DOING, World

PERIOD_SECONDS = 1.0
SILENT_SECONDS = 6.0  # without a sign of life from its thread, a rank counts as dead or stopped
_KEY = "adarem/beat/{}"
# How the collectives of gloo and NCCL word the loss of another rank.
_CONNECTION = re.compile(r"onnection|peer|Broken pipe|[Tt]imed out|gloo|NCCL|recvValue|store", re.I)


@dataclass
class _Seen:
    """What is known of a rank: its newest beat, and by this process's clock since when it says so."""

    life: int = -1
    progress: int = -1
    step: int = 0
    doing: int = 0
    pid: int = 0
    closed: bool = False
    living_since: float = 0.0
    progress_since: float = 0.0

    def take(self, beat: dict[str, Any], now: float) -> None:
        if beat["life"] != self.life:
            self.living_since = now
        if beat["progress"] != self.progress:
            self.progress_since = now
        self.life, self.progress, self.closed = beat["life"], beat["progress"], beat["closed"]
        self.step, self.doing, self.pid = beat["step"], beat["doing"], beat["pid"]


class Watchdog:
    """A thread from construction until it is left as a context manager.

    When several ranks leave it with an exception, it goes on until the process ends: they may not come to their end.

    Args:
        world: the ranks; ``world.pulse`` is where the training loop leaves its beats.
        stall_seconds: without any progress of a rank for longer, the run ends with exit code 1.
        tell: called once, on one of the ranks that are alive, with the line that says what happened.
    """

    def __init__(self, world: World, stall_seconds: float, tell: Callable[[str], None]) -> None:
        self._world, self._stall_seconds, self._tell = world, stall_seconds, tell
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._life = 0
        now = time.monotonic()
        self._seen = [_Seen(living_since=now, progress_since=now) for _ in range(world.world_size)]
        self._answered = now  # when the store last did
        # A launcher that dies leaves its ranks behind; they would hold the run's lock and go on beside a new start.
        launched = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_STEP_ID" in os.environ
        self._parent = os.getppid() if launched else None
        self._store = rendezvous.connect(30.0) if world.world_size > 1 else None
        self._exchange(now)
        world.gather(None)  # everybody's first beat is there to be read
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or self._world.world_size == 1:
            self._closing.set()
            self._thread.join(5.0)
            with contextlib.suppress(Exception):
                self._exchange(time.monotonic())  # the others hear that this rank left, and was not lost

    def lost(self, error: BaseException) -> str | None:
        """Called on an exception: one line on the rank whose end caused it, or None if it is this rank's own."""
        if self._world.world_size == 1 or not isinstance(error, RuntimeError) or not _CONNECTION.search(str(error)):
            return None
        end = time.monotonic() + SILENT_SECONDS + 2 * PERIOD_SECONDS
        while time.monotonic() < end:
            silent = self._silent(time.monotonic())
            if silent:
                return f"{self._names(silent)} is gone{self._after(silent[0])}"
            time.sleep(0.2)
        return None

    def is_teller(self, culprits: Sequence[int] = ()) -> bool:
        """True on the first rank that shows life and is not to blame: it speaks for all."""
        silent = self._silent(time.monotonic())
        alive = [r for r in range(self._world.world_size) if r not in silent]
        return self._world.rank == next((r for r in alive if r not in culprits), alive[0])

    def _watch(self) -> None:
        while not self._closing.wait(PERIOD_SECONDS):
            now = time.monotonic()
            with contextlib.suppress(Exception):  # a store that does not answer is judged by for how long
                self._exchange(now)
                self._answered = now
            problem = self._judge(time.monotonic())
            if problem and not self._closing.is_set():
                self._end(*problem)

    def _exchange(self, now: float) -> None:
        with self._lock:
            self._life += 1
            progress, step, doing = self._world.pulse.beat
            mine = {"life": self._life, "progress": progress, "step": step, "doing": doing, "pid": os.getpid()}
            mine["closed"] = self._closing.is_set()
            self._seen[self._world.rank].take(mine, now)
            if self._store is None:
                return
            self._store.set(_KEY.format(self._world.rank), json.dumps(mine))
            for rank, seen in enumerate(self._seen):
                if rank != self._world.rank and (self._life > 1 or self._store.check([_KEY.format(rank)])):
                    seen.take(json.loads(self._store.get(_KEY.format(rank))), time.monotonic())

    def _silent(self, now: float) -> list[int]:
        """Ranks without a sign of life; if the store itself is silent, its host, rank 0."""
        if self._store is not None and now - self._answered > SILENT_SECONDS:
            return [0] if self._world.rank else []
        return [r for r, s in enumerate(self._seen) if not s.closed and now - s.living_since > SILENT_SECONDS]

    def _judge(self, now: float) -> tuple[str, list[int]] | None:
        """The line that says which ranks do not get on, and these ranks; None while all do."""
        if self._parent is not None and os.getppid() != self._parent:
            return f"its launcher (pid {self._parent}) on {socket.gethostname()} is gone", []
        waited = {r: now - s.progress_since for r, s in enumerate(self._seen) if not s.closed}
        if max(waited.values(), default=0.0) < self._stall_seconds:
            return None
        silent = self._silent(now)
        seconds = f"{max(waited.values()):.0f} s"
        if silent:
            return f"{self._names(silent)} gave no sign of life for {seconds}{self._after(silent[0])}", silent
        # All are alive and wait for those that are furthest behind: no stall while one of these gets on.
        behind = min((self._seen[r].step, self._seen[r].doing) for r in waited)
        culprits = [r for r in waited if (self._seen[r].step, self._seen[r].doing) == behind]
        if min(waited[r] for r in culprits) < self._stall_seconds:
            return None
        return f"{self._names(culprits)} stalled for {seconds}{self._after(culprits[0])}", culprits

    def _names(self, ranks: list[int]) -> str:
        words = [f"rank {r} on {self._world.hosts[r]}" for r in ranks[:4]]
        return ", ".join(words) + (f" and {len(ranks) - 4} more" if len(ranks) > 4 else "")

    def _after(self, rank: int) -> str:
        seen = self._seen[rank]
        return f" after step {seen.step}, while it {DOING[seen.doing]}"

    def _end(self, problem: str, culprits: list[int]) -> None:
        if not self.is_teller(culprits):
            time.sleep(5.0)  # the teller's line comes first: an exit may end the whole job
            os._exit(1)
        telling = threading.Thread(target=self._tell, args=(problem,), daemon=True)
        telling.start()
        try:
            telling.join(10.0)  # the run directory's disk may be what stands still
        finally:
            for rank in culprits:  # a stopped process does not even heed its launcher's SIGTERM
                if rank != self._world.rank and self._world.hosts[rank] == socket.gethostname():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(self._seen[rank].pid, signal.SIGKILL)
            os._exit(1)
