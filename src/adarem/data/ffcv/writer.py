"""Reads every image of a source once, on all cores, and writes it into a .beton on the way.

FFCV's own DatasetWriter hangs when a worker fails, leaves shared memory behind and lays samples out as its processes
happen to be scheduled. Here workers only decode and encode (FFCV's operations, byte for byte: a test compares them);
one process writes their results in order. So the bytes of the file depend on source and settings alone, a dead worker
is an exception, and there is no shared memory.
"""

import contextlib
import ctypes
import hashlib
import multiprocessing
import os
import signal
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from adarem.data.ffcv import beton
from adarem.data.images.sampling import stored_size
from adarem.data.images.source import Source, decode_rgb
from adarem.data.staged import Staged, writing
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError

CHUNK = 16  # images a task
AHEAD = 4  # tasks in flight a worker


@dataclass(frozen=True)
class Encoded:
    """One image as it is stored; ``payload`` is empty where only the source is checked."""

    mode: int
    height: int
    width: int
    source_digest: bytes
    payload: bytes = b""
    digest: bytes = b""  # SHA-256 of payload
    sum: int = 0  # Adler-32 of payload
    problem: str = ""  # why the file cannot be read; nothing else is set then


def encode(file: bytes, write: WriteConfig) -> Encoded:
    """Decodes one image file, scales it down to max_side and stores it raw or as JPEG.

    With mode "proportion" the file's own hash decides, so that the choice depends on nothing else.
    """
    import cv2

    source_digest = hashlib.sha256(file).digest()
    image = decode_rgb(file)
    height, width = stored_size(*image.shape[:2], write.max_side)
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    share = {"raw": 0.0, "jpg": 1.0, "proportion": write.compress_probability}[write.mode]
    if int.from_bytes(source_digest[:8], "little") < share * 2.0**64:
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        done, coded = cv2.imencode(".jpg", bgr, [int(cv2.IMWRITE_JPEG_QUALITY), write.jpeg_quality])
        assert done
        mode, payload = beton.JPG, coded.tobytes()
    else:
        mode, payload = beton.RAW, image.tobytes()
    return Encoded(mode, height, width, source_digest, payload, hashlib.sha256(payload).digest(), zlib.adler32(payload))


def _check_only(file: bytes) -> Encoded:
    image = decode_rgb(file)
    return Encoded(beton.RAW, image.shape[0], image.shape[1], hashlib.sha256(file).digest())


def _work(paths: list[str], write: WriteConfig | None) -> list[Encoded]:
    results = []
    for path in paths:
        try:
            with open(path, "rb") as f:
                file = f.read()
        except OSError as e:
            why = "no such file" if isinstance(e, FileNotFoundError) else e.strerror
            results.append(Encoded(0, 0, 0, b"", problem=why))
            continue
        try:
            results.append(_check_only(file) if write is None else encode(file, write))
        except Exception as e:
            why = f"{type(e).__name__}: {e}".splitlines()[0] if file else "empty file"
            results.append(Encoded(0, 0, 0, b"", problem=why))
    return results


def _serve(tasks: Connection, parent: int, write: WriteConfig | None) -> None:
    """A worker process: answers every list of paths with its images, in order, until the parent closes the pipe."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the parent, however it dies
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    import cv2

    cv2.setNumThreads(0)
    with contextlib.suppress(EOFError, OSError):
        while True:
            tasks.send(_work(tasks.recv(), write))


def encode_all(source: Source, write: WriteConfig | None, workers: int) -> Iterator[Encoded]:
    """Every image of ``source`` in order; ``write=None`` decodes only. One worker is this process itself.

    Raises:
        UserError: a worker process died.
    """
    paths = [os.path.join(source.folder, name) for name in source.files]
    tasks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    if workers == 1:
        for task in tasks:
            yield from _work(task, write)
        return
    # spawn, not fork: the caller may have threads (numba, torch), and a forked copy of their locks can hang. A pipe a
    # worker, which only that worker writes to: one that dies in the middle of an answer is an end of file at once,
    # where a pool's shared queue would wait for the rest for ever.
    context = multiprocessing.get_context("spawn")
    crew: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []
    try:
        for _ in range(min(workers, len(tasks))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, os.getpid(), write), daemon=True)
            process.start()
            theirs.close()
            crew.append((process, ours))
        sent = 0
        for i in range(len(tasks)):
            try:
                while sent < min(len(tasks), i + AHEAD * len(crew)):
                    crew[sent % len(crew)][1].send(tasks[sent])
                    sent += 1
                images = crew[i % len(crew)][1].recv()
            except (EOFError, OSError):
                raise UserError(
                    f"{source.folder}: a worker process of prepare died (killed, or out of memory); "
                    "run `adarem prepare` again with fewer workers"
                ) from None
            yield from images
    finally:
        for process, ours in crew:
            ours.close()
            process.kill()
        for process, _ in crew:
            process.join()


class BetonFile:
    """Writes a .beton sample by sample into ``staged``; whole after `finish`, in its place once that is committed.

    Raises:
        UserError: a full disk, in any of its methods.
    """

    def __init__(self, staged: Staged, path: Path, num_samples: int, max_side: int):
        self.path = path
        largest = 3 * max_side * max_side
        self.page_size = max(4 * beton.MIN_PAGE_SIZE, 1 << (largest - 1).bit_length())
        if self.page_size > 1 << 31:
            raise UserError(f"data.write.max_side={max_side}: too large for a .beton; use at most 16384")
        self.metadata = np.zeros(num_samples, beton.METADATA)
        self.allocation = np.zeros(num_samples, beton.ALLOCATION)
        self.sums = np.zeros(num_samples, "<u4")
        self.position = beton.data_start(num_samples, self.page_size)
        self.count = 0
        self.file = staged.open(path)
        self.file.seek(self.position)

    def append(self, image: Encoded, label: int) -> None:
        size = len(image.payload)
        if size > self.page_size:  # a JPEG of noise can exceed its raw pixels
            raise UserError(f"{self.path}: sample {self.count} takes {size} bytes, more than a page; use mode raw")
        left = self.page_size - self.position % self.page_size
        with writing(self.path):
            if size > left:
                self.position += left
                self.file.seek(self.position)
            self.file.write(image.payload)
        self.metadata[self.count] = ((image.mode, image.width, image.height, self.position), label)
        self.allocation[self.count] = (self.count, self.position, size)
        self.sums[self.count] = image.sum
        self.position += size
        self.count += 1

    def finish(self) -> None:
        assert self.count == len(self.metadata)
        table = -(-self.position // self.page_size) * self.page_size
        header = np.array([(beton.VERSION, len(beton.FIELDS), self.page_size, self.count, table)], beton.HEADER)
        with writing(self.path), self.file:
            self.file.seek(table)
            self.file.write(self.allocation.tobytes())
            self.file.seek(beton.HEADER.itemsize)
            self.file.write(beton.field_table().tobytes() + self.metadata.tobytes())
            self._sync()
            self.file.seek(0)
            self.file.write(header.tobytes())  # last: the pointer in it says that all else is there
            self._sync()

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


def content_record(label: int, image: Encoded) -> bytes:
    """What one sample adds to the content hash."""
    return f"{label} {image.mode} {image.height} {image.width} ".encode() + image.digest
