"""The store does for ranks what torch's does, and nothing for another user of the machine."""

import contextlib
import datetime
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from adarem.train.distributed import store as store_module
from adarem.train.distributed.context import join
from adarem.train.distributed.rendezvous import meeting_point
from adarem.train.distributed.stop import SignalListener, StopConsensus
from adarem.train.distributed.store import Client, Refused, Server, connect
from tests.support.processes import wait_for
from tests.support.stranger import ports_of, relay, take_places, write_to_store
from tests.support.warm import TOKEN, Forked, free_port

SECRET = b"what only the ranks know"


@pytest.fixture
def port() -> Iterator[int]:
    """Of a store of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        Server([listening], SECRET)
        yield int(listening.getsockname()[1])


def client(port: int, secret: bytes = SECRET, seconds: float = 30.0) -> Client:
    return Client(lambda: connect([("127.0.0.1", port)], secret), seconds)


def test_it_answers_as_torchs_own(port: int) -> None:
    theirs = dist.HashStore()
    for its in (client(port), theirs):
        its.set("k", b"\0\xff value")
        assert its.get("k") == b"\0\xff value" and its.check(["k"]) and not its.check(["k", "absent"])
        assert [its.add("n", 2), its.add("n", -5), int(its.get("n"))] == [2, -3, -3]
        assert its.compare_set("c", "", "first") == b"first" == its.compare_set("c", "", "second")
        assert its.compare_set("c", "first", "third") == b"third"
        assert its.compare_set("never", "expected", "desired") == b"expected" and not its.check(["never"])
        its.append("k", "!")
        assert its.multi_get(["k", "c"]) == [b"\0\xff value!", b"third"]
        its.multi_set(["x", "y"], ["1", ""])
        assert its.get("y") == b"" and its.check(["y"])
        assert its.delete_key("x") and not its.delete_key("x") and not its.check(["x"])
        with pytest.raises(RuntimeError):
            its.wait(["absent"], datetime.timedelta(seconds=0.3))
    assert client(port).read(["y", "absent", "c"]) == [b"", None, b"third"]


def test_a_reader_waits_for_a_writer_and_keeps_no_other_from_writing(port: int) -> None:
    mine, found = client(port), []
    reader = threading.Thread(target=lambda: found.append(mine.get("late")))
    reader.start()
    time.sleep(0.2)
    mine.set("late", "here")  # over the same connection
    reader.join(30.0)
    assert found == [b"here"]


def test_process_groups_meet_at_it(port: int) -> None:
    sums = {}

    def rank(number: int) -> None:
        group = dist.ProcessGroupGloo(
            dist.PrefixStore("here", client(port).clone()), number, 2, datetime.timedelta(seconds=60)
        )
        tensor = torch.ones(3) * (number + 1)
        group.allreduce([tensor]).wait()
        sums[number] = tensor.tolist()

    ranks = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join(60.0)
    assert sums == {0: [3.0] * 3, 1: [3.0] * 3}


def test_a_store_that_is_gone_is_a_lost_connection(port: int) -> None:
    mine = client(port)
    mine._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(dist.DistNetworkError, match="store: no connection"):
        mine.set("k", "v")


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * (1 << 20)])
def test_strangers_change_nothing(said: bytes, port: int) -> None:
    """They may say what they like, or nothing; a rank that comes meanwhile is served."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stranger.settimeout(5.0)
            with contextlib.suppress(OSError):
                stranger.sendall(said)
        assert client(port).num_keys() == 0


def test_a_wrong_secret_opens_nothing_on_either_side(port: int) -> None:
    with pytest.raises(Refused, match="closed the connection"):
        connect([("127.0.0.1", port)], b"what a stranger guesses")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        Server([listening], b"the store of a stranger")
        addresses = [("127.0.0.1", listening.getsockname()[1]), ("127.0.0.1", port)]
        with connect(addresses, SECRET) as connection:  # which is passed over
            assert connection.getpeername()[1] == port


def test_an_answer_serves_nobody_else(port: int) -> None:
    """A stranger's store sends back what a rank says to prove itself."""

    def mirror(listening: socket.socket) -> None:
        with listening.accept()[0] as connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=mirror, args=(listening,), daemon=True).start()
        with pytest.raises(Refused, match="does not know"):
            connect([("127.0.0.1", listening.getsockname()[1])], SECRET)


def test_silent_strangers_keep_no_rank_out_for_long(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold all places of those that have not answered, until their time is over; ranks that are in stay in."""
    mine = client(port)
    monkeypatch.setattr(store_module, "_HELLO_SECONDS", 1.0)
    strangers = [socket.create_connection(("127.0.0.1", port)) for _ in range(store_module._STRANGERS)]
    mine.set("k", "v")

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return client(port).get("k") == b"v"
        return False

    wait_for(answers, 60)
    for stranger in strangers:
        stranger.close()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root can")


@needs_root
def test_another_user_writes_nothing(port: int, tmp_path: Path) -> None:
    """What once ran code in a launcher and in a rank: a pickle under a key that they read, over torch's protocol."""
    mine, file = client(port), tmp_path / "made by a stranger"
    mine.set("adarem/host/0", "n1")
    stranger = Forked(write_to_store, port, ["adarem/host/0", "adarem/host/1", "0//cpu//0/0"], str(file))
    assert stranger.communicate()[0] == "refused\n"
    assert mine.get("adarem/host/0") == b"n1" and mine.num_keys() == 1 and not file.exists()


@needs_root
def test_another_user_between_rank_and_store(port: int) -> None:
    """Who holds a port at which a rank looks for the store passes its proof on: it holds for the store's port alone."""
    between = free_port()
    stranger = Forked(relay, between, port)
    wait_for(lambda: "here" in stranger.printed(), 60)
    try:
        with pytest.raises(Refused):
            connect([("127.0.0.1", between)], SECRET)
        assert client(port).num_keys() == 0
    finally:
        os.kill(stranger.pid, 9)


def groups_one_after_another(number: int) -> None:
    """Rank 1 comes late to each new group, so that a stranger may come first; which of the two listens, gloo draws."""
    context = join("cpu", 60.0, SignalListener())
    print("joined", flush=True)
    time.sleep(2.0)
    try:
        for _ in range(number):
            time.sleep(0.5 * context.rank)
            StopConsensus(context)
        print("nobody came")
    except Exception as e:
        print(f"{type(e).__name__}: {e}", flush=True)
    os._exit(0)


@needs_root
def test_another_user_in_the_place_of_a_rank() -> None:
    """gloo lets whoever connects first have it. The rank that waits finds out before it believes anything."""
    before = ports_of(0)
    place = {"MASTER_ADDR": "127.0.0.1", "ADAREM_TOKEN": TOKEN, "WORLD_SIZE": "2", "SLURM_NNODES": "1"}
    ranks = [Forked(groups_one_after_another, 16, RANK=str(r), LOCAL_RANK=str(r), **place) for r in range(2)]
    for process in ranks:
        wait_for(lambda process=process: "joined" in process.printed(), 60, process)
    stranger = Forked(take_places, 0, before | ports_of(0), 30.0)
    said = "".join(process.communicate()[0] for process in ranks)
    assert "another program has taken the connection of rank" in said and "start again" in said
    assert "asked for [32" in stranger.communicate()[0]  # for a proof, and for nothing after it


@pytest.mark.parametrize("single", [True, False])
def test_ports_come_from_the_secret_alone(single: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "n1")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_NNODES", "1" if single else "2")
    ports = set()
    for token in (TOKEN, TOKEN + "!"):
        monkeypatch.setenv("ADAREM_TOKEN", token)
        point = meeting_point(2)
        assert len(set(point.ports)) > 1 and all(10000 <= p < 30000 for p in point.ports)
        assert point.host == ("127.0.0.1" if single else "n1") and TOKEN not in point.place
        ports |= set(point.ports)
    assert len(ports) > len(point.ports)
