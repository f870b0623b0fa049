"""`adarem prepare`: checks a source, writes the .beton files and their fingerprints."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adarem.config import DataConfig
from adarem.data import beton, fingerprint
from adarem.data.digits import write_digits
from adarem.data.progress import tracked
from adarem.data.source import Source, class_hash, listed, same_classes, scan, unreadable
from adarem.data.verify import compare
from adarem.data.writer import BetonFile, Encoded, content_record, encode_all
from adarem.errors import UserError
from adarem.files import write_atomically

JPEG_BYTES_PER_PIXEL = 0.5  # of ImageNet-like photographs at quality 90, for the disk-space estimate


def prepare(
    data: DataConfig, *, workers: int, verify: bool = False, skip_bad: bool = False, progress: bool = True
) -> dict[str, dict[str, Any]]:
    """Brings ``data`` into the form that its backend reads, and returns {"train": fingerprint, "val": fingerprint}.

    Backend "ffcv": ``<beton_dir>/train.beton`` and ``val.beton``; "folder": the source's file list. Every image of the
    source is decoded in the one pass that writes. A second call with the same source and settings does nothing;
    ``verify`` then reads every stored byte again and compares it with the fingerprint (and the source, if it is there).
    ``skip_bad`` leaves files out that cannot be read, and records their names in the fingerprint.

    Raises:
        UserError: source or files are not what they should be; nothing that looks finished is left behind.
    """
    if workers < 1:
        raise UserError(f"workers={workers}: needs 1 or more")
    root, folder = Path(data.root), Path(data.beton_dir)
    if data.name == "digits":
        write_digits(root)
    if not root.is_dir() and not folder.is_dir():
        scan(root, "train")  # says that it is missing, before anything is made there
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"data.beton_dir={folder}: cannot be made ({e.strerror}); choose another") from None
    with _only_writer(folder / ".prepare.lock"):
        present = {split: _finished(data, split) for split in fingerprint.SPLITS}
        if not (root / "train").is_dir() and all(present.values()):
            _say(f"{root}: source is not there any more; {folder} is complete and stays as it is")
            sources: dict[str, Source] = {}
        else:
            sources = {split: scan(root, split) for split in fingerprint.SPLITS}
            same_classes(sources["train"], sources["val"], data.num_classes)
            _warn_counts(data, sources)
        result: dict[str, dict[str, Any]] = {}
        todo = {s: src for s, src in sources.items() if not _same(present[s], src)}
        if data.backend == "ffcv":
            _need_space(data, todo.values())
        for split in fingerprint.SPLITS:
            if split in todo:
                result[split] = _make(data, split, todo[split], workers, progress, skip_bad)
            else:
                result[split] = present[split] or {}
                if verify:
                    source = sources.get(split)
                    read = source.without(result[split].get("skipped", ())) if source else None
                    compare(data, split, result[split], read, workers, progress)
    return result


def _finished(data: DataConfig, split: str) -> dict[str, Any] | None:
    """The fingerprint, if it was written with these settings and what it describes is there and whole."""
    try:
        found = fingerprint.read_fingerprint(data, split)
        if data.backend == "folder":
            return found if fingerprint.files_path(data, split).exists() else None
        if found["write"] != asdict(data.write):
            return None
        fingerprint.open_beton(data, split)
        return found
    except UserError:
        return None


def _same(found: dict[str, Any] | None, source: Source) -> bool:
    return (
        found is not None
        and found["class_hash"] == class_hash(source.classes)
        and found["listing_hash"] == source.without(found.get("skipped", ())).listing_hash
    )


def _make(
    data: DataConfig,
    split: str,
    source: Source,
    workers: int,
    progress: bool,
    skip_bad: bool,
    skipped: Sequence[str] = (),
) -> dict[str, Any]:
    """One pass over the source. The first bad file ends the writing, not the checking: all are reported together.

    With ``skip_bad`` a second pass goes without them.
    """
    into_beton = data.backend == "ffcv"
    path = fingerprint.beton_path(data, split)
    fingerprint.fingerprint_path(data, split).unlink(missing_ok=True)  # what it described is about to go
    bad: dict[str, str] = {}  # why a file cannot be read
    content, sources = hashlib.sha256(), hashlib.sha256()
    jpegs = payload = 0
    with contextlib.ExitStack() as stack:
        out = None
        if into_beton:
            out = stack.enter_context(contextlib.closing(BetonFile(path, len(source), data.write.max_side)))
        images = encode_all(source, data.write if into_beton else None, workers)
        stack.callback(images.close)
        verb = "writing" if into_beton else "checking"
        for name, label, image in zip(
            source.files,
            source.labels,
            tracked(images, len(source), f"{verb} {split}", progress),
            strict=True,
        ):
            if image.problem:
                bad[name] = image.problem
                continue
            sources.update(image.source_digest)
            content.update(content_record(int(label), image))
            jpegs += image.mode == beton.JPG
            payload += len(image.payload)
            if out is not None and not bad:
                _append(out, image, int(label), path)
        if out is not None and not bad:
            _append(out, None, 0, path)
    if bad and skip_bad:
        _say(f"{source.folder}: leaving out {listed(bad)}, which cannot be read")
        return _make(data, split, source.without(bad), workers, progress, skip_bad=False, skipped=list(bad))
    if bad:
        raise unreadable(source, bad, fingerprint.bad_path(data, split))
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
        write_atomically(fingerprint.sums_path(data, split), out.sums.tobytes())
        index = beton.open_index(path, data.num_classes, len(source))
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
    write_atomically(fingerprint.files_path(data, split), "".join(f"{split}/{name}\n" for name in source.files))
    fingerprint.write_fingerprint(data, split, record)
    return fingerprint.read_fingerprint(data, split)


def _append(out: BetonFile, image: Encoded | None, label: int, path: Path) -> None:
    """Adds one image, or finishes the file; a full disk becomes one line."""
    try:
        out.commit() if image is None else out.append(image, label)
    except OSError as e:
        raise UserError(f"{path}: cannot be written ({e.strerror}); free some space, or set data.beton_dir") from None


@contextlib.contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Raises UserError when another process prepares the same folder. The kernel frees the lock with the process."""
    try:
        f = open(path, "a+")  # noqa: SIM115
    except OSError as e:
        raise UserError(f"{path.parent}: cannot be written to ({e.strerror}); choose another data.beton_dir") from None
    with f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            f.seek(0)
            raise UserError(f"{path.parent}: {f.read().strip() or 'another process'} is preparing it; wait") from None
        f.truncate(0)
        f.write(f"host {os.uname().nodename}, pid {os.getpid()}")
        f.flush()
        yield


def _need_space(data: DataConfig, sources: Iterable[Source]) -> None:
    """Raises UserError when the files would not fit on the disk, by an estimate from some images of each split."""
    from PIL import Image

    from adarem.data.sampling import stored_size

    needed = 0.0
    share = {"raw": 0.0, "jpg": 1.0, "proportion": data.write.compress_probability}[data.write.mode]
    for source in sources:
        pixels = []
        for name in source.files[:: max(1, len(source) // 200)]:
            with contextlib.suppress(Exception), Image.open(source.folder / name) as image:  # bad files: reported later
                height, width = stored_size(image.height, image.width, data.write.max_side)
                pixels.append(height * width)
        if pixels:
            per_image = sum(pixels) / len(pixels) * (3 * (1 - share) + JPEG_BYTES_PER_PIXEL * share)
            needed += len(source) * (per_image + beton.METADATA.itemsize + beton.ALLOCATION.itemsize)
    free = shutil.disk_usage(data.beton_dir).free
    if needed > free:
        raise UserError(
            f"data.beton_dir={data.beton_dir}: needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free "
            "some, choose another, or store smaller (data.write.mode=jpg, data.write.max_side)"
        )


def _warn_counts(data: DataConfig, sources: dict[str, Source]) -> None:
    for split, expected in (("train", data.expected_train), ("val", data.expected_val)):
        found = len(sources[split])
        if expected is not None and found != expected:
            _say(
                f"warning: {sources[split].folder} holds {found:,} images, the genuine {data.label} {expected:,}: "
                "results are not comparable with published ones"
            )


def _say(line: str) -> None:
    print(line, file=sys.stderr)
