"""Ranks that are forked behave as ranks that are new processes do; where they would not, new ones are started."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from adarem.launch.commands import ranks_command
from adarem.launch.fork_server import ForkedRun, ForkServer
from adarem.run import exitcodes
from tests.support.processes import wait_for

PATIENCE = 60.0
FACTS = """
import atexit, json, os, signal, sys, threading
import known
store, beats = map(int, os.environ.pop("ADAREM_RANKS").split(","))
here = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1]
env = {k: v for k, v in os.environ.items() if k not in ("LC_CTYPE", "_")}
opened = sorted({int(fd) for fd in os.listdir("/proc/self/fd")} - {store, beats})
atexit.register(print, "left", end="")
threading.Timer(0.2, print, ["a thread's end is waited for"]).start()
print(json.dumps({
    "env": env, "argv": sys.argv[1:], "name": __name__, "path": sys.path, "folder": os.getcwd(),
    "leads": os.getsid(0) == os.getpgid(0) == os.getpid(), "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "handlers": [str(signal.getsignal(s)) for s in here], "stdin": os.readlink("/proc/self/fd/0"),
    "memory": [os.readlink(f"/proc/self/fd/{fd}") for fd in (store, beats)],
    "lines": [sys.stdout.line_buffering, sys.stderr.line_buffering], "main": sys.modules["__main__"].__spec__.name,
    "files": [fd for fd in opened if "pipe" not in str(os.path.realpath(f"/proc/self/fd/{fd}"))][:1],
}))
"""
ENDS = {
    "sys.exit(3)": (3, ""),
    "sys.exit()": (0, ""),
    "sys.exit('a text')": (1, "a text\n"),
    "raise ValueError('no')": (1, "ValueError: no"),
    "os.kill(os.getpid(), 9)": (137, "killed by SIGKILL"),
    "os._exit(75)": (75, ""),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where modules are found; ``known`` is one that the server imports."""
    (tmp_path / "known.py").write_text("import os\nBY = os.getpid()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ForkServer]:
    with ForkServer(environment(), ["known"]) as server:
        yield server


def environment() -> dict[str, str]:
    """Without what pytest changes as a test proceeds."""
    return {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}


def module(folder: Path, text: str, name: str = "work") -> list[str]:
    """The command of a run of two ranks that run this text."""
    (folder / f"{name}.py").write_text(f"import os, signal, sys, time\n{text}")
    return ranks_command(["-m", name, "one", "two"], 2)


def start(server: ForkServer, command: list[str], inherited: tuple[int, ...] = ()) -> ForkedRun:
    run = server.start(command, environment(), inherited)
    assert run is not None
    return run


def ended(run: ForkedRun) -> tuple[int, str, str]:
    """Exit code, standard output and error."""
    return run.wait(), run.stdout.read().decode(), run.stderr.read().decode()


def facts(output: str) -> tuple[list[dict[str, object]], list[str]]:
    """What the ranks found, in their order, and what else they printed."""
    for piece in ("left", "waited for", "}"):  # a line's end may be written after the other rank's line
        output = re.sub(re.escape(piece) + (r"(?=[{a])" if piece == "}" else ""), f"{piece}\n", output)
    words = [word for word in output.splitlines() if word]
    found = sorted((json.loads(w) for w in words if w.startswith("{")), key=lambda f: f["env"]["RANK"])
    return found, sorted(w for w in words if not w.startswith("{"))


def test_a_forked_rank_finds_what_a_new_process_does(server: ForkServer, folder: Path) -> None:
    command = module(folder, FACTS)
    code, out, err = ended(start(server, command))
    new = subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
    )
    assert code == new.returncode == 0 and err == new.stderr == ""
    assert facts(out) == facts(new.stdout)
    assert facts(out)[1] == ["a thread's end is waited for"] * 2 + ["left"] * 2


def test_what_the_server_imported_is_there_and_the_rest_is_imported_anew(server: ForkServer, folder: Path) -> None:
    seen = "import known, own; print(known.BY == os.getppid(), own.VALUE)"
    for value in (1, 2):
        (folder / "own.py").write_text(f"VALUE = {value}")
        code, out, err = ended(start(server, module(folder, seen)))
        assert (code, err) == (0, "") and out == f"False {value}\n" * 2
    by = "import known; print(known.BY)"
    assert len(set(ended(start(server, module(folder, by)))[1].split())) == 1  # the server's


@pytest.mark.parametrize("text", ENDS)
def test_exit_codes_are_those_of_new_processes(text: str, server: ForkServer, folder: Path) -> None:
    code, message = ENDS[text]
    command = module(folder, text)
    found, _, err = ended(start(server, command))
    assert found == code and message in err
    new = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert new.returncode == code and message in new.stderr


WAITS = """
got = []
for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, lambda n, f: got.append(n))
open(f"up{os.environ['RANK']}", "w").write(str(os.getpid()))
while not got or os.path.exists("stubborn"): time.sleep(0.02)
print(int(got[0]), flush=True)
sys.exit(75)
"""


def waiting(server: ForkServer, folder: Path, inherited: tuple[int, ...] = ()) -> tuple[ForkedRun, list[int]]:
    """Two ranks that end at a signal, and their process numbers."""
    run = start(server, module(folder, f"os.chdir({str(folder)!r})\n{WAITS}"), inherited)
    files = [folder / f"up{rank}" for rank in (0, 1)]
    wait_for(lambda: all(f.exists() and f.read_text() for f in files), PATIENCE)
    return run, [int(f.read_text()) for f in files]


def gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.parametrize(("number", "reaches"), [(signal.SIGINT, 2), (signal.SIGTERM, 15), (signal.SIGHUP, 15)])
def test_a_signal_reaches_every_rank(number: int, reaches: int, server: ForkServer, folder: Path) -> None:
    run, _ = waiting(server, folder)
    run.send_signal(number)
    assert ended(run)[:2] == (exitcodes.REQUEUE, f"{reaches}\n" * 2)


def test_the_second_signal_kills(server: ForkServer, folder: Path) -> None:
    (folder / "stubborn").touch()
    run, ranks = waiting(server, folder)
    run.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    run.send_signal(signal.SIGTERM)
    run.wait()
    wait_for(lambda: all(gone(pid) for pid in ranks), PATIENCE)


def test_a_run_is_another_process_than_the_server_and_two_run_at_a_time(server: ForkServer, folder: Path) -> None:
    first, ranks = waiting(server, folder)
    second = start(server, module(folder, "sys.exit(3)", "other"))
    assert second.wait() == 3 and not any(gone(pid) for pid in ranks)
    first.send_signal(signal.SIGTERM)
    assert first.wait() == exitcodes.REQUEUE


def test_a_lock_is_held_by_the_run_and_not_by_its_ranks(server: ForkServer, folder: Path) -> None:
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    run, ranks = waiting(server, folder, (lock,))
    os.close(lock)
    place = str(folder / "lock")
    held = {pid: [os.path.realpath(p) for p in Path(f"/proc/{pid}/fd").iterdir()] for pid in (run.pid, *ranks)}
    assert [place in files for files in held.values()] == [True, False, False]
    with open(folder / "lock") as again:
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.send_signal(signal.SIGTERM)
        run.wait()
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_ranks_end_in_order_when_the_server_is_lost(server: ForkServer, folder: Path) -> None:
    run, ranks = waiting(server, folder)
    server._process.kill()
    assert run.wait() == exitcodes.REQUEUE  # a launch starts it again
    wait_for(lambda: all(gone(pid) for pid in ranks), PATIENCE)
    assert run.stdout.read().decode() == "15\n15\n"
    assert server.start(module(folder, ""), environment(), ()) is None


def test_ranks_end_in_order_when_the_launch_is_lost(folder: Path) -> None:
    command = module(folder, f"os.chdir({str(folder)!r})\n{WAITS}")
    code = (
        "import os, sys; from adarem.launch.fork_server import ForkServer\n"
        f"server = ForkServer(os.environ, ['known']); run = server.start({command!r}, dict(os.environ), ())\n"
        "print(server._process.pid, run.pid, flush=True); os.read(run.stdout.fileno(), 1)"
    )
    launch = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert launch.stdout is not None
    processes = [int(pid) for pid in launch.stdout.readline().split()]
    files = [folder / f"up{rank}" for rank in (0, 1)]
    wait_for(lambda: all(f.exists() and f.read_text() for f in files), PATIENCE)
    launch.kill()
    launch.communicate()
    processes += [int(f.read_text()) for f in files]
    wait_for(lambda: all(gone(pid) for pid in processes), PATIENCE)


def refused(modules: list[str], given: Mapping[str, str], command: list[str]) -> bool:
    with ForkServer(environment(), modules) as server:
        return server.start(command, given, ()) is None


def test_a_new_process_is_asked_for_where_a_fork_would_differ(folder: Path) -> None:
    command = module(folder, "")
    assert not refused(["known"], environment(), command)
    assert refused(["known"], {**environment(), "CUDA_VISIBLE_DEVICES": "1"}, command)
    assert refused(["known"], environment(), ["bash", "-c", "module load x", *command])
    assert refused(["no_such_module"], environment(), command)
    (folder / "threads.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=[9]).start()")
    assert refused(["threads"], environment(), command)


def test_after_a_change_of_an_imported_file_runs_are_new_processes(server: ForkServer, folder: Path) -> None:
    assert start(server, module(folder, "")).wait() == 0
    (folder / "known.py").write_text("BY = 'another text'\n")
    assert server.start(module(folder, ""), environment(), ()) is None
