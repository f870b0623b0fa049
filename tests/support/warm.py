"""Processes that have torch from the start: forks of one that imported it, where a new interpreter is not the point.

To import torch and what a training needs takes a process four seconds; a fork takes none.
"""

import multiprocessing
import multiprocessing.connection
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import IO

from adarem.plan.child_process import ChildProcess
from tests.support import ROOT

LIMIT_SECONDS = 300.0
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.support.preloaded"])


def start_server() -> None:
    """Starts the process that forks, unless it runs; ``torch.multiprocessing`` uses the same one."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # where it finds what it imports
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _enter(environment: Mapping[str, str], folder: str) -> None:
    """Makes a fork what a new interpreter would be in this environment and folder."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    given = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.path[:] = [*given, *(p for p in sys.path if p not in ("", folder))]
    if any((Path(p) / "sitecustomize.py").is_file() for p in given):
        sys.modules.pop("sitecustomize", None)
        __import__("sitecustomize")


def _run(
    function: Callable[..., int | None],
    arguments: Sequence[object],
    environment: Mapping[str, str],
    folder: str,
    output: Sequence[str],
) -> None:
    for number, file in enumerate(output, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    _enter(environment, folder)
    code = function(*arguments)
    sys.stdout.flush()
    sys.exit(code or 0)


class Forked:
    """A process that runs a function of a module as a new interpreter would, in this folder and environment.

    Args:
        function: returns an exit code; None is 0.
        arguments: its own.
        environment: variables that differ from this process's.
    """

    def __init__(self, function: Callable[..., int | None], *arguments: object, **environment: str) -> None:
        start_server()
        self._folder = tempfile.TemporaryDirectory(prefix="adarem-forked-")
        self._files = [Path(self._folder.name, name) for name in ("out", "err")]
        for file in self._files:
            file.touch()
        place = (os.environ | environment, os.getcwd(), [str(file) for file in self._files])
        self._process = _FORKS.Process(target=_run, args=(function, arguments, *place))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def printed(self) -> str:
        """On standard output, until now."""
        return self._files[0].read_text()

    def communicate(self, timeout: float = LIMIT_SECONDS) -> tuple[str, str]:
        """Standard output and error, once it has ended; kills it after so many seconds and raises TimeoutError."""
        self._process.join(timeout)
        late = self._process.exitcode is None
        if late:
            self._process.kill()
            self._process.join()
        out, err = (file.read_text() for file in self._files)
        if late:
            raise TimeoutError(f"not at its end after {timeout:g} s: {out}{err}")
        return out, err


def adarem(*words: str, looks: int | None = None) -> int:
    """``python -m adarem``; a training stops after so many looks, as StopAtStep does."""
    from adarem import cli
    from adarem.train.trainer import Trainer
    from tests.support.training import StopAtStep

    if looks is not None:
        fit = Trainer.fit
        Trainer.fit = lambda self, stop, show, until: fit(self, StopAtStep(looks), show, until)  # type: ignore[method-assign]
    sys.argv = ["adarem", *words]
    return cli.main()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _stopping(path: str, looks: int | None) -> int:
    return adarem("train", path, looks=looks)


TOKEN = "of these ranks alone, and of no others"


def train_on_ranks(
    ranks: int, path: Path, looks: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``adarem train`` on so many ranks that meet as torchrun's do; with ``looks`` each stops as StopAtStep does.

    Returns:
        The largest exit code, and what all of them printed.
    """
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "ADAREM_TOKEN": TOKEN}
    processes = []
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        processes.append(Forked(_stopping, str(path), looks, **place, **own, **environment))
    out, err = zip(*(process.communicate() for process in processes), strict=True)
    code = max(abs(p.returncode or 0) for p in processes)
    return subprocess.CompletedProcess(["adarem", "train", str(path)], code, "".join(out), "".join(err))


class _ForkedChild:
    """As much of a Popen as :class:`ChildProcess` uses."""

    def __init__(self, process: ForkServerProcess, talk: socket.socket) -> None:
        self._process, self._talk = process, talk
        assert process.pid is not None
        self.pid = process.pid
        self.stdin: IO[str] = talk.makefile("w")
        self.stdout: IO[str] = talk.makefile("r")

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> None:
        self._process.join()

    def communicate(self) -> None:
        self._process.kill()
        self._process.join()
        self._talk.close()


def _try_parts(
    talk: socket.socket, errors: "multiprocessing.connection.Connection", env: Mapping[str, str], folder: str
) -> None:
    os.setpgid(0, 0)
    for fd, number in ((talk.fileno(), 0), (talk.fileno(), 1), (errors.fileno(), 2)):
        os.dup2(fd, number)
    talk.close()
    sys.stdin = os.fdopen(0, "r", closefd=False)
    _enter(env, folder)
    from adarem.train import try_parts

    try_parts.main()


def forked_child() -> Callable[[ChildProcess], _ForkedChild]:
    """In place of ``ChildProcess._started``: the same process, forked."""

    def started(child: ChildProcess) -> _ForkedChild:
        if child._child is None:
            start_server()
            mine, its = socket.socketpair()
            errors = multiprocessing.connection.Connection(os.dup(child._stderr.fileno()))
            with its, errors:
                process = _FORKS.Process(target=_try_parts, args=(its, errors, dict(os.environ), os.getcwd()))
                process.start()
            child._child = _ForkedChild(process, mine)  # type: ignore[assignment]
        return child._child  # type: ignore[return-value]

    return started
