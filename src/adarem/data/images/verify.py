"""`adarem prepare --verify`: are the prepared data, and their source, still what the fingerprint says?"""

import contextlib
import hashlib
import os
from typing import Any

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.ffcv.writer import Encoded, content_record, encode_all
from adarem.data.images.source import Source
from adarem.data.progress import tracked
from adarem.run.config import DataConfig
from adarem.run.errors import UserError


def compare(
    data: DataConfig, split: str, found: dict[str, Any], source: Source | None, workers: int, progress: bool
) -> dict[str, str]:
    """Compares every stored byte, and every source byte where the source is there, with the fingerprint ``found``.

    Returns:
        Why each of the source's images that cannot be read cannot.

    Raises:
        UserError: they differ.
    """
    if data.backend == "ffcv":
        path = fingerprint.beton_path(data, split)
        index = fingerprint.open_beton(data, split)
        content = hashlib.sha256()
        with open(path, "rb") as f:
            for i in tracked(iter(range(len(index))), len(index), f"verifying {split}.beton", progress):
                stored = os.pread(f.fileno(), int(index.sizes[i]), int(index.starts[i]))
                mode = beton.RAW if index.is_raw[i] else beton.JPG
                content.update(
                    content_record(
                        int(index.labels[i]),
                        Encoded(
                            mode, int(index.heights[i]), int(index.widths[i]), b"", b"", hashlib.sha256(stored).digest()
                        ),
                    )
                )
        if content.hexdigest() != found["content_hash"]:
            raise UserError(
                f"{path}: its images differ from its fingerprint: damaged or edited; move it away and run "
                f"`adarem prepare data={data.name}` again"
            )
    bad: dict[str, str] = {}
    if source is not None:
        digest = hashlib.sha256()
        images = encode_all(source, None, workers)
        with contextlib.closing(images):
            for name, image in zip(
                source.files, tracked(images, len(source), f"verifying {split} source", progress), strict=True
            ):
                digest.update(image.source_digest)
                if image.problem:
                    bad[name] = image.problem
        if not bad and digest.hexdigest() != found["source_hash"]:
            raise UserError(
                f"{source.folder}: its images changed since {fingerprint.fingerprint_path(data, split)} was written; "
                "move that file away and run `adarem prepare` again"
            )
    return bad
