"""Places in a .beton file, and a way to damage it there."""

from pathlib import Path

import numpy as np

from adarem.data.ffcv import beton

METADATA_AT = beton.HEADER.itemsize + 2 * beton.FIELD.itemsize


def edit(path: Path, at: int, value: bytes) -> None:
    """Overwrites bytes of a file."""
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(value)


def table_at(path: Path) -> int:
    """Offset of the allocation table."""
    return int(np.fromfile(path, beton.HEADER, 1)[0]["alloc_table_ptr"])
