"""The .beton file format (FFCV 1.0.2, version 2): its structures, and a check that a file is complete.

Layout: header | field table | metadata, one record a sample | padding to a page | data pages, no sample across a page
boundary | allocation table, one record a sample. The header's pointer to the allocation table is written last and so
marks a finished file. numpy only: a file is checked before torch, numba or ffcv are imported. The tests compare these
structures with ffcv.types.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adarem.data.staged import partial_files
from adarem.run.errors import UserError

VERSION = 2
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ],
    align=True,
)
FIELD = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", (1024,))], align=True)
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
METADATA = np.dtype([("f0", IMAGE), ("f1", "<i8")], align=True)
FIELDS = (("image", 2), ("label", 1))  # names and FFCV's type ids: RGBImageField, IntField
JPG, RAW = 0, 1
MIN_PAGE_SIZE = 1 << 21
PROBED = 256  # JPEGs whose first and last bytes `open_index` looks at


def field_table() -> NDArray[np.void]:
    """FFCV's description of the fields image and label."""
    table = np.zeros(len(FIELDS), FIELD)
    for record, (name, type_id) in zip(table, FIELDS, strict=True):
        record["type_id"] = type_id
        record["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
    return table


def data_start(num_samples: int, page_size: int) -> int:
    """Offset of the first data page, in bytes."""
    end = HEADER.itemsize + len(FIELDS) * FIELD.itemsize + num_samples * METADATA.itemsize
    return -(-end // page_size) * page_size


@dataclass(frozen=True)
class Index:
    """Where each sample lies and what it is, 23 bytes a sample; arrays [n] in order of sample index."""

    path: Path
    starts: NDArray[np.uint64]  # offset in the file
    sizes: NDArray[np.uint32]  # bytes
    heights: NDArray[np.uint16]  # pixels as stored
    widths: NDArray[np.uint16]
    is_raw: NDArray[np.bool_]  # else JPEG
    labels: NDArray[np.signedinteger]  # int16 or int64
    page_size: int
    file_bytes: int

    def __len__(self) -> int:
        return len(self.starts)


def open_index(path: Path, num_classes: int | None = None, expected: int | None = None) -> Index:
    """Reads the index of a .beton and checks everything that costs only milliseconds to check.

    Checked: header, version, fields, length of the file, every sample's span (inside a page, none overlapping), sizes
    against storage mode, labels against ``num_classes``, the count against ``expected``, the first and last bytes of
    some JPEGs. Not seen: changed pixel bytes; `adarem prepare --verify` compares those with the fingerprint.

    Raises:
        UserError: one line with the file, what is wrong and the remedy.
    """
    path = Path(path)

    def need(ok: bool, problem: str) -> None:
        if not ok:
            raise UserError(f"{path}: {problem}; move it away and run `adarem prepare` again")

    try:
        size = path.stat().st_size
    except FileNotFoundError:
        partial = partial_files(path.parent, path.name)
        hint = f" ({partial[0].name} is there: being written, or left by an interrupted write)" if partial else ""
        raise UserError(f"{path}: no such file{hint}; `adarem prepare` writes it") from None
    need(path.is_file(), "not a file")
    need(size > 0, "an empty file")
    need(size >= HEADER.itemsize + len(FIELDS) * FIELD.itemsize, f"{size} bytes, too short for a .beton")
    header = np.fromfile(path, HEADER, 1)[0]
    need(
        header["version"] == VERSION and header["num_fields"] == len(FIELDS),
        f"not a .beton of format version {VERSION} with the fields image and label",
    )
    n, page, table = int(header["num_samples"]), int(header["page_size"]), int(header["alloc_table_ptr"])
    fields = np.fromfile(path, FIELD, len(FIELDS), offset=HEADER.itemsize)
    found = [(bytes(f["name"]).split(b"\0")[0].decode("ascii", "replace"), int(f["type_id"])) for f in fields]
    need(found == list(FIELDS), f"holds the fields {', '.join(name for name, _ in found)}, not image and label")
    need(page >= MIN_PAGE_SIZE and page & (page - 1) == 0, f"damaged header (page size {page})")
    need(table != 0, "its writer never finished it")
    implied = table + n * ALLOCATION.itemsize
    need(n > 0 and size == implied, f"{size} bytes where its header implies {implied}: truncated or changed")
    first = data_start(n, page)
    need(table >= first and table % page == 0, "damaged header (allocation table outside the file's end)")
    need(expected is None or n == expected, f"holds {n} samples where its fingerprint says {expected}")
    metadata = np.fromfile(path, METADATA, n, offset=HEADER.itemsize + len(FIELDS) * FIELD.itemsize)
    allocation = np.fromfile(path, ALLOCATION, n, offset=table)
    if (allocation["sample_id"][1:] <= allocation["sample_id"][:-1]).any():  # FFCV's own writer leaves it unsorted
        allocation = allocation[np.argsort(allocation["sample_id"], kind="stable")]
    need((allocation["sample_id"] == np.arange(n)).all(), "damaged: allocation table does not list every sample once")
    starts, sizes = allocation["ptr"].copy(), allocation["size"].copy()
    inside = (starts >= first) & (starts < table) & (sizes > 0) & (sizes <= page)
    need(bool(inside.all()), "damaged: a sample lies outside the data pages")
    need(bool(((starts % page) + sizes <= page).all()), "damaged: a sample lies across a page boundary")
    image = metadata["f0"]
    need((image["data_ptr"] == starts).all(), "damaged: metadata and allocation table disagree")
    by_place = slice(None) if (starts[1:] > starts[:-1]).all() else np.argsort(starts, kind="stable")
    need(bool((starts[by_place][1:] >= (starts + sizes)[by_place][:-1]).all()), "damaged: samples overlap")
    heights, widths = image["height"].copy(), image["width"].copy()
    need(bool((heights > 0).all() and (widths > 0).all()), "damaged: an image of no pixels")
    is_raw = image["mode"] == RAW
    need(bool(((image["mode"] == JPG) | is_raw).all()), "damaged: unknown storage mode")
    pixels = 3 * heights.astype(np.uint64) * widths
    need(bool((sizes == pixels)[is_raw].all()), "damaged: raw images whose bytes do not fit their height and width")
    labels = metadata["f1"]
    low, high = int(labels.min()), int(labels.max())
    need(low >= 0, f"damaged: label {low}")
    if num_classes is not None and high >= num_classes:
        raise UserError(f"{path}: has labels up to {high}, data.num_classes is {num_classes}; set it to {high + 1}")
    labels = labels.astype(np.int16 if high < 1 << 15 else np.int64)
    jpegs = np.flatnonzero(~is_raw)
    with open(path, "rb") as f:
        for i in jpegs[:: max(1, len(jpegs) // PROBED)]:
            ends = os.pread(f.fileno(), 2, int(starts[i])) + os.pread(f.fileno(), 2, int(starts[i] + sizes[i]) - 2)
            need(ends == b"\xff\xd8\xff\xd9", f"damaged: sample {i} is not a complete JPEG")
    return Index(path, starts, sizes.astype(np.uint32), heights, widths, is_raw, labels, page, size)
