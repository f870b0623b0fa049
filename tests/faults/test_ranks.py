"""A rank that dies or stands still ends the whole job, soon, with its name; real processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
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
    words = rf"rank 1 on {HOST} sent no heartbeat for 1\d s after step \d+, while it"
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
    out, _ = process.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert process.returncode == 128 + signal.SIGKILL and "Traceback" not in out
    assert "rank 0 (pid" in out and "killed by SIGKILL" in out
    assert re.match(rf"rank 0 on {HOST} is gone after step \d+, while it", run.attempts()[-1]["detail"])
    assert run.status() == "failed"


def test_ranks_do_not_outlive_their_launcher(two_ranks: tuple[RunDir, subprocess.Popen, dict[int, int]]) -> None:
    run, process, ranks = two_ranks
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: all(gone(pid) for pid in ranks.values()), 20)
    wait_for(lambda: not run.locked(), 30)
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
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 9 and "Traceback" not in out
    assert f"failed: rank 1 on {HOST} is gone after step 0, while it starts" in out
    assert run.status() == "planned"


# A rank that only meets the others; it says how that went and leaves with the code that `adarem train` would.
WAITER = """
import sys, time
from adarem.train.distributed import rendezvous
from adarem.train.distributed.stop import SignalListener
from adarem.run.errors import RankLost
stop, rank, patience, late = SignalListener(), int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
time.sleep(late)
print("here", flush=True)
try:
    store, hosts = rendezvous.meet(rank, int(sys.argv[4]), patience, lambda: stop.signal)
    print("met", len(hosts), flush=True)
    time.sleep(2)  # the store is rank 0's
except (RankLost, rendezvous.StoppedWaiting) as e:
    print(type(e).__name__, e)
"""


@pytest.fixture
def place() -> dict[str, str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def run_python(place: dict[str, str], *words: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | place | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def waiter(place: dict[str, str], rank: int, world_size: int, patience: float = 60.0, late: float = 0.0):
    """Returns once it is about to meet the others."""
    words = ["-c", WAITER, str(rank), str(patience), str(late), str(world_size)]
    process = run_python(place, *words)
    line = b""  # byte by byte: a buffered reader may take the line after it too, which communicate then misses
    while line != b"here\n":
        line += (byte := os.read(process.stdout.fileno(), 1))
        assert byte, process.communicate()[1]
    return process


def said(process: subprocess.Popen) -> tuple[str, list[str]]:
    """What a rank printed, and its lines for people; torch's own words on a store that is gone are left out."""
    out, err = process.communicate(timeout=90)
    return out.strip(), [line for line in err.splitlines() if line.startswith("adarem")]


def test_ranks_meet_whoever_comes_first(place: dict[str, str]) -> None:
    two, one = waiter(place, 2, 3), waiter(place, 1, 3)
    zero = waiter(place, 0, 3)
    assert [said(p)[0] for p in (zero, one, two)] == ["met 3"] * 3


@pytest.mark.parametrize("first", [0, 2])
def test_ranks_that_never_come_are_named_once(first: int, place: dict[str, str]) -> None:
    """By whoever loses patience first; the others leave then, and do not wait for their own end."""
    began = time.monotonic()
    # The impatient one last, so that its time is not what the other one takes to start.
    ranks = {r: waiter(place, r, 5, 12.0 if r == first else 600.0) for r in (2 - first, first)}
    told = {r: said(p) for r, p in ranks.items()}
    assert time.monotonic() - began < 80
    line = f"MASTER_ADDR=127.0.0.1 MASTER_PORT={place['MASTER_PORT']}: ranks 1, 3, 4 of 5 did not come within 12 s"
    assert told[first] == (f"RankLost {line}", [f"adarem train: {line}; check that host and start again"])
    assert told[2 - first] == (f"RankLost {line.partition(': ')[0]}: another rank left before ranks 1, 3, 4 of 5 had "
                               "come", [])  # fmt: skip


def test_a_store_that_does_not_answer(place: dict[str, str]) -> None:
    line = f"MASTER_ADDR=127.0.0.1 MASTER_PORT={place['MASTER_PORT']}: rank 1"
    out, lines = said(waiter(place, 1, 2, 1.0))
    assert (
        out.startswith(f"RankLost {line} on {HOST} found no store there for 1 s")
        and len(lines) == 1
        and line in lines[0]
    )


def test_nobody_goes_on_with_a_rank_that_left(place: dict[str, str]) -> None:
    """The store is the launcher's, as torchrun's is: it stays when ranks leave, and holds that they had come."""
    launcher = dist.TCPStore("127.0.0.1", int(place["MASTER_PORT"]), is_master=True, wait_for_workers=False)
    place["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    zero, one = waiter(place, 0, 3), waiter(place, 1, 3)
    keys = [f"start 0/adarem/host/{r}" for r in range(2)]
    wait_for(lambda: launcher.check(keys), 30)
    one.send_signal(signal.SIGUSR1)
    assert said(one)[0] == "StoppedWaiting SIGUSR1 while rank 1 waited for rank 2"
    two = waiter(place, 2, 3)
    assert said(zero)[0].endswith("another rank left before rank 2 of 3 had come")
    assert said(two)[0].startswith("RankLost")
    # Its ranks started again meet afresh.
    place["TORCHELASTIC_RESTART_COUNT"] = "1"
    assert [said(p)[0] for p in [waiter(place, r, 3) for r in range(3)]] == ["met 3"] * 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGINT, 75), (signal.SIGTERM, 1)])
def test_a_signal_while_ranks_wait_for_each_other(
    number: int, code: int, tiny_run: Callable[..., Path], place: dict[str, str]
) -> None:
    """Before anything was begun: an end within seconds, and no trace of an attempt. SIGTERM is what launchers send to
    the other ranks when one has failed, so it must not look like an interruption."""
    run = RunDir(tiny_run("cluster.ranks_per_node=2"))
    words = ("-m", "adarem", "train", str(run.path))
    waiting = run_python(place, *words, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2")

    def answers() -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", int(place["MASTER_PORT"]))) == 0

    wait_for(answers, 90, waiting)
    waiting.send_signal(number)
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == code
    name = signal.Signals(number).name
    assert f"interrupted: {name} while rank 0 waited for rank 1; the same command starts again" in err
    assert "Traceback" not in err and run.status() == "planned"


def test_a_signal_to_all_ranks_that_wait(place: dict[str, str]) -> None:
    ranks = [waiter(place, r, 4) for r in range(3)]
    store = dist.TCPStore("127.0.0.1", int(place["MASTER_PORT"]), is_master=False, wait_for_workers=False)
    wait_for(lambda: store.check([f"start 0/adarem/host/{r}" for r in range(3)]), 60)
    time.sleep(1)  # several looks at who is there
    for process in ranks:
        process.send_signal(signal.SIGUSR1)
    for number, process in enumerate(ranks):
        assert said(process)[0] == f"StoppedWaiting SIGUSR1 while rank {number} waited for rank 3"


def test_the_first_rank_without_a_gpu_says_so(
    tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ranks 2 and 3 of a host with two GPUs: rank 0 has one, and never hears of it."""
    run = tiny_run("cluster.device=cuda", "cluster.ranks_per_node=4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    told = {}
    for number in (2, 3):
        for key, value in {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 4}.items():
            monkeypatch.setenv(key, str(value))
        assert main(["train", str(run)]) == 2
        told[number] = capfd.readouterr().err
    line = f"adarem train: cluster.ranks_per_node: rank 2 needs GPU 2 on {HOST}, which has 2; lower it, or use cluster"
    assert told[2].startswith(line) and told[2].count("\n") == 1
    assert told[3] == ""
