"""A file that one process at a time holds. The kernel frees it when that process ends, however it ends.

flock: between nodes as far as their file system honours it. Standard library only.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from adarem.run.errors import UserError
from adarem.run.files import open_file, writing

PATIENCE_SECONDS = 3.0
_BEGINNING, _LONGEST = "host ", 1000  # of what a lock file holds


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    patience: float = PATIENCE_SECONDS,
    remedy: str = "fix its permissions, and rerun",
    on_wait: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Holds ``path``, the lock file of the folder that it lies in. The file names the holder: host, pid and Slurm job.

    Args:
        patience: seconds to wait for another holder; may be infinite.
        remedy: what to do where the file cannot be written.
        on_wait: called once, before a wait.

    Raises:
        UserError: another process holds it, or the file cannot be written. In a job the former is retryable: what Slurm
            left behind on a node that it lost may hold it for a while.
    """
    job = os.environ.get("SLURM_JOB_ID")
    with writing(path, remedy):
        file = os.fdopen(
            open_file(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+", encoding="utf-8", errors="replace"
        )
    with file as f:
        end, waits = time.monotonic() + patience, False
        while not _try(f, fcntl.LOCK_EX):
            if not waits:
                on_wait()
                waits = True
            if time.monotonic() > end:
                f.seek(0)
                holder = f.read(_LONGEST).strip() or "owner unknown"
                line = f"{path.parent}: another process works on it ({holder}); wait until that one has ended"
                raise UserError(line, retryable=job is not None)
            time.sleep(0.05)
        f.seek(0)
        if (before := f.read(_LONGEST)) and not before.startswith(_BEGINNING):  # another file by a second name
            raise UserError(f"{path}: holds something else than the name of a process; move it away")
        with writing(path, remedy):
            f.truncate(0)
            f.write(f"{_BEGINNING}{socket.gethostname()}, pid {os.getpid()}" + (f", Slurm job {job}" if job else ""))
            f.flush()
        yield


def try_hold(path: Path) -> int | None:
    """Takes a lock without waiting, for this process and those that inherit the descriptor.

    Returns:
        The descriptor: the lock is free once every process has closed it or ended. None: another holds it.

    Raises:
        UserError: the file cannot be made or opened.
    """
    with writing(path, "fix its permissions, and rerun"):
        descriptor = open_file(path, os.O_RDONLY | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def held(path: Path) -> bool:
    """Whether a process holds it. Asking takes the lock for an instant, which ``hold`` has the patience for."""
    try:
        with open(open_file(path), encoding="utf-8") as f:
            return not _try(f, fcntl.LOCK_SH)
    except (FileNotFoundError, UserError):  # what is no file, nobody holds
        return False


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
