"""Checkpoints that are whole or absent, checked when read, and written off the training loop.

A file is named ``step-<step>-<sha256 of its bytes, 16 digits>.pt``: the checksum cannot be separated from the bytes.
"""

import hashlib
import io
import re
import threading
from pathlib import Path
from typing import Any

import torch

from adarem.run.errors import UserError
from adarem.run.files import write_atomically

_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")
FORMAT = 3


def _files(folder: Path) -> list[tuple[int, str, Path]]:
    found = []
    for path in folder.glob("step-*.pt"):
        if match := _NAME.fullmatch(path.name):
            found.append((int(match[1]), match[2], path))
    return sorted(found)


def _to_host(value: Any) -> Any:
    """A copy on the host that later steps can't change."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {k: _to_host(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_host(v) for v in value)
    return value


def _write(folder: Path, step: int, state: dict[str, Any], keep: int) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    write_atomically(folder / f"step-{step:09d}-{hashlib.sha256(data).hexdigest()[:16]}.pt", data)
    newer = [(s, d, p) for s, d, p in _files(folder) if s > step]
    for (
        _,
        _,
        path,
    ) in newer:  # left over from before an earlier restore point was chosen; they are not this run's future
        path.unlink()
    for _, _, path in _files(folder)[:-keep]:
        path.unlink()


class CheckpointWriter:
    """Copies the state to the host when asked, then serialises, fsyncs and renames in a thread of its own."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Waits for the write before this one, never for this one.

        Raises:
            UserError: the write before failed (disk full, no permission).
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(step, _to_host({"format": FORMAT, **state})))
        self._thread.start()

    def _run(self, step: int, state: dict[str, Any]) -> None:
        try:
            _write(self.folder, step, state, self.keep)
        except BaseException as e:
            self._error = e

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def find_newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, or None; and a line for each file that is none, which is renamed out of the way."""
    notes = []
    for _, digest, path in reversed(_files(folder)):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:16] != digest:
            wrong, aside = "damaged (checksum differs)", path.with_suffix(".damaged")
        elif _read(path, mmap=True) is None:
            wrong, aside = "foreign (no checkpoint of adarem)", path.with_suffix(".foreign")
        else:
            return path, notes
        path.replace(aside)
        notes.append(f"{path.name}: {wrong}, set aside as {aside.name}")
    return None, notes


def _read(path: Path, *, mmap: bool = False) -> dict[str, Any] | None:
    """What a file holds, or None if that is no checkpoint. Nothing in it is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, MemoryError):
        raise  # of the place, not of the file
    except Exception as e:  # whatever torch and pickle raise on bytes that are not theirs
        if "memory" in str(e):
            raise
        return None
    return state if isinstance(state, dict) and "format" in state else None


def load(path: Path) -> dict[str, Any]:
    """The state of a checkpoint that ``find_newest`` found, on the CPU.

    Raises:
        UserError: written by a version of another format, or no checkpoint at all.
    """
    state = _read(path)
    if state is None:
        raise UserError(f"{path}: no checkpoint of adarem; remove it, so that the one before it is used")
    if state["format"] != FORMAT:
        raise UserError(
            f"{path}: checkpoint format {state['format']}, this version reads {FORMAT}; "
            "finish the run with the version that wrote it, or remove its checkpoints"
        )
    return state
