"""Writes a .beton file sample by sample. Its bytes depend on the source and the settings alone."""

import os
from pathlib import Path

import numpy as np

from adarem.data.ffcv import beton
from adarem.data.ffcv.encode import Encoded
from adarem.data.staged import REMEDY, Staged
from adarem.run.errors import UserError
from adarem.run.files import writing


class BetonFile:
    """A .beton file in ``staged``: complete after `finish`, in its place once ``staged`` is committed.

    Raises:
        UserError: the disk is full, in any of its methods.
    """

    def __init__(self, staged: Staged, path: Path, num_samples: int, max_side: int) -> None:
        self.path = path
        largest = 3 * max_side * max_side
        self.page_size = max(4 * beton.MIN_PAGE_SIZE, 1 << (largest - 1).bit_length())
        if self.page_size > 1 << 31:
            raise UserError(f"data.write.max_side={max_side}: too large for a .beton; use at most 16384")
        self.metadata = np.zeros(num_samples, beton.METADATA)
        self.allocation = np.zeros(num_samples, beton.ALLOCATION)
        self.checksums = np.zeros(num_samples, "<u4")
        self.position = beton.data_start(num_samples, self.page_size)
        self.count = 0
        self.file = staged.open(path)
        self.file.seek(self.position)

    def append(self, image: Encoded, label: int) -> None:
        """Writes the next sample."""
        size = len(image.payload)
        if size > self.page_size:  # a JPEG of noise can exceed its raw pixels
            raise UserError(f"{self.path}: sample {self.count} takes {size} bytes, more than a page; use mode raw")
        left = self.page_size - self.position % self.page_size
        with writing(self.path, REMEDY):
            if size > left:
                self.position += left
                self.file.seek(self.position)
            self.file.write(image.payload)
        self.metadata[self.count] = ((image.mode, image.width, image.height, self.position), label)
        self.allocation[self.count] = (self.count, self.position, size)
        self.checksums[self.count] = image.checksum
        self.position += size
        self.count += 1

    def finish(self) -> None:
        """Writes tables and header, and closes the file."""
        assert self.count == len(self.metadata)
        table = -(-self.position // self.page_size) * self.page_size
        header = np.array([(beton.VERSION, len(beton.FIELDS), self.page_size, self.count, table)], beton.HEADER)
        with writing(self.path, REMEDY), self.file:
            self.file.seek(table)
            self.file.write(self.allocation.tobytes())
            self.file.seek(beton.HEADER.itemsize)
            self.file.write(beton.field_table().tobytes() + self.metadata.tobytes())
            self._sync()
            self.file.seek(0)
            self.file.write(header.tobytes())  # last: the pointer in it marks a finished file
            self._sync()

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
