"""A key-value store on rank 0 for ranks on several hosts, which believes only those who know the job's token.

torch's own TCPStore believes whoever reaches its port. Here each connection begins with a challenge to either side,
whose answer takes the token (HMAC, so that it never travels), and nothing but byte strings follows: none is executed.
"""

import datetime
import hashlib
import hmac
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]  # torch exports it unlisted

_NONCE = 32  # bytes
_HELLO_SECONDS = 10.0  # for the challenge
_STRANGERS = 64  # connections at a time that have not answered it
_LONGEST = 1 << 24  # bytes of a message
_WAIT_SECONDS = 0.5  # that one request waits for keys; the client asks again

Address = tuple[str, int]


class Refused(ConnectionError):
    """The other side does not know the token, or is no store."""


class Server:
    """Serves until the process ends: one thread per connection, which sleeps but for requests.

    Args:
        listening: sockets that listen.
        token: what others have to know.
    """

    def __init__(self, listening: Iterable[socket.socket], token: bytes) -> None:
        self._token, self._values = token, dict[str, bytes]()
        self._changed, self._strangers = threading.Condition(), threading.BoundedSemaphore(_STRANGERS)
        for s in listening:
            threading.Thread(target=self._accept, args=(s,), name="store", daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # it went away before it was accepted, or there are too many
                time.sleep(0.01)
                continue
            if self._strangers.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(connection,), name="store", daemon=True).start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _greet(connection, self._token, b"server", b"client")
            except OSError:
                return
            finally:
                self._strangers.release()
            with suppress(OSError, ValueError, KeyError, IndexError):
                while True:
                    _send(connection, self._answer(_receive(connection)))

    def _answer(self, request: list[bytes]) -> list[bytes]:
        verb, words = request[0], request[1:]
        with self._changed:
            if verb == b"wait":
                keys = [word.decode() for word in words]
                found = self._changed.wait_for(lambda: all(k in self._values for k in keys), _WAIT_SECONDS)
                return [b"1", *(self._values[k] for k in keys)] if found else [b""]
            if verb == b"read":  # what is there of many keys; an absent one differs from an empty one
                held = [self._values.get(word.decode()) for word in words]
                return [b"" if value is None else b"+" + value for value in held]
            if verb == b"count":
                return [str(len(self._values)).encode()]
            key = words[0].decode()
            if verb == b"set":
                self._values[key] = words[1]
            elif verb == b"add":
                self._values[key] = str(int(self._values.get(key, b"0")) + int(words[1])).encode()
            elif verb == b"append":
                self._values[key] = self._values.get(key, b"") + words[1]
            elif verb == b"compare":  # as TCPStore: an absent key is set where nothing is expected of it
                if self._values.get(key, b"") == words[1]:
                    self._values[key] = words[2]
                elif key not in self._values:
                    return [words[1]]
            elif verb == b"delete":
                return [b"1" if self._values.pop(key, None) is not None else b""]
            else:
                raise ValueError(verb)
            self._changed.notify_all()
            return [self._values[key]]


_kept: list["Client"] = []  # torch holds the C++ half of a store, which calls the Python half


class Client(Store):
    """A connection to a Server, for torch's process groups too.

    Args:
        connect: gives a new connection, which has proven itself.
        timeout_seconds: the longest wait for a key, and for an answer.
    """

    def __init__(self, connect: Callable[[], socket.socket], timeout_seconds: float) -> None:
        super().__init__()
        self._connect, self._seconds = connect, timeout_seconds
        self._lock, self._socket = threading.Lock(), connect()
        self._socket.settimeout(timeout_seconds)
        _kept.append(self)

    def _ask(self, *words: bytes) -> list[bytes]:
        with self._lock:
            try:
                _send(self._socket, words)
                return _receive(self._socket)
            except OSError as e:
                self._socket.close()  # an answer that comes late must not be taken for that of the next request
                raise dist.DistNetworkError(f"store: no connection ({e})") from None

    def _wait(self, keys: Sequence[str], seconds: float) -> list[bytes]:
        end = time.monotonic() + seconds
        while not (answer := self._ask(b"wait", *(k.encode() for k in keys)))[0]:
            if time.monotonic() > end:
                raise dist.DistStoreError(f"store: {', '.join(keys)} did not come within {seconds:.0f} s")
        return answer[1:]

    def set(self, key: str, value: str | bytes) -> None:
        self._ask(b"set", key.encode(), _bytes(value))

    def get(self, key: str) -> bytes:
        return self._wait([key], self._seconds)[0]

    def add(self, key: str, amount: int) -> int:
        return int(self._ask(b"add", key.encode(), str(amount).encode())[0])

    def append(self, key: str, value: str | bytes) -> None:
        self._ask(b"append", key.encode(), _bytes(value))

    def check(self, keys: Sequence[str]) -> bool:
        return all(self._ask(b"read", *(k.encode() for k in keys)))

    def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """What the store holds of these keys, in one request."""
        return [v[1:] if v else None for v in self._ask(b"read", *(k.encode() for k in keys))]

    def wait(self, keys: Sequence[str], timeout: datetime.timedelta | None = None) -> None:
        self._wait(keys, self._seconds if timeout is None else timeout.total_seconds())

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        return self._ask(b"compare", key.encode(), _bytes(expected), _bytes(desired))[0]

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        return self._wait(keys, self._seconds)

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.set(key, value)

    def has_extended_api(self) -> bool:
        return True

    def delete_key(self, key: str) -> bool:
        return bool(self._ask(b"delete", key.encode())[0])

    def num_keys(self) -> int:
        return int(self._ask(b"count")[0])

    def set_timeout(self, timeout: datetime.timedelta) -> None:
        self._seconds = timeout.total_seconds()

    def clone(self) -> "Client":
        return Client(self._connect, self._seconds)


def connect(addresses: Sequence[Address], token: bytes) -> socket.socket:
    """A connection to the first of these addresses at which a store knows the token.

    Raises:
        OSError: there is none.
    """
    problem: OSError | None = None
    for address in addresses:
        connection: socket.socket | None = None
        try:
            connection = socket.create_connection(address, timeout=2.0)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _greet(connection, token, b"client", b"server")
            return connection
        except OSError as e:
            if connection is not None:
                connection.close()
            problem = problem if isinstance(problem, Refused) else e
    raise problem or OSError("no address")


def _greet(connection: socket.socket, token: bytes, me: bytes, other: bytes) -> None:
    """Both sides prove that they know the token. Raises Refused where the other does not, OSError on silence."""
    end = time.monotonic() + _HELLO_SECONDS
    mine = secrets.token_bytes(_NONCE)
    port = str((connection.getpeername() if me == b"client" else connection.getsockname())[1]).encode()
    connection.settimeout(_HELLO_SECONDS)
    connection.sendall(mine)
    its = _exactly(connection, _NONCE, end)
    if me == b"client":  # it answers first, so that nobody learns a proof of the store's
        connection.sendall(_proof(token, me, port, its, mine))
    proof = _exactly(connection, hashlib.sha256().digest_size, end)
    if not hmac.compare_digest(proof, _proof(token, other, port, mine, its)):
        raise Refused("it does not know this job's token")
    if me != b"client":
        connection.sendall(_proof(token, me, port, its, mine))
    connection.settimeout(None)


def _proof(token: bytes, who: bytes, port: bytes, challenge: bytes, own: bytes) -> bytes:
    """With the port: who listens at another one cannot pass a proof on to the store."""
    return hmac.digest(token, b"\0".join((b"adarem store", who, port, challenge + own)), "sha256")


def _exactly(connection: socket.socket, size: int, end: float | None = None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if end is not None:  # one byte now and then would hold a stranger's place for ever
            connection.settimeout(max(0.001, end - time.monotonic()))
        part = connection.recv(size - len(data))
        if not part:
            raise Refused("it closed the connection")
        data += part
    return bytes(data)


def _send(connection: socket.socket, words: Sequence[bytes]) -> None:
    body = struct.pack(f"!{len(words) + 1}I", len(words), *map(len, words)) + b"".join(words)
    connection.sendall(struct.pack("!I", len(body)) + body)


def _receive(connection: socket.socket) -> list[bytes]:
    (size,) = struct.unpack("!I", _exactly(connection, 4))
    if not 4 <= size <= _LONGEST:
        raise Refused(f"a message of {size} bytes")
    body = _exactly(connection, size)
    (number,) = struct.unpack_from("!I", body)
    if 4 * (number + 1) > size:
        raise Refused("a message that is cut short")
    lengths, at, words = struct.unpack_from(f"!{number}I", body, 4), 4 * (number + 1), []
    for length in lengths:
        words.append(body[at : at + length])
        at += length
    return words


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
