"""Which files in a folder `adarem prepare` wrote. Nothing else is removed or replaced, whatever its name looks like."""

import json
import os
import re
from pathlib import Path

from adarem.data import fingerprint
from adarem.run.config import DataConfig
from adarem.run.errors import UserError

_BAD_LINE = re.compile(r"[^/]+/.+ \(.+\)")  # of <split>.bad.txt: class/file (why)


def check_own(data: DataConfig, split: str) -> None:
    """Lets `prepare` replace the files of a split only where it wrote them.

    Raises:
        UserError: a file under one of their names that no fingerprint of `prepare` describes.
    """
    record, mark = fingerprint.fingerprint_path(data, split), replacing_mark(fingerprint.fingerprint_path(data, split))
    if _is_fingerprint(record, split):
        mark.unlink(missing_ok=True)  # left by a process killed after its last rename
    elif not mark.exists():
        places = [record, fingerprint.files_path(data, split)]
        if data.backend == "ffcv":
            places += [fingerprint.beton_path(data, split), fingerprint.checksums_path(data, split)]
        for path in places:
            if os.path.lexists(path):
                raise _foreign(path, f"no {record.name} of `adarem prepare` describes it")
    bad = fingerprint.bad_path(data, split)
    if os.path.lexists(bad) and not _is_bad_listing(bad):
        raise _foreign(bad, "it is no list of images that cannot be read")


def replacing_mark(last: Path) -> Path:
    """A file that lies there while files of `prepare` are replaced, ``last`` being the fingerprint that describes them.

    A process killed in between leaves files without a fingerprint; this says that they are its own all the same.
    """
    return last.with_name(f".{last.name}.replacing")


def check_same(path: Path, ours: bytes, what: str) -> None:
    """Raises UserError unless ``path`` is a plain file with exactly these bytes, ``what`` in words."""
    try:
        same = not path.is_symlink() and path.is_file() and path.read_bytes() == ours
    except OSError:
        same = False
    if not same:
        raise UserError(f"{path}: not {what}, and not overwritten; choose another data.root")


def _is_fingerprint(path: Path, split: str) -> bool:
    """Of any format, as long as it can be read."""
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and isinstance(found.get("format"), int) and found.get("split") == split


def _is_bad_listing(path: Path) -> bool:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    return not path.is_symlink() and bool(lines) and all(map(_BAD_LINE.fullmatch, lines))


def _foreign(path: Path, why: str) -> UserError:
    return UserError(f"{path}: not written by `adarem prepare` ({why}); choose another data.beton_dir")
