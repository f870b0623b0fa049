"""The processes of a run on this machine: where they meet, how they end and what their launcher returns."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adarem.run import exitcodes
from tests.support.processes import wait_for

COMMAND = [sys.executable, "-m", "adarem.launch.ranks", "--nproc-per-node=2", "-c"]
HEAD = "import os, signal, sys, time; from pathlib import Path; r = os.environ['RANK']\n"


def run(lines: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, HEAD + lines], capture_output=True, text=True, timeout=120)


@pytest.fixture
def waiting(tmp_path: Path) -> subprocess.Popen[str]:
    """Two ranks that end with 75 on a signal, as training does; the file `stubborn` makes them ignore it."""
    lines = (
        f"place, got = Path({str(tmp_path)!r}), []\n"
        "for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, lambda n, f: got.append(n))\n"
        "(place / f'up{r}').write_text(str(os.getpid()))\n"
        "while not got or (place / 'stubborn').exists(): time.sleep(0.05)\n"
        "(place / f'got{r}').write_text(str(int(got[0])))\n"
        "sys.exit(75)\n"
    )
    process = subprocess.Popen([*COMMAND, HEAD + lines], stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: all((tmp_path / f"up{r}").exists() for r in "01"), 60)
    return process


def test_the_exit_code_is_that_of_the_first_rank_to_end() -> None:
    diverged = run("sys.exit(3 if r == '1' else time.sleep(60))")
    assert diverged.returncode == exitcodes.DIVERGED and diverged.stderr == ""
    killed = run("os.kill(os.getpid(), 9) if r == '1' else time.sleep(60)")
    assert killed.returncode == 137 and re.search(r"rank 1 \(pid \d+\) ended first: killed by SIGKILL", killed.stderr)
    assert run("").returncode == exitcodes.OK


def test_ranks_inherit_one_memory_and_keep_to_the_loopback_interface() -> None:
    done = run(
        "store = int(os.environ['ADAREM_RANKS'].split(',')[0])\n"
        "of_rank = [os.environ[key] for key in ('WORLD_SIZE', 'GLOO_SOCKET_IFNAME', 'OMP_NUM_THREADS')]\n"
        "os.write(1, f'{r} {\" \".join(of_rank)}\\n'.encode())\n"  # one write: ranks share the pipe
        "sys.exit('memfd' not in os.readlink(f'/proc/self/fd/{store}'))\n"
    )
    assert done.returncode == 0 and sorted(done.stdout.splitlines()) == ["0 2 lo 1", "1 2 lo 1"]


@pytest.mark.parametrize(
    ("number", "reaches"), [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP, 15)]
)
def test_a_signal_reaches_every_rank(number: int, reaches: int, waiting: subprocess.Popen[str], tmp_path: Path) -> None:
    waiting.send_signal(number)
    assert waiting.wait(60) == exitcodes.REQUEUE
    assert [(tmp_path / f"got{r}").read_text() for r in "01"] == [str(int(reaches))] * 2
    assert waiting.stderr is not None and waiting.stderr.read() == ""


def test_the_second_signal_kills(waiting: subprocess.Popen[str], tmp_path: Path) -> None:
    (tmp_path / "stubborn").touch()
    waiting.send_signal(signal.SIGTERM)
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(60) == exitcodes.REQUEUE
    assert not any(os.path.exists(f"/proc/{(tmp_path / f'up{r}').read_text()}") for r in "01")


@pytest.mark.parametrize("words", [[], ["--nproc-per-node=0", "-c", "1"], ["--nproc=2", "-c", "1"]])
def test_wrong_arguments(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "adarem.launch.ranks", *words], capture_output=True, text=True)
    assert done.returncode == exitcodes.USER_ERROR and done.stderr.startswith("usage: ")
