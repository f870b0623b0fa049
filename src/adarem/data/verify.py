"""`adarem prepare --verify`: do the prepared data, and their source, still match the fingerprint?"""

import contextlib
import hashlib
import os

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.ffcv.encode import content_record, encode_all
from adarem.data.fingerprint import Fingerprint
from adarem.data.images.devkit import check_md5
from adarem.data.images.source import BadFiles, Source
from adarem.data.progress import with_progress
from adarem.run.config import DataConfig
from adarem.run.errors import UserError


def verify_split(
    data: DataConfig, split: str, found: Fingerprint, source: Source | None, workers: int, progress: bool
) -> BadFiles:
    """Compares every stored byte, and every source byte where the source is there, with the fingerprint ``found``.

    Returns:
        The source's images that cannot be read.

    Raises:
        UserError: they differ.
    """
    if data.backend == "ffcv":
        _verify_beton(data, split, found, progress)
    return _verify_source(data, split, found, source, workers, progress) if source is not None else {}


def _verify_beton(data: DataConfig, split: str, found: Fingerprint, progress: bool) -> None:
    path = fingerprint.beton_path(data, split)
    index = fingerprint.open_beton(data, split).index
    content = hashlib.sha256()
    with open(path, "rb") as f:
        for i in with_progress(range(len(index)), len(index), f"verifying {split}.beton", progress):
            stored = os.pread(f.fileno(), int(index.sizes[i]), int(index.starts[i]))
            mode = beton.RAW if index.is_raw[i] else beton.JPG
            label, height, width = int(index.labels[i]), int(index.heights[i]), int(index.widths[i])
            content.update(content_record(label, mode, height, width, hashlib.sha256(stored).digest()))
    if content.hexdigest() != found["content_hash"]:
        raise UserError(
            f"{path}: its images differ from its fingerprint: damaged or edited; move it away and run "
            f"`{fingerprint.prepare_command(data)}` again"
        )


def _verify_source(
    data: DataConfig, split: str, found: Fingerprint, source: Source, workers: int, progress: bool
) -> BadFiles:
    if source.place.is_file():
        check_md5(source.place)
    bad: dict[str, str] = {}
    digest = hashlib.sha256()
    images = encode_all(source, None, workers)
    shown = with_progress(images, len(source), f"verifying {split} source", progress)
    with contextlib.closing(images):
        for name, image in zip(source.files, shown, strict=True):
            digest.update(image.source_digest)
            if image.problem:
                bad[name] = image.problem
    if not bad and digest.hexdigest() != found["source_hash"]:
        raise UserError(
            f"{source.place}: its images changed since {fingerprint.fingerprint_path(data, split)} was written; "
            "move that file away and run `adarem prepare` again"
        )
    return bad
