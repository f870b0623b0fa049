"""Either all ranks meet or none starts, and those that did not come are named; real processes."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run.directory import RunDir
from adarem.run.errors import RankLost
from adarem.train.distributed import rendezvous
from adarem.train.distributed.stop import SignalListener
from adarem.train.distributed.store import Client, Server, connect
from tests.support.processes import wait_for
from tests.support.warm import TOKEN, Forked, adarem, free_port

HOST = socket.gethostname()


def meet(rank: int, world_size: int, patience: float, file: str) -> None:
    """A rank that only meets the others and prints the outcome. It counts its looks at the store in a file."""
    stop = SignalListener()
    with open(file, "ab", buffering=0) as looks:

        def look() -> str | None:
            looks.write(b".")
            return stop.signal

        print("here", flush=True)
        try:
            store, hosts = rendezvous.meet(rank, world_size, patience, look)
            print("met", len(hosts), flush=True)
            store.add("test/left", 1)
            while rank == 0 and store.add("test/left", 0) < world_size:  # the store is rank 0's: it leaves last
                time.sleep(0.05)
        except (RankLost, rendezvous.StoppedWaiting) as e:
            print(type(e).__name__, e)


@pytest.fixture
def place() -> dict[str, str]:
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "ADAREM_TOKEN": TOKEN}


def waiter(
    place: dict[str, str], rank: int, world_size: int, patience: float = 600.0, looks: str = os.devnull
) -> Forked:
    """Returns once it is about to meet the others."""
    process = Forked(meet, rank, world_size, patience, looks, **place)
    wait_for(lambda: "here\n" in process.printed(), 300, process)
    return process


def output(process: Forked) -> tuple[str, list[str]]:
    """What a rank printed, and its lines for people; torch's own lines on a closed store are left out."""
    out, err = process.communicate(300)
    return out.removeprefix("here\n").strip(), [line for line in err.splitlines() if line.startswith("adarem")]


def test_ranks_meet_whoever_comes_first(place: dict[str, str]) -> None:
    two, one = waiter(place, 2, 3), waiter(place, 1, 3)
    zero = waiter(place, 0, 3)
    assert [output(p)[0] for p in (zero, one, two)] == ["met 3"] * 3


@pytest.mark.parametrize("first", [0, 2])
def test_ranks_that_never_come_are_named_once(first: int, place: dict[str, str]) -> None:
    """By the rank whose time is over first; the others leave then, long before their own time is over."""
    # The one with the short time last, so that the start of the other one does not count.
    ranks = {r: waiter(place, r, 5, 12.0 if r == first else 3600.0) for r in (2 - first, first)}
    printed = {r: output(p) for r, p in ranks.items()}
    line = f"MASTER_ADDR=127.0.0.1 MASTER_PORT={place['MASTER_PORT']}: ranks 1, 3, 4 of 5 did not come within 12 s"
    assert printed[first] == (f"RankLost {line}", [f"adarem train: {line}; check that host and start again"])
    left = f"RankLost {line.partition(': ')[0]}: another rank left before ranks 1, 3, 4 of 5 had come"
    assert printed[2 - first] == (left, [])


def test_a_store_that_does_not_answer(place: dict[str, str]) -> None:
    line = f"MASTER_ADDR=127.0.0.1 MASTER_PORT={place['MASTER_PORT']}: rank 1"
    out, lines = output(waiter(place, 1, 2, 1.0))
    assert (
        out.startswith(f"RankLost {line} on {HOST} found no store there for 1 s")
        and len(lines) == 1
        and line in lines[0]
    )


def test_nobody_goes_on_with_a_rank_that_left(place: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process keeps the store open in the place of rank 0."""
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    point = rendezvous.meeting_point(4)
    with socket.create_server(point.addresses[0]) as listening:
        Server([listening], point.token)
        store = Client(lambda: connect(point.addresses, point.token), 60.0)
        store.set("adarem/host/0", HOST)
        one, two = waiter(place, 1, 4), waiter(place, 2, 4)
        wait_for(lambda: store.check(["adarem/host/1", "adarem/host/2"]), 300)
        one.send_signal(signal.SIGUSR1)
        assert output(one)[0] == "StoppedWaiting SIGUSR1 while rank 1 waited for rank 3"
        three = waiter(place, 3, 4)
        assert output(two)[0].endswith("another rank left before rank 3 of 4 had come")
        assert output(three)[0].startswith("RankLost")


def test_ranks_that_torchrun_starts_again_meet_afresh(place: dict[str, str]) -> None:
    """In the same environment but for a number; the port of torchrun's own store is not theirs."""
    with socket.create_server(("127.0.0.1", int(place["MASTER_PORT"]))):
        place["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        before = waiter(place, 0, 3)  # which has not ended yet
        place["TORCHELASTIC_RESTART_COUNT"] = "1"
        assert [output(p)[0] for p in [waiter(place, r, 3) for r in range(3)]] == ["met 3"] * 3
        before.send_signal(signal.SIGUSR1)
        assert output(before)[0].startswith("StoppedWaiting")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGINT, 75), (signal.SIGTERM, 1)])
def test_a_signal_while_ranks_wait_for_each_other(
    number: int, code: int, tiny_run: Callable[..., Path], place: dict[str, str]
) -> None:
    """Before anything was begun: an end within seconds, and no trace of an attempt. SIGTERM is what launchers send to
    the other ranks when one has failed, so it must not look like an interruption."""
    run = RunDir(tiny_run("cluster.ranks_per_node=2"))
    waiting = Forked(adarem, "train", str(run.path), **place, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2")

    def answers() -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", int(place["MASTER_PORT"]))) == 0

    wait_for(answers, 300, waiting)
    waiting.send_signal(number)
    _, err = waiting.communicate(300)
    assert waiting.returncode == code
    name = signal.Signals(number).name
    assert f"interrupted: {name} while rank 0 waited for rank 1; the same command starts again" in err
    assert "Traceback" not in err and run.status() == "planned"


def test_a_signal_to_all_ranks_that_wait(
    place: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    point = rendezvous.meeting_point(4)
    looks = [tmp_path / f"looks of rank {r}" for r in range(3)]
    ranks = [waiter(place, r, 4, looks=str(looks[r])) for r in range(3)]
    store = Client(lambda: connect(point.addresses, point.token), 60.0)
    wait_for(lambda: store.check([f"adarem/host/{r}" for r in range(3)]), 300)
    # Each of them has seen who is there since.
    before = [file.stat().st_size for file in looks]
    wait_for(lambda: all(file.stat().st_size > n + 2 for file, n in zip(looks, before, strict=True)), 300)
    for process in ranks:
        process.send_signal(signal.SIGUSR1)
    for number, process in enumerate(ranks):
        assert output(process)[0] == f"StoppedWaiting SIGUSR1 while rank {number} waited for rank 3"
