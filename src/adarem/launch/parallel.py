"""Trains several runs at a time on this machine: as many as there are free GPUs or cores for.

In: tasks, each a run and the command that trains it. Out: what became of each. A run that was interrupted or lost a
rank starts again while it makes progress; one that another launch trains is left to it.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Literal

from adarem.launch.devices import DevicePool, Lease
from adarem.launch.fork_server import ForkedRun, ForkServer
from adarem.launch.progress import Screen
from adarem.launch.signal_forwarding import kill_with_descendants
from adarem.launch.snapshot import outcome
from adarem.run import exitcodes, locks
from adarem.run.directory import FINISHED, RunDir

FAILURES_ALLOWED = 3  # in a row without a new checkpoint
_LOOK_SECONDS = 0.5  # between two looks for free devices and at the progress of runs
_KILLED = 128  # an exit code above it says which signal killed a rank


@dataclass(frozen=True)
class Task:
    """One run to train."""

    name: str  # at the beginning of its lines
    run: RunDir
    command: Sequence[str]
    environment: Mapping[str, str]
    devices: int  # GPUs or cores that it takes
    until: int | None = None  # epochs up to which it trains; None: all

    def done(self) -> bool:
        status = self.run.status()
        return status in FINISHED or status == "paused" and self.until is not None and self.run.epochs() >= self.until


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    task: Task
    ended: Literal["done", "failed", "stopped", "elsewhere"]  # elsewhere: another process trains it


@dataclass
class _Active:
    """A task whose processes run."""

    task: Task
    lease: Lease
    claim: int  # descriptor of the lock on the run
    process: subprocess.Popen[bytes] | ForkedRun
    end: int  # descriptor that can be read once the process has ended
    began: float = field(default_factory=time.monotonic)
    unfinished: dict[int, bytes] = field(default_factory=dict)  # the last line of each stream, which has no end yet

    @property
    def streams(self) -> dict[IO[bytes], IO[str]]:
        """Where what it prints goes."""
        assert self.process.stdout is not None and self.process.stderr is not None
        return {self.process.stdout: sys.stdout, self.process.stderr: sys.stderr}

    @property
    def took(self) -> str:
        return f"{time.monotonic() - self.began:.0f} s"


def train_all(
    tasks: Sequence[Task], pool: DevicePool, *, at_a_time: int = 0, server: ForkServer | None = None
) -> list[Outcome]:
    """Trains the tasks in their order, and returns what became of each, in the same order.

    The first SIGINT, SIGTERM or SIGHUP stops every run after its current step and starts no other; the next kills.

    Args:
        pool: the GPUs or cores that the tasks are given.
        at_a_time: the most runs at once; 0: as many as the pool has devices for.
        server: starts the runs that it can.

    Raises:
        UserError: a task needs more GPUs than the pool has; nothing is started then.
    """
    for task in tasks:
        pool.check(task.devices)
    with Screen() as screen, selectors.DefaultSelector() as selector:
        scheduler = _Scheduler(pool, at_a_time, screen, selector, server)
        outcomes = scheduler.run(tasks)
    return [outcomes[task.run] for task in tasks]


class _Scheduler:
    def __init__(
        self,
        pool: DevicePool,
        at_a_time: int,
        screen: Screen,
        selector: selectors.BaseSelector,
        server: ForkServer | None,
    ) -> None:
        self._pool, self._at_a_time, self._screen, self._selector = pool, at_a_time, screen, selector
        self._server = server
        self._waiting: deque[Task] = deque()
        self._active: list[_Active] = []
        self._outcomes: dict[RunDir, Outcome] = {}
        self._failures: dict[RunDir, _Failures] = {}
        self._signals = 0
        self._said_waiting = False

    def run(self, tasks: Sequence[Task]) -> dict[RunDir, Outcome]:
        self._waiting.extend(tasks)
        with _handling_signals(self._receive):
            while self._active or self._waiting:
                if self._signals:
                    self._drop_waiting()
                else:
                    self._start_what_fits()
                if self._active or self._waiting:
                    ready = [key.data for key, _ in self._selector.select(_LOOK_SECONDS)]
                    for active, stream in ready:
                        if stream is not None:
                            self._pass_on(active, stream)
                    for active, stream in ready:
                        if stream is None:
                            self._end(active)
                    self._screen.show([active.task.run for active in self._active])
        return self._outcomes

    def _start_what_fits(self) -> None:
        while self._waiting and (not self._at_a_time or len(self._active) < self._at_a_time):
            task = self._waiting[0]
            lease = self._pool.take(task.devices)
            if lease is None:
                if not self._active and not self._said_waiting:
                    self._said_waiting = True
                    self._say(task, "waits for what another launch on this machine uses")
                return
            self._waiting.popleft()
            self._start(task, lease)

    def _start(self, task: Task, lease: Lease) -> None:
        if not task.run.path.is_dir():  # the others go on
            lease.release()
            self._finish(task, "failed", "FAILED: its directory was removed; the same command makes it anew")
            return
        claim = locks.try_hold(task.run.claim_file)
        if claim is None or task.run.locked() or task.run.status() == "running":
            self._finish(task, "elsewhere", "another process trains it; skipped")
        elif task.done():
            self._finish(task, "done", f"{outcome(task.run)}, finished before")
        else:
            self._say(task, f"starts on {lease}")
            active = self._active_of(task, lease, claim)
            self._active.append(active)
            self._selector.register(active.end, selectors.EVENT_READ, (active, None))
            for stream in active.streams:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, (active, stream))
            if self._signals:  # it came before this run was known
                active.process.send_signal(signal.SIGTERM)
            return
        lease.release()
        if claim is not None:
            os.close(claim)

    def _active_of(self, task: Task, lease: Lease, claim: int) -> _Active:
        """Starts the processes, in a session of their own: a terminal's Ctrl-C reaches them once, through this one."""
        environment, inherited = {**task.environment, **self._pool.environment(lease)}, (claim, *lease.descriptors)
        if self._server is not None and (forked := self._server.start(task.command, environment, inherited)):
            return _Active(task, lease, claim, forked, forked.end)
        process = subprocess.Popen(
            task.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=inherited,
            start_new_session=True,
        )
        return _Active(task, lease, claim, process, os.pidfd_open(process.pid))

    def _pass_on(self, active: _Active, stream: IO[bytes]) -> None:
        """Prints the complete lines that a run has written since."""
        data = stream.read() or b""
        *lines, rest = (active.unfinished.pop(stream.fileno(), b"") + data).split(b"\n")
        if rest and data:
            active.unfinished[stream.fileno()] = rest
        elif rest:
            lines.append(rest)
        for line in lines:
            self._screen.print(line.decode(errors="replace"), active.streams[stream])
        if not data:
            self._selector.unregister(stream)

    def _end(self, active: _Active) -> None:
        code = active.process.wait()
        for stream in active.streams:
            if stream in self._selector.get_map():
                self._pass_on(active, stream)
            if stream in self._selector.get_map():
                self._selector.unregister(stream)
            stream.close()
        self._selector.unregister(active.end)
        os.close(active.end)
        os.close(active.claim)
        active.lease.release()
        self._active.remove(active)
        task, run, took = active.task, active.task.run, active.took
        if task.done():
            self._finish(task, "done", f"{outcome(run)}, {took}")
        elif self._signals:
            self._finish(task, "stopped", f"stopped after {took}; the same command continues it")
        elif run.locked():
            self._finish(task, "elsewhere", "another process started it meanwhile; skipped")
        elif self._starts_again(task, code):
            self._waiting.appendleft(task)
        else:
            self._finish(task, "failed", f"FAILED after {took} (exit code {code})")

    def _starts_again(self, task: Task, code: int) -> bool:
        """Whether a run that was interrupted or lost a rank starts again; other failures repeat themselves."""
        if code != exitcodes.REQUEUE and code <= _KILLED:
            return False
        failures = self._failures.setdefault(task.run, _Failures())
        count = failures.add(task.run)
        if count >= FAILURES_ALLOWED:
            return False
        why = "was interrupted" if code == exitcodes.REQUEUE else f"lost a rank to {_signal_name(code - _KILLED)}"
        self._say(task, f"{why}, {count} of {FAILURES_ALLOWED} times without a new checkpoint; starts again")
        return True

    def _drop_waiting(self) -> None:
        for task in self._waiting:
            self._outcomes[task.run] = Outcome(task, "stopped")
        self._waiting.clear()

    def _receive(self, number: int, _frame: object) -> None:
        self._signals += 1
        for active in list(self._active):
            with contextlib.suppress(ProcessLookupError):
                if self._signals == 1:
                    active.process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)
                else:
                    kill_with_descendants(active.process.pid)
        if self._signals == 1:
            with contextlib.suppress(OSError, RuntimeError):  # no terminal any more; or in the midst of a line
                print("\nstopping after the current step; Ctrl-C again ends at once", file=sys.stderr, flush=True)

    def _finish(self, task: Task, ended: Literal["done", "failed", "stopped", "elsewhere"], line: str) -> None:
        self._outcomes[task.run] = Outcome(task, ended)
        self._say(task, line)

    def _say(self, task: Task, line: str) -> None:
        self._screen.print(f"{task.name}: {line}", sys.stdout)


@dataclass
class _Failures:
    """How often in a row a run has ended without a new checkpoint."""

    count: int = 0
    checkpoints: Sequence[str] = ()

    def add(self, run: RunDir) -> int:
        checkpoints = sorted(p.name for p in run.checkpoints.glob("[!.]*"))
        self.count = self.count + 1 if checkpoints == self.checkpoints else 1
        self.checkpoints = checkpoints
        return self.count


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextlib.contextmanager
def _handling_signals(handler: "signal._HANDLER") -> Iterator[None]:
    before = {s: signal.signal(s, handler) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
