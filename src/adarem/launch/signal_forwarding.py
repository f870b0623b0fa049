"""Runs a child process in the foreground and forwards signals to it: the first as a request to stop, the next kills."""

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ChildEnd:
    """How a child process ended."""

    code: int  # exit code; below 0 the number of the signal that killed it
    stopped: bool  # a signal asked it to stop


def run_forwarding_signals(command: list[str], env: dict[str, str]) -> ChildEnd:
    """Runs a command to its end, in a session of its own, so that a Ctrl-C reaches it once: through this function.

    A second signal kills the child and its descendants.
    """
    received: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def forward(signum: int, _frame: object) -> None:
        received.append(signum)
        if child is None:
            return
        if len(received) == 1:
            child.send_signal(signal.SIGTERM if signum == signal.SIGHUP else signum)
            with contextlib.suppress(OSError):  # after a hang-up there is no terminal to print to
                print("\nstopping after the current step; Ctrl-C again ends at once", file=sys.stderr, flush=True)
        else:
            kill_with_descendants(child.pid)

    before = {s: signal.signal(s, forward) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        child = subprocess.Popen(command, env=env, start_new_session=True)
        if received:  # it came before Popen returned
            child.send_signal(received[0])
        return ChildEnd(child.wait(), stopped=bool(received))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def kill_with_descendants(pid: int) -> None:
    for process in _with_descendants(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _with_descendants(pid: int) -> list[int]:
    """A process and its descendants; each rank is in a session of its own, so no group holds them all."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for process in found:
        found += children.get(process, [])
    return found
