"""A process that has imported what training needs, and forks the ranks of a launch's runs on this machine.

To import torch, torchvision and the rest takes a process some four seconds of CPU time; a fork of one that has them
takes none. Standard library only: what is imported stands in the command.

In: commands of ``launch/ranks.py``. Out: the same processes under the same signals, logs and exit codes as new
interpreters have. What is not imported beforehand, an optimizer of the user's own, each fork imports by itself.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, NamedTuple, NoReturn

from adarem.launch import ranks
from adarem.run import exitcodes, streams

PRELOADED = "adarem.train.preloaded"  # by name: a launch itself needs no torch
_ANSWER_SECONDS = 120.0  # the longest wait for a start: the imports, on a busy machine
_MESSAGE_BYTES = 64 * 1024
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RANKS_COMMAND = [sys.executable, "-m", ranks.__name__]


class ForkedRun:
    """The launcher of a run's ranks, as much of a Popen as ``parallel`` uses."""

    def __init__(self, server: "ForkServer", pid: int, end: int, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self._server, self.pid = server, pid
        self.end = end  # descriptor that can be read once the process has ended
        self.stdout, self.stderr = stdout, stderr

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.end, number)

    def wait(self) -> int:
        """Its exit code, below 0 the number of the signal that killed it; REQUEUE where the server was lost."""
        return self._server.code_of(self.pid)


class ForkServer:
    """Starts the server, which imports while this process goes on. A context manager, and its runs end before it.

    Args:
        environment: of every process that it forks.
        modules: what it imports.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = (PRELOADED,)) -> None:
        self._environment = dict(environment)
        self._codes: dict[int, int] = {}
        self._channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.settimeout(_ANSWER_SECONDS)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(its.fileno()), *modules],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                start_new_session=True,
            )
        self._serves = True

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], inherited: Sequence[int]
    ) -> ForkedRun | None:
        """Runs a command of ``launch/ranks.py`` in a session of its own; None where only a new process can.

        Args:
            command: with the interpreter.
            environment: of the command.
            inherited: descriptors that the process, but not its ranks, holds until it ends.
        """
        if not self._serves or list(command[:3]) != _RANKS_COMMAND or environment != self._environment:
            return None
        (out, its_out), (err, its_err) = os.pipe(), os.pipe()
        started: ForkedRun | None = None
        try:
            message = json.dumps(list(command[3:])).encode()
            socket.send_fds(self._channel, [message], [its_out, its_err, *inherited])
            while started is None and self._serves:
                started = self._received(out, err)
        except OSError:  # the server is gone, or does not answer
            self._serves = False
            self._process.kill()
        finally:
            for descriptor in (its_out, its_err, *(() if started else (out, err))):
                os.close(descriptor)
        return started

    def _received(self, out: int = -1, err: int = -1) -> ForkedRun | None:
        """One message of the server; a run where it is of one that has started."""
        data, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE_BYTES, 1)
        if not data:
            raise ConnectionError("the fork server ended")
        answer: dict[str, int] = json.loads(data)
        if "code" in answer:
            self._codes[answer["pid"]] = answer["code"]
        elif "pid" in answer:
            os.set_inheritable(descriptors[0], False)
            return ForkedRun(self, answer["pid"], descriptors[0], os.fdopen(out, "rb", 0), os.fdopen(err, "rb", 0))
        else:
            self._serves = False
        return None

    def code_of(self, pid: int) -> int:
        with contextlib.suppress(OSError):
            while pid not in self._codes:
                self._received()
        return self._codes.pop(pid, exitcodes.REQUEUE)

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()  # on which it ends
        if not self._serves:
            self._process.kill()
        self._process.wait()


@dataclass
class _Job:
    """What a fork of the server runs."""

    words: list[str]
    output: tuple[int, int]
    inherited: list[int]

    def enter(self) -> None:
        os.setsid()
        for number, descriptor in enumerate(self.output, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


class _InRank(BaseException):
    """Raised in a forked rank, so that it leaves the launcher's code before its own begins."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.words, self.environment = list(words), environment


class _ForkedRank:
    """As much of a Popen as ``ranks`` uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def send_signal(self, number: int) -> None:
        if self._code is None:
            os.kill(self.pid, number)

    def wait(self) -> int:
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


def _fork_rank(words: Sequence[str], environment: Mapping[str, str], _inherited: Sequence[int]) -> _ForkedRank:
    # A signal that comes before the fork has left the launcher's handlers would be taken for one to the launcher.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    pid = os.fork()
    if pid == 0:
        raise _InRank(words, environment)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    return _ForkedRank(pid)


class _File(NamedTuple):
    changed: int
    size: int
    inode: int


def _files() -> dict[str, _File]:
    """The files of all modules that are imported, by which a change of them is seen."""
    found = {}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and os.path.isabs(path):
            with contextlib.suppress(OSError):
                stat = os.stat(path)
                found[path] = _File(stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return found


def _serve(channel: socket.socket) -> _Job | None:
    """Forks until the launch ends, then returns None; in a fork its job."""
    files = _files()
    gc.collect()
    gc.freeze()  # what is shared stays so
    children: dict[int, int] = {}  # pid by descriptor
    with selectors.DefaultSelector() as ready, channel:
        ready.register(channel, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fd != channel.fileno():
                    ready.unregister(key.fd)
                    os.close(key.fd)
                    pid = children.pop(key.fd)
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    channel.send(json.dumps({"pid": pid, "code": code}).encode())
                    continue
                data, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 16)
                if not data:
                    return None
                # Forks would run what files held before, and a fork of a process with threads may hang.
                if len(os.listdir("/proc/self/task")) > 1 or _files() != files:
                    channel.send(b"{}")
                elif pid := os.fork():
                    end = os.pidfd_open(pid)
                    socket.send_fds(channel, [json.dumps({"pid": pid}).encode()], [end])
                    children[end] = pid
                    ready.register(end, selectors.EVENT_READ)
                else:
                    for descriptor in (*children, *descriptors):
                        os.set_inheritable(descriptor, False)
                    for descriptor in children:
                        os.close(descriptor)
                    return _Job(json.loads(data), (descriptors[0], descriptors[1]), descriptors[2:])
                for descriptor in descriptors:
                    os.close(descriptor)


def _run_rank(rank: _InRank, inherited: Sequence[int]) -> int:
    """``python -m MODULE …`` in this process; returns its exit code."""
    for descriptor in inherited:
        os.close(descriptor)
    os.setsid()
    os.environ.clear()
    os.environ.update(rank.environment)
    importlib.invalidate_caches()  # a user's module may have come since
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    option, module, *sys.argv[1:] = rank.words
    assert option == "-m"
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as e:
        if e.code is None or isinstance(e.code, int):
            return e.code or 0
        print(e.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


class _End:
    """Ends the process once threads are joined and all other exit functions have run: to take apart all that was
    imported takes 0.4 s of CPU time."""

    code = 0

    def __call__(self) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.code & 0xFF)


def main(argv: Sequence[str]) -> int:
    """Serves the launch at the other end of a socket; ``argv``: its descriptor and the modules to import."""
    end = _End()
    atexit.register(end)  # first in, last out
    channel = socket.socket(fileno=int(argv[0]))
    channel.set_inheritable(False)
    for module in argv[1:]:
        importlib.import_module(module)
    job, rank = _serve(channel), None
    if job is not None:
        job.enter()
        try:
            end.code = ranks.main(job.words, _fork_rank)
        except _InRank as forked:
            rank = forked
        if rank is not None:
            end.code = _run_rank(rank, job.inherited)
    return end.code


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main(sys.argv[1:]))
