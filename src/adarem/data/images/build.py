"""One pass over one split of a source: every image decoded once, and the split's new files written on the way."""

import contextlib
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.ffcv.writer import BetonFile, content_record, encode_all
from adarem.data.images.source import Source, class_hash
from adarem.data.progress import tracked
from adarem.data.staged import Staged
from adarem.run.config import DataConfig


def build(
    data: DataConfig,
    split: str,
    source: Source,
    workers: int,
    progress: bool,
    staged: Staged | None,
    skipped: Sequence[str] = (),
) -> dict[str, str]:
    """Decodes every image of ``source``, and has the split's new files in ``staged`` once all of them did.

    Args:
        staged: None only looks at the images.
        skipped: names for the fingerprint, of files that ``source`` leaves out.

    Returns:
        Why each file that cannot be read cannot. The first of them ends the writing, not the checking: nothing is in
        ``staged`` then.

    Raises:
        UserError: a worker process died; the disk is full.
    """
    into_beton = staged is not None and data.backend == "ffcv"
    path = fingerprint.beton_path(data, split)
    out = BetonFile(staged, path, len(source), data.write.max_side) if into_beton else None
    bad: dict[str, str] = {}
    content, sources = hashlib.sha256(), hashlib.sha256()
    jpegs = payload = 0
    images = encode_all(source, data.write if into_beton else None, workers)
    shown = tracked(images, len(source), f"{'writing' if into_beton else 'checking'} {split}", progress)
    with contextlib.closing(images):
        for name, label, image in zip(source.files, source.labels.tolist(), shown, strict=True):
            if image.problem:
                bad[name] = image.problem
                if staged is not None:
                    staged.close()
                    out = None
                continue
            sources.update(image.source_digest)
            content.update(content_record(label, image))
            jpegs += image.mode == beton.JPG
            payload += len(image.payload)
            if out is not None:
                out.append(image, label)
    if bad or staged is None:
        return bad
    record: dict[str, Any] = {
        "split": split,
        "backend": data.backend,
        "num_images": len(source),
        "num_classes": len(source.classes),
        "class_hash": class_hash(source.classes),
        "listing_hash": source.listing_hash,
        "source_hash": sources.hexdigest(),
        "content_hash": content.hexdigest() if into_beton else sources.hexdigest(),
        "versions": fingerprint.versions(),
    }
    if out is not None:
        out.finish()
        index = beton.open_index(staged.place(path), data.num_classes, len(source))
        staged.write(fingerprint.sums_path(data, split), out.sums.tobytes())
        record |= {
            "write": asdict(data.write),
            "file_bytes": index.file_bytes,
            "index_crc32": fingerprint.index_crc32(index),
            "sums_crc32": zlib.crc32(out.sums),
            "jpeg_images": jpegs,
            "image_bytes": payload,
        }
    if skipped:
        record["skipped"] = list(skipped)
    record["classes"] = list(source.classes)
    names = "".join(f"{split}/{name}\n" for name in source.files)
    staged.write(fingerprint.files_path(data, split), names.encode())
    staged.write(fingerprint.fingerprint_path(data, split), fingerprint.text(record).encode())
    return bad
