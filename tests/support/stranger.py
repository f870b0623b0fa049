"""Another user of the machine, who reaches every port of a run and knows how torch's stores and gloo talk."""

import datetime
import encodings.idna  # noqa: F401  # before the files of this Python are out of reach
import os
import pickle
import socket
import struct
import threading
import time
from pathlib import Path

NOBODY = 65534
_PREAMBLE = struct.Struct("=6Q")  # of gloo: bytes, what it is, slot, offset, length, offset there
_DATA, _SENDER_IS_READY, _RECEIVER_IS_READY = 1, 2, 3


class Payload:
    """Makes a file in whichever process unpickles it."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"id > {self.file}",)


def ports_of(user: int) -> set[int]:
    """At which a user's processes listen: the system shows them to all users."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {int(r[1].rpartition(":")[2], 16) for r in rows if r[3] == "0A" and int(r[7]) == user}


def write_to_store(port: int, keys: list[str], file: str) -> None:
    """What a rank would write, at a store of torch's; prints ``refused`` where there is none."""
    from torch.distributed import TCPStore

    os.setuid(NOBODY)
    try:
        store = TCPStore("127.0.0.1", port, timeout=datetime.timedelta(seconds=3), wait_for_workers=False)
        for key in keys:
            store.set(key, pickle.dumps(Payload(file)))
        print("wrote")
    except RuntimeError:
        print("refused")


def take_places(user: int, not_these: set[int], seconds: float) -> None:
    """Connects to each new port as the rank that is to come, before that one does, and answers what gloo asks for;
    prints the lengths."""
    os.setuid(NOBODY)
    asked: list[int] = []

    def talk(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while len(head := stream.read(_PREAMBLE.size)) == _PREAMBLE.size:
            size, kind, slot, _, length, _ = _PREAMBLE.unpack(head)
            stream.read(size - _PREAMBLE.size)
            if kind == _SENDER_IS_READY:
                connection.sendall(_PREAMBLE.pack(_PREAMBLE.size, _RECEIVER_IS_READY, slot, 0, length, 0))
            if kind == _RECEIVER_IS_READY:
                asked.append(length)
                data = b"\1" * length
                connection.sendall(_PREAMBLE.pack(_PREAMBLE.size + length, _DATA, slot, 0, length, 0) + data)

    def sit(port: int, sequence: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
                connection.sendall(struct.pack("=q", sequence))
                talk(connection)
        except OSError:
            pass

    print("here", flush=True)
    known, end = not_these, time.monotonic() + seconds
    while time.monotonic() < end:
        for port in ports_of(user) - known:
            known |= {port}
            for sequence in range(4):
                threading.Thread(target=sit, args=(port, sequence), daemon=True).start()
        if asked:
            end = min(end, time.monotonic() + 5.0)
    print("asked for", asked, flush=True)


def relay(port: int, to: int) -> None:
    """Listens at one port and passes on to another what comes, as somebody who hopes to be taken for the store."""
    os.setuid(NOBODY)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(4096):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    with socket.create_server(("127.0.0.1", port)) as listening:
        print("here", flush=True)
        while True:
            one, _ = listening.accept()
            other = socket.create_connection(("127.0.0.1", to))
            for pair in ((one, other), (other, one)):
                threading.Thread(target=pump, args=pair, daemon=True).start()
