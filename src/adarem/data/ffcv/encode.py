"""Decodes every image of a source once, on all cores, and encodes it as a .beton file stores it.

FFCV's own DatasetWriter hangs when a worker fails, leaves shared memory behind and lays samples out as its processes
happen to be scheduled. Here the workers only decode and encode (FFCV's operations, byte for byte: a test compares
them), and their results come back in the source's order. A dead worker is an exception, and there is no shared memory.
"""

import contextlib
import ctypes
import hashlib
import multiprocessing
import os
import signal
import warnings
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np

from adarem.data.ffcv import beton
from adarem.data.images.sampling import stored_size
from adarem.data.images.source import Source, Stored, decode_rgb
from adarem.run.config import WriteConfig
from adarem.run.errors import UserError

CHUNK = 16  # images of one task
AHEAD = 4  # tasks of one worker that are in flight


@dataclass(frozen=True)
class Encoded:
    """One image as it is stored; ``payload`` is empty where only the source is checked."""

    mode: int  # beton.RAW or beton.JPG
    height: int  # pixels as stored
    width: int
    source_digest: bytes  # SHA-256 of the source file
    payload: bytes = b""
    digest: bytes = b""  # SHA-256 of payload
    checksum: int = 0  # Adler-32 of payload
    problem: str = ""  # why the file cannot be read; then nothing else is set
    warning: str = ""  # what Pillow says of a file that it reads all the same


def jpeg_share(write: WriteConfig) -> float:
    """The share of images that is stored as JPEG; the others are stored raw."""
    return {"raw": 0.0, "jpg": 1.0, "proportion": write.compress_probability}[write.mode]


def encode(file: bytes, write: WriteConfig) -> Encoded:
    """Decodes one image file, scales it down to max_side and encodes it, raw or as JPEG.

    With mode "proportion" the file's own hash decides, so that the choice depends on nothing else.
    """
    import cv2

    source_digest = hashlib.sha256(file).digest()
    image = decode_rgb(file)
    height, width = stored_size(image.shape[0], image.shape[1], write.max_side)
    if (height, width) != image.shape[:2]:
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if int.from_bytes(source_digest[:8], "little") < jpeg_share(write) * 2.0**64:
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


def _unreadable(problem: str) -> Encoded:
    return Encoded(beton.RAW, 0, 0, b"", problem=problem)


def _encode_task(task: Sequence[Stored], write: WriteConfig | None) -> list[Encoded]:
    results = []
    for image in task:
        try:
            file = image.read()
        except OSError as e:
            results.append(_unreadable("no such file" if isinstance(e, FileNotFoundError) else e.strerror or str(e)))
            continue
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                encoded = _check_only(file) if write is None else encode(file, write)
            said = "; ".join(dict.fromkeys(" ".join(str(w.message).split()) for w in caught))
            results.append(replace(encoded, warning=said) if said else encoded)
        except Exception as e:  # whatever PIL raises
            results.append(_unreadable(f"{type(e).__name__}: {e}".splitlines()[0] if file else "empty file"))
    return results


def _work(tasks: Connection, parent: int, write: WriteConfig | None) -> None:
    """A worker process: answers every list of images, in order, until the parent closes the pipe."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the parent, however it dies
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    if write is not None:
        import cv2

        cv2.setNumThreads(0)
    with contextlib.suppress(EOFError, OSError):
        while True:
            tasks.send(_encode_task(tasks.recv(), write))


def encode_all(source: Source, write: WriteConfig | None, workers: int) -> Generator[Encoded, None, None]:
    """Every image of ``source`` in order; ``write=None`` decodes only. One worker is this process itself.

    Raises:
        UserError: a worker process died.
    """
    tasks = [source.images[i : i + CHUNK] for i in range(0, len(source), CHUNK)]
    if workers == 1:
        for task in tasks:
            yield from _encode_task(task, write)
        return
    # spawn, not fork: the caller may have threads (numba, torch), and a forked copy of their locks can hang. A pipe for
    # each worker, which only that worker writes to: when it dies in the middle of an answer, the pipe ends at once,
    # where a pool's shared queue would wait for the rest for ever.
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        for _ in range(min(workers, len(tasks))):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            processes.append(context.Process(target=_work, args=(theirs, os.getpid(), write), daemon=True))
            processes[-1].start()
            theirs.close()
        sent = 0
        for i in range(len(tasks)):
            try:
                while sent < min(len(tasks), i + AHEAD * len(pipes)):
                    pipes[sent % len(pipes)].send(tasks[sent])
                    sent += 1
                images: list[Encoded] = pipes[i % len(pipes)].recv()
            except (EOFError, OSError):
                raise UserError(
                    f"{source.place}: a worker process of prepare died (killed, or out of memory); "
                    "run `adarem prepare` again with fewer workers"
                ) from None
            yield from images
    finally:
        for pipe in pipes:
            pipe.close()
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.kill()
        for process in started:
            process.join()


def content_record(label: int, mode: int, height: int, width: int, digest: bytes) -> bytes:
    """What one sample adds to the fingerprint's content hash; ``digest`` is the SHA-256 of its stored bytes."""
    return f"{label} {mode} {height} {width} ".encode() + digest
