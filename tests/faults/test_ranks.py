"""A rank that dies or hangs ends the complete job within seconds, and is named; real processes."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scripts.torture import gone, ranks_of

from adarem.cli import main
from adarem.run.directory import RunDir
from tests.support.processes import start, wait_for

LONG = ("scale.epochs=2000", "cluster.ranks_per_node=2", "cluster.stall_seconds=10", "train.eval_every=1000")
HOST = socket.gethostname()


@pytest.fixture
def two_ranks(tiny_run: Callable[..., Path]):
    """A run that two ranks work on, in its second epoch at least."""
    run = RunDir(tiny_run(*LONG, "optimizer=adam"))
    process = start(run.path, 2)
    wait_for(lambda: len(run.metrics()) > 1, 300, process)
    yield run, process, ranks_of(process.pid)
    for pid in [process.pid, *ranks_of(process.pid).values()]:
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def test_a_stopped_rank_is_named_and_ends_the_job(two_ranks: tuple[RunDir, subprocess.Popen, dict[int, int]]) -> None:
    run, process, ranks = two_ranks
    os.kill(ranks[1], signal.SIGSTOP)
    out, _ = process.communicate(timeout=300)
    words = rf"rank 1 on {HOST} sent no heartbeat for \d+ s after step \d+, while it"
    assert re.search(f"failed: {words}", out) and "Traceback" not in out
    assert process.returncode != 0
    assert run.status() == "failed"
    assert re.match(words, run.attempts()[-1]["detail"])
    assert re.search(f"failed: {words}", run.log_file.read_text())
    assert all(gone(pid) for pid in ranks.values())


def test_a_killed_rank_is_named_and_ends_the_job(two_ranks: tuple[RunDir, subprocess.Popen, dict[int, int]]) -> None:
    """Rank 0, which is the one that writes: the other one reports it."""
    run, process, ranks = two_ranks
    os.kill(ranks[0], signal.SIGKILL)
    out, _ = process.communicate(timeout=300)  # without a report, the other rank would wait for 660 s
    assert process.returncode == 128 + signal.SIGKILL and "Traceback" not in out
    assert "rank 0 (pid" in out and "killed by SIGKILL" in out
    assert re.match(rf"rank 0 on {HOST} is gone after step \d+, while it", run.attempts()[-1]["detail"])
    assert run.status() == "failed"


def test_ranks_do_not_outlive_their_launcher(two_ranks: tuple[RunDir, subprocess.Popen, dict[int, int]]) -> None:
    run, process, ranks = two_ranks
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in ranks.values()), 120)
    wait_for(lambda: not run.locked(), 120)
    assert run.status() == "failed" and "its launcher" in run.attempts()[-1]["detail"]


EARLY_DEATH = """
import os
if os.environ.get("RANK") == "1":
    import adarem.train.train
    adarem.train.train.on_main_rank = lambda context, action: os._exit(9)
"""


def test_a_rank_that_dies_before_anything_was_begun_is_named(tiny_run: Callable[..., Path], tmp_path: Path) -> None:
    """Between the ranks' meeting and the first attempt's line."""
    run = RunDir(tiny_run("cluster.ranks_per_node=2"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(EARLY_DEATH)
    process = start(run.path, 2, PYTHONPATH=str(tmp_path / "site"))
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 9 and "Traceback" not in out
    assert f"failed: rank 1 on {HOST} is gone after step 0, while it starts" in out
    assert run.status() == "planned"


def test_the_first_rank_without_a_gpu_says_so(
    tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ranks 2 and 3 of a host with two GPUs: rank 0 has one, and never hears of it."""
    run = tiny_run("cluster.device=cuda", "cluster.ranks_per_node=4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    printed = {}
    for number in (2, 3):
        for key, value in {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 4}.items():
            monkeypatch.setenv(key, str(value))
        assert main(["train", str(run)]) == 2
        printed[number] = capfd.readouterr().err
    line = f"adarem train: cluster.ranks_per_node: rank 2 needs GPU 2 on {HOST}, which has 2; lower it, or use cluster"
    assert printed[2].startswith(line) and printed[2].count("\n") == 1
    assert printed[3] == ""
