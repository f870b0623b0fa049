"""A rank that dies or stands still ends the whole job, soon, with its name; real processes."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import start, wait_for
from torture import gone, ranks_of

from adarem.rundir import RunDir

LONG = ("scale.epochs=2000", "cluster.ranks_per_node=2", "cluster.stall_seconds=10", "train.eval_every=1000")
HOST = socket.gethostname()


@pytest.fixture
def two_ranks(tiny_run: Callable[..., Path]):
    """A run that two ranks work on, in its second epoch at least."""
    run = RunDir(tiny_run(*LONG, "optimizer=adam"))
    process = start(run.path, 2)
    wait_for(lambda: len(run.metrics()) > 1, 120, process)
    yield run, process, ranks_of(process.pid)
    for pid in [process.pid, *ranks_of(process.pid).values()]:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def test_a_stopped_rank_is_named_and_ends_the_job(two_ranks: tuple[RunDir, subprocess.Popen, dict[int, int]]) -> None:
    run, process, ranks = two_ranks
    os.kill(ranks[1], signal.SIGSTOP)
    out, _ = process.communicate(timeout=60)
    words = rf"rank 1 on {HOST} gave no sign of life for 1\d s after step \d+, while it"
    assert re.search(f"failed: {words}", out) and "Traceback" not in out
    assert process.returncode != 0
    assert run.status() == "failed"
    assert re.match(words, run.attempts()[-1]["detail"])
    assert re.search(f"failed: {words}", run.log_file.read_text())
    assert all(gone(pid) for pid in ranks.values())


def test_a_killed_rank_is_named_and_ends_the_job(two_ranks: tuple[RunDir, subprocess.Popen, dict[int, int]]) -> None:
    """Rank 0, which is the one that writes: the other one speaks for it."""
    run, process, ranks = two_ranks
    began = time.monotonic()
    os.kill(ranks[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + signal.SIGKILL and "Traceback" not in out
    assert "rank 0 (pid" in out and "killed by SIGKILL" in out
    assert re.match(rf"rank 0 on {HOST} is gone after step \d+, while it", run.attempts()[-1]["detail"])
    assert run.status() == "failed"


def test_ranks_do_not_outlive_their_launcher(two_ranks: tuple[RunDir, subprocess.Popen, dict[int, int]]) -> None:
    run, process, ranks = two_ranks
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in ranks.values()), 20)
    wait_for(lambda: not run.locked(), 5)
    assert run.status() == "failed" and "its launcher" in run.attempts()[-1]["detail"]
