"""Runs one child process and hands signals on to it: once politely, then not."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


def run_child(command: list[str], env: dict[str, str]) -> tuple[int, bool]:
    """Runs a child in a session of its own, so that a Ctrl-C reaches it once, through here; a second one kills it.

    Returns:
        Its exit code, and whether it was asked to stop.
    """
    received: list[int] = []
    child: subprocess.Popen | None = None

    def pass_on(signum: int, _frame: object) -> None:
        received.append(signum)
        if child is None:
            return
        if len(received) == 1:
            child.send_signal(signal.SIGTERM if signum == signal.SIGHUP else signum)
            with contextlib.suppress(OSError):  # the terminal may be what went away
                print("\nstopping after the current step; Ctrl-C again ends at once", file=sys.stderr, flush=True)
        else:
            for pid in _family(child.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    before = {s: signal.signal(s, pass_on) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        child = subprocess.Popen(command, env=env, start_new_session=True)
        if received:  # it came while the child was being made
            child.send_signal(received[0])
        return child.wait(), bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _family(pid: int) -> list[int]:
    """A process and its descendants; torchrun puts each rank into a session of its own, so no group holds them all."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family
