"""Images inside tar and zip archives, read in place: an index of where each member lies, and one read for each image.

Nothing is unpacked, so no name of a member becomes a path; names that would lead out of a folder are refused all the
same, since such an archive is not what it claims to be. Python's tarfile and zipfile make the index; an image is then
read without them: zipfile would read a directory of two million names again in each worker process.
"""

import io
import os
import re
import shlex
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from adarem.data.images.source import Listing
from adarem.run.errors import UserError

_BLOCK = tarfile.BLOCKSIZE
_PADDING = 1 << 20  # bytes: more than any tar program writes behind the last member
_LOCAL = struct.Struct("<4s22x2H")  # a zip member's own header: signature, lengths of name and extra field
_CLASS_TAR = re.compile(r"n\d{8}\.tar")
_SIGNATURE = b"PK\3\4"
_ENCRYPTED = 1  # in a zip member's flags


class Span(NamedTuple):
    """An image that is a stretch of a file: a member of a tar, or of a tar inside it."""

    archive: str
    start: int  # bytes from the beginning of the file
    size: int  # bytes

    def read(self) -> bytes:
        return _read_at(self.archive, self.start, self.size)


class ZipMember(NamedTuple):
    """An image that is a member of a zip archive, stored or deflated."""

    archive: str
    header: int  # where the member's own header begins, bytes from the beginning of the file
    packed: int  # bytes in the archive
    size: int  # bytes
    method: int  # of compression
    crc: int  # CRC-32 of the image

    def read(self) -> bytes:
        signature, name, extra = _LOCAL.unpack(_read_at(self.archive, self.header, _LOCAL.size))
        if signature != _SIGNATURE:
            raise OSError(f"{self.archive} is damaged at byte {self.header}")
        stored = _read_at(self.archive, self.header + _LOCAL.size + name + extra, self.packed)
        if self.method == zipfile.ZIP_DEFLATED:
            try:  # no more than the size that the index has is unpacked
                stored = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, self.size + 1)
            except zlib.error as e:
                raise OSError(f"{self.archive} is damaged at byte {self.header} ({e})") from None
        if len(stored) != self.size or zlib.crc32(stored) != self.crc:
            raise OSError(f"checksum in {self.archive} differs")
        return stored


def _read_at(path: str, start: int, size: int) -> bytes:
    # Opened for each image, as an image of its own is: no handle goes to another process or outlives a replaced file.
    with open(path, "rb", buffering=0) as f:
        f.seek(start)
        data = f.read(size)
    if len(data) != size:
        raise OSError(f"{path} ends at byte {start + len(data)}")
    return data


class _Window(io.RawIOBase):
    """Some bytes of a file as a file of their own: a tar inside a tar."""

    def __init__(self, handle: int, start: int, size: int) -> None:
        self.handle, self.start, self.size, self.at = handle, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        return self.at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self.size - self.at)
        data = os.pread(self.handle, left if size < 0 else min(size, left), self.start + self.at)
        self.at += len(data)
        return data


class _TarMember(NamedTuple):
    parts: tuple[str, ...]  # of its name
    start: int  # of its bytes, from the beginning of the file
    size: int


def add_tar(listing: Listing, path: Path, split: str) -> None:
    """Adds what a tar holds: images, ``<class>/<image>`` or tars of classes, below folders named after it or not.

    Raises:
        UserError: it cannot be read, ends too early, is damaged, or holds what no set of images has.
    """
    with _opened(path) as f:
        size = os.fstat(f.fileno()).st_size
        if _is_compressed(f.fileno()):
            folder = shlex.quote(str(path.parent / split))
            unpack = f"mkdir -p {folder} && tar -xf {shlex.quote(str(path))} -C {folder}"
            raise UserError(f"{path}: compressed, and images are read in place; unpack it: `{unpack}`")
        for member in _tar_members(f.fileno(), 0, size, path):
            parts = member.parts
            while len(parts) > 1 and parts[0] in (split, path.stem):
                parts = parts[1:]
            if len(parts) == 1 and parts[0].endswith(".tar") and not parts[0].startswith("."):
                _add_class_tar(listing, f.fileno(), member, path, path / parts[0])
            else:
                listing.add_path(parts, member.size, Span(str(path), member.start, member.size))


def add_class_tars(listing: Listing) -> None:
    """Adds the images of each ``<wnid>.tar`` next to the classes: ImageNet's training set, unpacked once.

    A class may be there as a folder and as a tar, where unpacking was interrupted: the tar adds what the folder lacks.

    Raises:
        UserError: as of `add_tar`.
    """
    for name in [name for name in listing.no_images if _CLASS_TAR.fullmatch(name)]:
        path = listing.place / name
        unpacked = dict(listing.classes.get(name.removesuffix(".tar"), {}))
        with _opened(path) as f:
            size = os.fstat(f.fileno()).st_size
            _add_class_tar(listing, f.fileno(), _TarMember((name,), 0, size), path, path)
        listing.classes[name.removesuffix(".tar")] |= unpacked
        del listing.no_images[name]


def _add_class_tar(listing: Listing, handle: int, tar: _TarMember, file: Path, shown: Path) -> None:
    name = tar.parts[-1].removesuffix(".tar")
    if not listing.add_folder(name):
        return
    for member in _tar_members(handle, tar.start, tar.size, shown):
        parts = member.parts[1:] if len(member.parts) > 1 and member.parts[0] == name else member.parts
        listing.add_path((name, *parts), member.size, Span(str(file), member.start, member.size))


def _opened(path: Path) -> io.FileIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}); fix that and start again") from None


def _is_compressed(handle: int) -> bool:
    return os.pread(handle, 2, 0) in (b"\x1f\x8b", b"BZ", b"\xfd7")  # gzip, bzip2, xz


def _tar_members(handle: int, start: int, size: int, shown: Path) -> Iterator[_TarMember]:
    """The files of a tar that is ``size`` bytes of a file from ``start`` on."""
    at = 0
    try:
        with tarfile.TarFile(fileobj=_Window(handle, start, size)) as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # a kilobyte each, and typeshed has no such name
                parts = _parts(info.name, shown)
                if info.isreg() and not info.issparse():
                    if parts:
                        yield _TarMember(parts, start + info.offset_data, info.size)
                elif not info.isdir():
                    kind = "a link" if info.islnk() or info.issym() else "no plain file"
                    raise UserError(f"{shown}: its member {info.name} is {kind}; no image archive has such; {_AGAIN}")
            at = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as e:  # of numbers, and headers of headers
        if isinstance(e, UserError):
            raise
        raise UserError(f"{shown}: ends too early or is damaged ({e}); {_AGAIN}") from None
    # tarfile takes a damaged header, and zeros that an interrupted download left, for the end.
    if os.pread(handle, min(_BLOCK, size - at), start + at) != bytes(_BLOCK):
        what = "ends too early" if size - at < _BLOCK else "is damaged"
        raise UserError(f"{shown}: {what} at byte {at:,}; {_AGAIN}")
    rest = size - at
    if rest > _PADDING or any(os.pread(handle, rest, start + at)):
        raise UserError(f"{shown}: its last {rest:,} bytes are no part of it: an interrupted download; {_AGAIN}")


_AGAIN = "get it again"


def _parts(name: str, shown: Path) -> tuple[str, ...]:
    parts = tuple(p for p in name.split("/") if p not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise UserError(f"{shown}: its member {name!r} leads out of a folder; no image archive has such; {_AGAIN}")
    return parts


def unzip(path: Path) -> str:
    """What to do where an archive is of no use as it is."""
    return f"unpack it: `unzip {shlex.quote(str(path))} -d {shlex.quote(str(path.parent))}`"


def open_zip(path: Path) -> zipfile.ZipFile:
    """Reads the directory of a zip archive.

    Raises:
        UserError: it cannot be read: truncated, or no zip archive.
    """
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as e:
        raise UserError(f"{path}: ends too early or is no zip archive ({e}); {_AGAIN}") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror or e}); fix that and start again") from None


def add_zip(listing: Listing, archive: zipfile.ZipFile, folder: str) -> None:
    """Adds what a folder of a zip archive holds, ``folder`` ending in "/".

    Raises:
        UserError: a member is encrypted, a link, compressed in a way that is not read, or has a name that leads out.
    """
    path = Path(str(archive.filename))
    end = path.stat().st_size
    for info in archive.infolist():
        name = info.filename.removeprefix("./")
        if not name.startswith(folder) or info.is_dir():
            continue
        parts = _parts(name.removeprefix(folder), path)
        if info.external_attr >> 16 & 0o170000 == 0o120000:
            raise UserError(f"{path}: its member {name} is a link; no image archive has such; {_AGAIN}")
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UserError(f"{path}: {name} is encrypted or compressed in a rare way; {unzip(path)}")
        if not 0 <= info.header_offset <= end - info.compress_size:
            raise UserError(f"{path}: {name} lies behind its end; {_AGAIN}")
        image = ZipMember(
            str(path), info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC
        )
        if parts:
            listing.add_path(parts, info.file_size, image)
