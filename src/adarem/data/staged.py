"""New files of a data set: under temporary names until all of them are whole, then in the old ones' place."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adarem.run.errors import UserError
from adarem.run.files import sync_folder


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk, or what else keeps ``path`` from being written, becomes one line."""
    try:
        yield
    except OSError as e:
        raise UserError(f"{path}: cannot be written ({e.strerror}); free some space, or set data.beton_dir") from None


def half_written(folder: Path, stem: str) -> list[Path]:
    """Temporary files of everything whose name begins with ``stem``: being written, or left by a killed process."""
    return sorted(p for p in folder.glob(f".{stem}.*.partial") if not p.is_dir())


class Staged:
    """Files that appear together: ``commit`` puts them in place, ``close`` removes those that are not."""

    def __init__(self) -> None:
        self._files: dict[Path, tuple[Path, BinaryIO]] = {}  # by final name, in the order of `open`

    def open(self, path: Path) -> BinaryIO:
        """A new file that `commit` will call ``path``. The caller writes and syncs it.

        Raises:
            UserError: it cannot be made.
        """
        half = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
        with writing(path):
            # O_EXCL: nothing that lies there already, a link neither, is written into or through.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._files[path] = half, os.fdopen(os.open(half, flags, 0o666), "wb")
        return self._files[path][1]

    def write(self, path: Path, data: bytes) -> None:
        """A whole file. Raises UserError when it cannot be written."""
        with writing(path), self.open(path) as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())

    def place(self, path: Path) -> Path:
        """Where the file lies that will be ``path``."""
        return self._files[path][0]

    def commit(self) -> None:
        """Puts every file in place. The last one opened vouches for the others: its old self goes first, and it comes
        last, so that a process killed in between leaves nothing that is taken for whole.
        """
        last = list(self._files)[-1]
        with writing(last):
            last.unlink(missing_ok=True)
            for path in list(self._files):
                os.replace(self.place(path), path)
                del self._files[path]
            sync_folder(last.parent)

    def close(self) -> None:
        for half, file in self._files.values():
            with contextlib.suppress(OSError):  # it flushes once more what a full disk refused
                file.close()
            with contextlib.suppress(OSError):  # what cannot be removed, the next prepare removes
                half.unlink(missing_ok=True)
        self._files.clear()
