"""A wandb that cannot be reached, hangs or talks nonsense costs no step; and its key is written nowhere. Real wandb."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adarem.run import exitcodes
from adarem.run.directory import RunDir
from adarem.tracking import sync
from tests.support.processes import wait_for

KEY = "0123456789abcdef" * 2 + "01234567"
NONSENSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 26\r\n\r\n<html>not what you want\xff\xfe"


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a wandb that behaves as the test says."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_ones.append(connection)  # hangs: it neither answers nor hangs up
            if request.param == "nonsense":
                connection.recv(65536)
                connection.sendall(NONSENSE)
                connection.close()

    if request.param == "unreachable":
        listener.close()
        yield "http://127.0.0.1:9"
        return
    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    for connection in open_ones:
        connection.close()


def processes_with(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("server", ["unreachable", "nonsense", "hangs"], indirect=True)
def test_training_ends_as_if_there_were_no_wandb(
    server: str,
    tmp_path: Path,
    tiny_run: Callable[..., Path],
    train_here: Callable[[Path], tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = RunDir(tiny_run("wandb.mode=online", "optimizer=adam"))
    mark = f"mark-of-{tmp_path.name}-{time.time_ns()}"
    for key, value in {"WANDB_BASE_URL": server, "WANDB_API_KEY": KEY, "ADAREM_TEST_MARK": mark}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(sync, "_FINISH_SECONDS", 4.0)
    waited = []
    close = sync.SyncProcess.close

    def timed(self: sync.SyncProcess) -> None:
        began = time.monotonic()
        close(self)
        waited.append(time.monotonic() - began)

    monkeypatch.setattr(sync.SyncProcess, "close", timed)
    code, err = train_here(run.path)
    assert code == exitcodes.OK and run.status() == "done" and "Traceback" not in err
    assert len(waited) == 1 and waited[0] < 4 + 10  # the time that the mirror is given at the end
    wait_for(lambda: not processes_with(mark), 20)
    assert (run.path / "wandb.log").exists()
    holders = [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert holders == [] and KEY not in err


def test_training_ends_as_if_there_were_no_wandb_when_its_log_cannot_be_opened(
    tiny_run: Callable[..., Path], train_here: Callable[[Path], tuple[int, str]]
) -> None:
    run = RunDir(tiny_run("wandb.mode=offline", "scale.epochs=1"))
    (run.path / "wandb.log").mkdir()
    assert train_here(run.path)[0] == 0
    assert run.status() == "done"
    line = f"wandb: not copied there ({run.path / 'wandb.log'}: a folder and no file"
    assert line in run.log_file.read_text()
