"""A file that one process at a time holds. The kernel frees it when that process ends, however it ends.

flock: between nodes as far as their file system honours it. Standard library only.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from adarem.run.errors import UserError
from adarem.run.files import writing

PATIENCE_SECONDS = 3.0


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Holds the lock of ``path``'s folder, in which stands who does: host, pid and Slurm job.

    Raises:
        UserError: another process holds it, or nobody may write there. In a job the former is retryable: what Slurm
            left behind on a node that it lost may hold it for a while.
    """
    job = os.environ.get("SLURM_JOB_ID")
    with writing(path):
        file = open(path, "a+")  # noqa: SIM115, closed below
    with file as f:
        end = time.monotonic() + PATIENCE_SECONDS
        while not _try(f, fcntl.LOCK_EX):
            if time.monotonic() > end:
                f.seek(0)
                line = f"{path.parent}: another process works on it ({f.read().strip() or 'owner unknown'})"
                raise UserError(line, retryable=job is not None)
            time.sleep(0.05)
        with writing(path):
            f.truncate(0)
            f.write(f"host {socket.gethostname()}, pid {os.getpid()}" + (f", Slurm job {job}" if job else ""))
            f.flush()
        yield


def held(path: Path) -> bool:
    """Whether a process holds it. Asking takes the lock for an instant, which ``hold`` has the patience for."""
    try:
        with open(path) as f:
            return not _try(f, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
