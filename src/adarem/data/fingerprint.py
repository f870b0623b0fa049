"""The fingerprint of a prepared split: what was read, what was written, with what; one JSON file."""

import importlib.metadata
import json
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from adarem.data.ffcv import beton
from adarem.run.config import DataConfig
from adarem.run.errors import UserError
from adarem.run.files import decoded
from adarem.run.text import typed

SPLITS = ("train", "val")
FORMAT = 1  # of the JSON; raise when the meaning of a key changes


class _OfEverySplit(TypedDict):
    split: str  # train or val
    backend: str
    num_images: int
    num_classes: int
    class_hash: str  # of the class names in the order of their labels
    listing_hash: str  # of the source files' names and sizes
    source_hash: str  # of the source files' bytes
    content_hash: str  # of what a loader reads: labels, order, storage mode, stored bytes
    versions: dict[str, str]  # of the libraries that decide stored pixels


class Fingerprint(_OfEverySplit, total=False):
    """What `prepare` records of one split; it does not depend on the number of processes."""

    classes: list[str]  # in the order of their labels
    skipped: list[str]  # source files left out because they cannot be read
    complete_listing_hash: str  # listing_hash with those; where there are any
    split_by: dict[str, object]  # val_share and split_seed, where train and val are parts of one folder
    # of a .beton file only
    write: dict[str, object]  # the settings data.write
    file_bytes: int
    index_crc32: int  # of the arrays of beton.Index
    sums_crc32: int  # of the checksums in <split>.beton.sums
    jpeg_images: int
    image_bytes: int


def splits_read(data: DataConfig) -> tuple[str, ...]:
    """The prepared splits that a run opens: with a holdout train alone, which it is evaluated on a part of."""
    return SPLITS if data.holdout is None else SPLITS[:1]


def beton_path(data: DataConfig, split: str) -> Path:
    return Path(data.beton_dir) / f"{split}.beton"


def fingerprint_path(data: DataConfig, split: str) -> Path:
    return Path(data.beton_dir) / f"{split}.{'beton' if data.backend == 'ffcv' else 'folder'}.json"


def files_path(data: DataConfig, split: str) -> Path:
    """The text file with one source file's name a line, in order of sample index."""
    return fingerprint_path(data, split).with_suffix(".files")


def checksums_path(data: DataConfig, split: str) -> Path:
    """The Adler-32 of each stored sample, little-endian uint32, in order of sample index."""
    return fingerprint_path(data, split).with_suffix(".sums")


def bad_path(data: DataConfig, split: str) -> Path:
    """The list of source files that cannot be read, when there are any."""
    return Path(data.beton_dir) / f"{split}.bad.txt"


def prepare_command(data: DataConfig) -> str:
    """What to type for these data; a config's further settings of data.* come on top."""
    said: dict[str, object] = {"data.root": os.path.abspath(data.root)}
    if data.listing is not None:
        said["data.name"] = data.name
    elif os.path.abspath(data.beton_dir) != os.path.join(os.path.abspath(data.root), "ffcv"):
        said["data.beton_dir"] = os.path.abspath(data.beton_dir)
    if data.backend != "ffcv":
        said["data.backend"] = data.backend
    if data.val_share is not None:
        said |= {"data.val_share": data.val_share, "data.split_seed": data.split_seed}
    group = data.name if data.listing is None else "folder"
    return " ".join([f"adarem prepare data={group}", *(typed(key, value) for key, value in said.items())])


def read_fingerprint(data: DataConfig, split: str) -> Fingerprint:
    """The fingerprint that `prepare` wrote for ``split`` (train or val) and data.backend.

    Raises:
        UserError: missing, damaged or of another format.
    """
    path = fingerprint_path(data, split)
    try:
        found: object = json.loads(decoded(path, path.read_bytes()))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `{prepare_command(data)}` writes it") from None
    except json.JSONDecodeError:
        raise UserError(f"{path}: not readable as JSON; move it away and run `adarem prepare` again") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{path}: not a fingerprint of format {FORMAT}; run `adarem prepare` again")
    return cast(Fingerprint, found)


def text(record: Fingerprint) -> str:
    """What the fingerprint's file holds."""
    return json.dumps({"format": FORMAT, **record}, indent=1) + "\n"


def versions() -> dict[str, str]:
    """Of the libraries that decide stored pixels."""
    found = {}
    for name in ("ffcv", "numpy", "opencv-python", "opencv-python-headless", "pillow"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class PreparedBeton:
    """What a loader knows of a .beton before it reads a sample."""

    index: beton.Index
    checksums: NDArray[np.uint32]  # [n], Adler-32 of each sample's stored bytes


def open_beton(data: DataConfig, split: str) -> PreparedBeton:
    """Opens a .beton and compares it with its fingerprint. Milliseconds; see beton.open_index.

    Raises:
        UserError: either is missing or damaged, or they do not belong together.
    """
    path = beton_path(data, split)
    if not path.exists():
        beton.open_index(path)  # raises, and names a temporary file that is there instead
    found = read_fingerprint(data, split)
    index = beton.open_index(path, data.num_classes, found["num_images"])
    if index.file_bytes != found["file_bytes"] or index_crc32(index) != found["index_crc32"]:
        raise UserError(f"{path}: not the file that {path.name}.json describes; run `{prepare_command(data)}` again")
    place = checksums_path(data, split)
    checksums = np.fromfile(place, "<u4") if place.exists() else np.zeros(0, "<u4")
    if len(checksums) != len(index) or zlib.crc32(checksums.data) != found["sums_crc32"]:
        raise UserError(f"{place}: missing or damaged; run `{prepare_command(data)}` again for {path}")
    return PreparedBeton(index, checksums)


def index_crc32(index: beton.Index) -> int:
    """CRC-32 of all arrays of an index."""
    crc = 0
    for array in (index.starts, index.sizes, index.heights, index.widths, index.is_raw, index.labels):
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc
