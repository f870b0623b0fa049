"""Folders for compiled code: one's own, into which nobody else can put any. Standard library only.

A folder is checked and then used through its handle, so that nobody can put another one in its place.
"""

import atexit
import contextlib
import os
import shlex
import shutil
import stat
import tempfile
from pathlib import Path


class NotPrivate(Exception):
    """A folder or file that may hold another user's code, or that is none; the message is one line."""


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/adarem`` or ``~/.cache/adarem``, which may not be there yet.

    Raises:
        NotPrivate: there is no home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # to be ignored, as its specification says
        home = os.path.expanduser("~")
        if not (os.path.isabs(home) and os.path.isdir(home)):
            raise NotPrivate(f"HOME={home}: no such folder; set HOME or XDG_CACHE_HOME to a folder of your own")
        base = os.path.join(home, ".cache")
    return Path(base) / "adarem"


def open_private(folder: Path, variable: str) -> int:
    """A handle of a folder, which is made where it is absent.

    Args:
        variable: of the environment, which names another place.

    Raises:
        NotPrivate: others can write to it, or it cannot be made.
    """
    handle = -1
    try:
        missing = [folder, *(p for p in folder.parents if not p.exists())]
        for path in reversed(missing):  # os.makedirs leaves the parents to the umask
            with contextlib.suppress(FileExistsError):
                path.mkdir(0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as e:
        raise NotPrivate(f"{folder}: {e.strerror}; set {variable} to a folder of your own") from None
    info = os.fstat(handle)
    if not (problem := problem_of(info)):
        return handle
    os.close(handle)
    remedy = f"`chmod 700 {shlex.quote(str(folder))}`, or " if info.st_uid == os.geteuid() else ""
    raise NotPrivate(f"{folder}: {problem}; {remedy}set {variable} to a folder of your own")


def use_private(variable: str, name: str) -> str:
    """Gives another library a private folder for its compiled code, by a variable that the user has not set.

    torch.compile's own is in the temporary directory under a name that others can take first.

    Returns:
        One line where there is none for good, so that this process has one of its own; else empty.
    """
    if os.environ.get(variable):
        return ""
    try:
        folder = user_cache() / name
        os.close(open_private(folder, variable))
        os.environ[variable] = str(folder)
    except NotPrivate as e:
        os.environ[variable] = tempfile.mkdtemp(prefix=f"adarem-{name}-")
        atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)
        return f"{e} (until then each process compiles anew)"
    return ""


def open_file(name: str, folder: int) -> int:
    """A handle of a file in a private folder, to be read.

    Raises:
        NotPrivate: others can write to it, or it is no file; the message has no name.
        OSError: it cannot be opened.
    """
    # Not through links, and not waiting for the other end of a pipe.
    handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    info = os.fstat(handle)
    problem = problem_of(info) or ("" if stat.S_ISREG(info.st_mode) else "is no file")
    if problem:
        os.close(handle)
        raise NotPrivate(f"{problem}, so it is not loaded; remove it")
    return handle


def problem_of(info: os.stat_result) -> str:
    """Why what has this status may hold another user's code; empty where it cannot."""
    if info.st_uid != os.geteuid():
        return "belongs to another user"
    return "can be written to by other users" if info.st_mode & 0o022 else ""
