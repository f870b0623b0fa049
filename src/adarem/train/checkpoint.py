"""Checkpoints: written off the training loop, complete or absent, and checked when read.

A file is named ``step-<step>-<sha256 of its bytes, 16 digits>.pt``: the checksum cannot be separated from the bytes.
"""

import hashlib
import io
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from adarem.run.directory import CHECKPOINT_NAME
from adarem.run.errors import UserError
from adarem.run.files import check_own_folder, open_file, read_file, write_atomically, writing
from adarem.train.state import CheckpointRecord, from_format_3

FORMAT = 4


class _File(NamedTuple):
    step: int
    digest: str
    path: Path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _files(folder: Path) -> list[_File]:
    """In order of step. Raises UserError where a link is in the place of their folder."""
    check_own_folder(folder)
    found = [(path, CHECKPOINT_NAME.fullmatch(path.name)) for path in folder.glob("step-*.pt")]
    return sorted(_File(int(match[1]), match[2], path) for path, match in found if match)


def _to_host(value: Any) -> Any:
    """A copy on the host, which later steps do not change."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {k: _to_host(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_host(v) for v in value)
    return value


def _write(folder: Path, step: int, record: Mapping[str, object], keep: int) -> None:
    buffer = io.BytesIO()
    torch.save(record, buffer)
    data = buffer.getvalue()
    check_own_folder(folder)
    with writing(folder):
        folder.mkdir(exist_ok=True)  # of a run that was removed meanwhile nothing is made anew
    write_atomically(folder / f"step-{step:09d}-{_digest(data)}.pt", data)
    for file in _files(folder):
        if file.step > step:  # from before an earlier checkpoint was chosen: the run's future differs from it
            file.path.unlink()
    for file in _files(folder)[:-keep]:
        file.path.unlink()


class CheckpointWriter:
    """Copies a record to the host at once, and writes it in a thread of its own: serialises, fsyncs, renames.

    Args:
        folder: of the checkpoints.
        keep: how many of the newest ones stay.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, record: CheckpointRecord) -> None:
        """Waits for the write before this one, never for this one.

        Raises:
            UserError: the write before failed (disk full, no permission).
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(step, _to_host({"format": FORMAT, **record})))
        self._thread.start()

    def _run(self, step: int, record: Mapping[str, object]) -> None:
        try:
            _write(self.folder, step, record, self.keep)
        except BaseException as e:
            self._error = e

    def wait(self) -> None:
        """Waits for the last write; raises its error once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


class Newest(NamedTuple):
    path: Path | None
    notes: list[str]  # one line for each file that is no intact checkpoint

    def texts(self) -> list[str]:
        """As ranks send it to each other."""
        return ["" if self.path is None else str(self.path), *self.notes]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Newest":
        return cls(Path(texts[0]) if texts[0] else None, list(texts[1:]))


def find_newest(folder: Path) -> Newest:
    """The newest intact checkpoint; others of that name are renamed."""
    notes: list[str] = []
    for _, digest, path in reversed(_files(folder)):
        if (problem := _problem(path)) is not None:
            wrong, aside = problem, path.with_suffix(".foreign")
        elif _digest(read_file(path, longest=sys.maxsize)) != digest:
            wrong, aside = "damaged (checksum differs)", path.with_suffix(".damaged")
        elif _read(path, mmap=True) is None:
            wrong, aside = "foreign (no checkpoint of adarem)", path.with_suffix(".foreign")
        else:
            return Newest(path, notes)
        path.replace(aside)
        notes.append(f"{path.name}: {wrong}, set aside as {aside.name}")
    return Newest(None, notes)


def _problem(path: Path) -> str | None:
    """Why a checkpoint is no file; None where it is one."""
    try:
        os.close(open_file(path))
    except UserError as e:
        return f"foreign ({str(e).removeprefix(f'{path}: ').partition(';')[0]})"
    return None


def _read(path: Path, *, mmap: bool = False) -> dict[str, object] | None:
    """A file's content, or None if it is no checkpoint. Nothing in it is executed."""
    try:
        with open(open_file(path), "rb") as f:
            given = f"/proc/self/fd/{f.fileno()}" if mmap else f
            record = torch.load(given, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, MemoryError, UserError):
        raise  # a fault of the disk or the machine, not of the file
    except Exception as e:  # whatever torch and pickle raise on other bytes
        if "memory" in str(e):
            raise
        return None
    return record if isinstance(record, dict) and "format" in record else None


def load(path: Path) -> CheckpointRecord:
    """The content of a checkpoint that ``find_newest`` found, on the CPU. Converts format 3.

    Raises:
        UserError: a checkpoint of another format, or no checkpoint.
    """
    record = _read(path)
    if record is None:
        raise UserError(f"{path}: no checkpoint of adarem; remove it, so that the one before it is used")
    found = record.pop("format")
    if found == 3:
        return from_format_3(record)
    if found != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {found}, this version reads 3 and {FORMAT}; "
            "finish the run with the version that wrote it, or remove its checkpoints"
        )
    return cast(CheckpointRecord, record)
