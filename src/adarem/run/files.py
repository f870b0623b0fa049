"""Files that are complete or absent, and lines that are complete or known to be broken; YAML, JSON and JSON lines.

A file of a run or a sweep may have been put there by somebody else. It is opened here only: a link, pipe, device or
folder in its place is a UserError that names it, and so is a file larger than any that this program writes.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import yaml

from adarem.run.errors import UserError

# A disk, mount or network with a transient fault answers so: another try, or another node, may succeed.
TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO)


@contextlib.contextmanager
def writing(path: Path, remedy: str = "fix that and start again") -> Iterator[None]:
    """A full disk, a read-only one or a missing permission becomes a UserError; a transient fault a retryable one."""
    try:
        yield
    except OSError as e:
        line = f"{path}: cannot be written ({e.strerror}); {remedy}"
        raise UserError(line, retryable=e.errno in TRANSIENT) from None


# Of one file that is read as a whole. ImageNet's 100 epochs take 50 kB in metrics.jsonl, steps.jsonl is bounded.
_LONGEST = 1 << 30
_MOST_VALUES = 1_000_000
_LONGEST_MAPPING = 1 << 26  # YAML and JSON take a hundred times their size in memory


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a file that is one; with O_CREAT it is made where there is none.

    Raises:
        UserError: a link, pipe, device or folder is there.
        OSError: it cannot be opened.
    """
    with contextlib.suppress(FileNotFoundError):
        _check_is_file(path, os.lstat(path))  # before it is opened: opening a device may do something
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENXIO):  # it was put there this instant
            _check_is_file(path, os.lstat(path))
        raise
    try:
        _check_is_file(path, os.fstat(descriptor))
    except UserError:
        os.close(descriptor)
        raise
    return descriptor


def _check_is_file(path: Path, status: os.stat_result) -> None:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise UserError(f"{path}: {kinds.get(kind, 'a device')} and no file; remove it, or put the file itself there")


def check_own_folder(path: Path) -> None:
    """Raises UserError where a link, or anything else that is no folder, is in the place of a run's folder."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise UserError(f"{path}: a link or a file and no folder; remove it, or put the folder itself there")


def read_file(path: Path, longest: int = _LONGEST) -> bytes:
    """All bytes of a file. Raises as ``open_file``, and UserError for one that is too large."""
    with open(open_file(path), "rb") as f:
        if (size := os.fstat(f.fileno()).st_size) > longest:
            raise UserError(f"{path}: {size:,} bytes, and no file of a run has more than {longest:,}; remove it")
        return f.read(size)  # what is appended from here on is not read


class Partial(NamedTuple):
    """A file under a temporary name, before it is renamed."""

    path: Path
    file: BinaryIO


def open_partial(path: Path) -> Partial:
    """Makes a new, empty file next to ``path``, of which it is to take the name.

    Raises:
        OSError: the folder is missing or cannot be written to.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    # O_EXCL: nothing that lies there already, a link neither, is written into or through; the kernel applies the umask.
    return Partial(partial, os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb"))


def write_atomically(path: Path, data: str | bytes) -> None:
    """Writes a file so that it is complete or absent, and survives a power cut once this returns.

    Raises:
        UserError: it cannot be written: disk full or read-only, no permission.
    """
    try:
        payload = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as e:  # of a name of a file or folder
        raise UserError(f"{path}: {e.object[:200]!r} is not UTF-8; rename what has that name") from None
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = open_partial(path)
        try:
            with partial.file as f:
                f.write(payload)
                f.flush()
                os.fsync(f.fileno())
            os.replace(partial.path, path)
        except BaseException:
            partial.path.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power cut, where its file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can
            os.fsync(handle)
    finally:
        os.close(handle)


class Lines(NamedTuple):
    """What a file of JSON lines holds."""

    records: list[dict[str, object]]
    damaged: int  # lines that are no JSON object


def append_line(path: Path, record: Mapping[str, object], *, durable: bool = True) -> None:
    """One write call for one line; a line cut short by a crash is ended first, so that it spoils only itself.

    Args:
        durable: the line survives a power cut once this returns; False leaves that to ``make_durable``.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    with writing(path), open(open_file(path, flags), "ab+", buffering=0) as f:
        if f.seek(0, os.SEEK_END) > 0:
            f.seek(-1, os.SEEK_END)
            if f.read(1) != b"\n":
                line = "\n" + line
        data = line.encode()
        if f.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(f.fileno())


def make_durable(path: Path) -> None:
    """Brings what was written to a file to the disk; nothing where there is no such file."""
    with writing(path), contextlib.suppress(FileNotFoundError), open(open_file(path), "rb") as f:
        os.fsync(f.fileno())


def read_lines(path: Path, at_most: int | None = None) -> Lines:
    """The records of a jsonl file; none where there is no such file.

    Args:
        at_most: of a longer file every 2nd, 4th, 8th ... line, so many that these are not more. Others are not parsed.
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        return Lines([], 0)
    lines = [line for line in data.split(b"\n") if line.strip()]
    every = 1
    while at_most is not None and len(lines) // every > at_most:
        every *= 2
    return _parsed([line.decode(errors="replace") for line in lines[every - 1 :: every]])


class NewLines(NamedTuple):
    """Complete lines of a growing file from some place on."""

    records: list[dict[str, object]]  # damaged lines are left out
    end: int  # where the next reading begins, in bytes


def read_new_lines(path: Path, begin: int) -> NewLines:
    """The records that were appended behind the first ``begin`` bytes; none where there is no such file."""
    try:
        with open(open_file(path), "rb") as f:
            f.seek(begin)
            complete, newline, _ = f.read(_LONGEST).rpartition(b"\n")
    except FileNotFoundError:
        return NewLines([], begin)
    lines = [line.decode(errors="replace") for line in complete.split(b"\n") if line.strip()]
    return NewLines(_parsed(lines).records, begin + len(complete) + len(newline))


def _parsed(lines: Sequence[str]) -> Lines:
    records: list[dict[str, object]] = []
    damaged = 0
    try:  # all lines at once are several times faster; a damaged file is read line by line
        parsed = json.loads(f"[{','.join(lines)}]")
        if len(parsed) == len(lines) and all(isinstance(r, dict) for r in parsed):
            return Lines(parsed, 0)
    except (ValueError, RecursionError):
        pass
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # numbers of too many digits, too many brackets
            damaged += 1
            continue
        if isinstance(record, dict):
            records.append(record)
        else:
            damaged += 1
    return Lines(records, damaged)


def decoded(path: Path, data: bytes) -> str:
    """The text of a file: UTF-8, after a byte order mark if it has one.

    Raises:
        UserError: another encoding; with its line. Its content may be right: the message does not advise to remove it.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        at = f"{path}, line {data.count(bytes([10]), 0, e.start) + 1}"
        raise UserError(f"{at}: byte 0x{data[e.start]:02x} is not UTF-8; save it as UTF-8, or restore it") from None


def read_json(path: Path) -> dict[str, object] | None:
    """The object that a JSON file holds; None where there is no such file. Raises UserError for a damaged one."""
    try:
        value = json.loads(decoded(path, read_file(path, _LONGEST_MAPPING)))
    except FileNotFoundError:
        return None
    except UserError:
        raise
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not readable as JSON ({e}); move it away to have it made again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no JSON object; move it away to have it made again")
    return value


# libyaml where PyYAML has it: ten times faster, which `adarem status` and the report feel.
SAFE_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# A value within _DEEPEST others takes as many brackets, or as many signs or spaces on one line.
_DEEPEST = 64
_MAY_BE_DEEP = re.compile(rb"(?:[-?:][ \t]+){4}|^[ ?:-]{%d}" % _DEEPEST, re.MULTILINE)


def _check_depth(data: bytes) -> None:
    """Raises ValueError for values in values without end: libyaml recurses until the process crashes."""
    depth = 0
    for event in yaml.parse(data, Loader=SAFE_YAML):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError("too deep")


def _size(value: object) -> int:
    """Of a nested value: how many it consists of; not much more than _MOST_VALUES is counted."""
    waiting, found = [value], 0
    while waiting and found <= _MOST_VALUES:
        value = waiting.pop()
        found += 1
        if isinstance(value, Mapping | list):
            waiting += value.values() if isinstance(value, Mapping) else value
    return found


def read_yaml(path: Path, remedy: str, *, absent: str | None = None) -> dict[str, object]:
    """The mapping that a YAML file holds.

    Args:
        remedy: what to do about a damaged file, which ends the message.
        absent: the complete message where there is no such file.

    Raises:
        UserError: the file is absent, cannot be read, is not UTF-8, no YAML or no mapping.
    """
    try:
        data = read_file(path, _LONGEST_MAPPING)
        if _MAY_BE_DEEP.search(data) or data.count(b"[") + data.count(b"{") > _DEEPEST:
            _check_depth(data)
        value = yaml.load(decoded(path, data), Loader=SAFE_YAML)
        if b"&" in data and _size(value) > _MOST_VALUES:  # a few lines of references to references are billions
            raise ValueError("too large")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(absent or f"{path}: no such file; {remedy}") from None
    except UserError:
        raise
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); fix that, or {remedy}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as e:  # keys that are lists, brackets without end
        mark = getattr(e, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: not valid YAML{where}; {remedy}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds no mapping; {remedy}")
    return value
