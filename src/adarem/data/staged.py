"""The new files of one split: under temporary names until all of them are complete, then in place of the old ones."""

import contextlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from adarem.data.ownership import replacing_mark
from adarem.run.files import Partial, open_partial, sync_folder, writing

REMEDY = "free some space, or set data.beton_dir"  # where one of the files cannot be written


def partial_files(folder: Path, stem: str) -> list[Path]:
    """Temporary files of everything whose name begins with ``stem``: being written, or left by a killed process."""
    name = re.compile(rf"\.{re.escape(stem)}\.(.*\.)?[0-9a-f]{{16}}\.partial")  # as open_partial makes it
    return sorted(p for p in folder.glob(f".{stem}.*.partial") if name.fullmatch(p.name) and not p.is_dir())


class Staged:
    """Files that appear together: ``commit`` puts them in place, ``close`` removes those that are not in place."""

    def __init__(self) -> None:
        self._files: dict[Path, Partial] = {}  # by final name, in the order of `open`

    def open(self, path: Path) -> BinaryIO:
        """A new file that `commit` renames to ``path``. The caller writes and syncs it.

        Raises:
            UserError: it cannot be made.
        """
        with writing(path, REMEDY):
            self._files[path] = open_partial(path)
        return self._files[path].file

    def write(self, path: Path, data: bytes) -> None:
        """Writes a complete file. Raises UserError when it cannot be written."""
        with writing(path, REMEDY), self.open(path) as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())

    def place(self, path: Path) -> Path:
        """The temporary name of the file that `commit` renames to ``path``."""
        return self._files[path].path

    def commit(self) -> None:
        """Puts every file in place.

        The last one opened is the one that readers look for: its old version is removed first, and the new one is put
        in place last, so that a process killed in between leaves nothing that is taken for complete.
        """
        last = list(self._files)[-1]
        mark = replacing_mark(last)
        with writing(last, REMEDY):
            mark.touch()
            last.unlink(missing_ok=True)
            for path in list(self._files):
                os.replace(self.place(path), path)
                del self._files[path]
            sync_folder(last.parent)
            mark.unlink(missing_ok=True)

    def close(self) -> None:
        """Removes the files that are not in place."""
        for partial in self._files.values():
            with contextlib.suppress(OSError):  # it flushes once more what a full disk refused
                partial.file.close()
            with contextlib.suppress(OSError):  # what cannot be removed, the next prepare removes
                partial.path.unlink(missing_ok=True)
        self._files.clear()
