"""Starts the ranks of one run on this machine, and ends them all when one fails. Standard library only.

python -m adarem.launch.ranks --nproc-per-node=2 -m adarem train RUN_DIR

The ranks meet in memory that they inherit: it has no name, no port and no file, and is gone with the last of them.
Their connections are on the loopback interface.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from adarem.run import exitcodes, streams

SHUTDOWN_SECONDS = 120.0  # from a signal to a rank's checkpoint: at most an evaluation and a step
_REPORTED_BY_THE_RANK = (exitcodes.USER_ERROR, exitcodes.DIVERGED, exitcodes.REQUEUE)
_LOOPBACK = "lo"


class Process(Protocol):
    """As much of a Popen as is used here."""

    pid: int

    def send_signal(self, number: int, /) -> None: ...
    def wait(self) -> int: ...


# Starts a rank in a session of its own: a terminal's Ctrl-C reaches it once, through this process. Of what follows
# ``python`` in its command, its environment and the descriptors that it inherits.
Start = Callable[[Sequence[str], Mapping[str, str], Sequence[int]], Process]


def new_process(words: Sequence[str], environment: Mapping[str, str], inherited: Sequence[int]) -> Process:
    return subprocess.Popen([sys.executable, *words], env=environment, pass_fds=inherited, start_new_session=True)


class Ranks:
    """The processes of one run.

    Args:
        words: what follows ``python`` in a rank's command.
        number: of ranks.
        start: starts one of them.
    """

    def __init__(self, words: Sequence[str], number: int, start: Start = new_process) -> None:
        self._words, self._number, self._start_rank = words, number, start
        self._running: dict[int, Process] = {}
        self._signals: list[int] = []  # received so far
        self._stopping_since: float | None = None
        self._launcher = os.getppid()

    def run(self) -> int:
        """Starts the ranks and waits for all of them; returns an exit code.

        That of the rank that ended first counts, 128 + the signal for one that a signal killed. The first signal goes
        on to every rank, the next kills them.
        """
        before = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            self._start()
            begun = len(self._running) == self._number
            code = self._wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        decided = (exitcodes.OK, exitcodes.DIVERGED, exitcodes.USER_ERROR)
        return exitcodes.REQUEUE if self._signals and not (begun and code in decided) else code

    def _start(self) -> None:
        store, heartbeats = os.memfd_create("ranks", 0), os.memfd_create("heartbeats", 0)
        common = dict(os.environ) | {"WORLD_SIZE": str(self._number), "ADAREM_RANKS": f"{store},{heartbeats}"}
        for library in ("GLOO", "NCCL"):
            common[f"{library}_SOCKET_IFNAME"] = _LOOPBACK
        if self._number > 1:
            common.setdefault("OMP_NUM_THREADS", "1")
        for rank in range(self._number):
            if self._signals:
                break
            environment = common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = self._running[rank] = self._start_rank(self._words, environment, (store, heartbeats))
            if self._signals:  # it came before this rank was known
                process.send_signal(signal.SIGTERM)
        os.close(store)
        os.close(heartbeats)

    def _wait(self) -> int:
        first: int | None = None
        with selectors.DefaultSelector() as ends:
            for rank, process in self._running.items():
                ends.register(os.pidfd_open(process.pid), selectors.EVENT_READ, rank)
            while self._running:
                for key, _ in ends.select(timeout=1.0):
                    ends.unregister(key.fd)
                    os.close(key.fd)
                    process = self._running.pop(key.data)
                    code = process.wait()
                    if code and first is None:
                        first = 128 - code if code < 0 else code
                        if not self._signals:
                            _say_who_ended_first(key.data, process.pid, code)
                        self._stop(signal.SIGTERM)
                self._look_after()
        return first or exitcodes.OK

    def _look_after(self) -> None:
        """Ends the ranks in order when the launcher is gone, and kills those that do not end."""
        if os.getppid() != self._launcher and not self._signals:
            self._receive(signal.SIGTERM, None)
        if self._stopping_since is not None and time.monotonic() - self._stopping_since > SHUTDOWN_SECONDS:
            self._send(signal.SIGKILL)

    def _receive(self, number: int, _frame: object) -> None:
        self._signals.append(number)
        if len(self._signals) == 1:
            self._stop(signal.SIGTERM if number == signal.SIGHUP else number)
        else:
            self._send(signal.SIGKILL)

    def _stop(self, number: int) -> None:
        self._stopping_since = self._stopping_since or time.monotonic()
        self._send(number)

    def _send(self, number: int) -> None:
        for process in list(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)


def _say_who_ended_first(rank: int, pid: int, code: int) -> None:
    if code not in _REPORTED_BY_THE_RANK:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        line = f"rank {rank} (pid {pid}) ended first: {how} at {time.strftime('%H:%M:%S')}"
        with contextlib.suppress(OSError):  # there may be no terminal any more
            print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str], start: Start = new_process) -> int:
    """The command line above; ``--standalone`` is what version 0.1 gives too."""
    words, number = list(argv), 1
    while words and words[0].startswith("--"):
        option, _, value = words.pop(0).partition("=")
        if option == "--nproc-per-node" and value.isdigit() and int(value) > 0:
            number = int(value)
        elif option != "--standalone":
            break
    else:
        if words:
            return Ranks(words, number, start).run()
    print("usage: python -m adarem.launch.ranks --nproc-per-node=N -m adarem train RUN_DIR", file=sys.stderr)
    return exitcodes.USER_ERROR


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
