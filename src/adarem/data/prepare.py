"""`adarem prepare` for images: checks a source, and writes what the loaders read with a fingerprint of it."""

import contextlib
import hashlib
import importlib.util
import io
import shutil
import sys
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.ffcv.encode import content_record, encode_all, jpeg_share
from adarem.data.ffcv.writer import BetonFile
from adarem.data.fingerprint import Fingerprint
from adarem.data.images.digits import write_digits
from adarem.data.images.open_source import folder_name, listing_of, open_source, source_is_there
from adarem.data.images.sampling import stored_size
from adarem.data.images.source import (
    BadFiles,
    BadSplit,
    Source,
    class_hash,
    left_out_lines,
    listed,
    same_classes,
    unreadable,
)
from adarem.data.ownership import check_own
from adarem.data.prepared import check_split
from adarem.data.progress import with_progress
from adarem.data.staged import Staged, partial_files
from adarem.data.verify import verify_split
from adarem.run import locks
from adarem.run.config import DataConfig
from adarem.run.errors import UserError

JPEG_BYTES_PER_PIXEL = 0.5  # of ImageNet-like photographs at quality 90, for the estimate of disk space


@dataclass(frozen=True)
class _Pass:
    """One pass over a split of a data set, which decodes every image once."""

    data: DataConfig
    split: str
    source: Source
    workers: int  # processes
    progress: bool  # whether a progress bar is shown


class _Skipped(NamedTuple):
    """Files that are left out since they cannot be read."""

    names: list[str]
    complete_listing_hash: str  # of the source with them


def prepare(
    data: DataConfig, *, workers: int, verify: bool = False, skip_bad: bool = False, progress: bool = True
) -> dict[str, Fingerprint]:
    """Brings ``data`` into the form that its backend reads, and returns the fingerprints of train and val.

    Backend "ffcv": ``<beton_dir>/train.beton`` and ``val.beton``; "folder": the list of the source's files. Every image
    of the source is decoded in the one pass that writes. A second call with the same source and settings does nothing;
    ``verify`` then reads every stored byte again and compares it with the fingerprint (and the source, if it is there).
    ``skip_bad`` leaves files out that cannot be read, and records their names in the fingerprint.

    Raises:
        UserError: the source, the files or the folder are not what they should be, or OpenCV is missing. What was there
            before is unchanged.
    """
    if workers < 1:
        raise UserError(f"workers={workers}: needs 1 or more; give --workers=1 or a larger number")
    if data.backend == "ffcv" and importlib.util.find_spec("cv2") is None:
        raise UserError(
            "data.backend=ffcv: OpenCV, which encodes the images, is not installed; run `pip install 'adarem[ffcv]'`, "
            "or set data.backend=folder"
        )
    root, folder = Path(data.root), Path(data.beton_dir)
    if data.name == "digits":
        write_digits(root)
    if not root.is_dir() and not folder.is_dir():
        open_source(data)  # raises: the source is missing, and no folder is made for it
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"data.beton_dir={folder}: cannot be made ({e.strerror}); choose another") from None
    lock = locks.hold(folder / ".prepare.lock", patience=0, remedy="choose another data.beton_dir")
    with lock, contextlib.ExitStack() as stack:
        for split in fingerprint.SPLITS:
            check_own(data, split)
        for partial in (p for split in fingerprint.SPLITS for p in partial_files(folder, split)):
            partial.unlink(missing_ok=True)  # left by a killed prepare: under the lock no other one runs
        present = {split: _present(data, split) for split in fingerprint.SPLITS}
        if not source_is_there(data) and all(present.values()):
            _say(f"{root}: source is not there any more; {folder} is complete and stays as it is")
            sources: dict[str, Source] = {}
        else:
            sources = open_source(data)
            same_classes(sources["train"], sources["val"], data.num_classes)
            _check_listing(data, sources)
            for line in dict.fromkeys(line for split in fingerprint.SPLITS for line in left_out_lines(sources[split])):
                _say(line)
            _warn_counts(data, sources)
        todo = {s: source for s, source in sources.items() if not _same(present[s], source)}
        if data.backend == "ffcv":
            _need_space(data, todo.values())
        made: list[Staged] = []
        bad: dict[str, BadFiles] = {}
        for split in fingerprint.SPLITS:
            found, source = present[split], sources.get(split)
            if split in todo:
                # Once a bad file is known nothing will be kept: the other split is only checked.
                staged = None if any(bad.values()) else stack.enter_context(contextlib.closing(Staged()))
                bad[split] = _make(_Pass(data, split, todo[split], workers, progress), staged, skip_bad)
                made += [staged] if staged else []
            elif verify and found is not None:
                read = source.without(found.get("skipped", ())) if source else None
                bad[split] = verify_split(data, split, found, read, workers, progress)
        for split in fingerprint.SPLITS:
            fingerprint.bad_path(data, split).unlink(missing_ok=True)
        if any(bad.values()):
            raise unreadable(
                BadSplit(sources[s], files, fingerprint.bad_path(data, s)) for s, files in bad.items() if files
            )
        for staged in made:
            staged.commit()
        return {split: fingerprint.read_fingerprint(data, split) for split in fingerprint.SPLITS}


def _present(data: DataConfig, split: str) -> Fingerprint | None:
    """The fingerprint of a split that is prepared, else None."""
    try:
        return check_split(data, split)
    except UserError:
        return None


def _check_listing(data: DataConfig, sources: Mapping[str, Source]) -> None:
    if data.listing is not None and listing_of(sources) != data.listing:
        raise UserError(
            f"data.root={data.root}: holds other images ({len(sources['train']):,} + {len(sources['val']):,}) than "
            f"planned ({data.expected_train:,} + {data.expected_val:,}); put the old ones back, or plan anew with "
            "another data.name"
        )


def _same(found: Fingerprint | None, source: Source) -> bool:
    return (
        found is not None
        and found["class_hash"] == class_hash(source.classes)
        and found["listing_hash"] == source.without(found.get("skipped", ())).listing_hash
    )


def _make(work: _Pass, staged: Staged | None, skip_bad: bool) -> BadFiles:
    """See `_write`. With ``skip_bad``, files that cannot be read are left out in a second pass."""
    bad = _write(work, staged)
    if bad and skip_bad and staged:
        _say(f"{work.source.place}: leaving out {listed(bad)}, which cannot be read")
        rest = _Pass(work.data, work.split, work.source.without(bad), work.workers, work.progress)
        bad = _write(rest, staged, _Skipped(list(bad), work.source.listing_hash))
    return bad


def _write(work: _Pass, staged: Staged | None, skipped: _Skipped | None = None) -> BadFiles:
    """Decodes every image of the source, and puts the split's new files into ``staged`` once all of them decoded.

    Args:
        staged: None only checks the images.
        skipped: for the fingerprint, where the source leaves files out.

    Returns:
        The files that cannot be read. The first of them ends the writing, not the checking: then ``staged`` is empty.

    Raises:
        UserError: a worker process died; the disk is full.
    """
    data, split, source = work.data, work.split, work.source
    path = fingerprint.beton_path(data, split)
    out = BetonFile(staged, path, len(source), data.write.max_side) if staged and data.backend == "ffcv" else None
    bad: dict[str, str] = {}
    warned: dict[str, str] = {}
    content, sources = hashlib.sha256(), hashlib.sha256()
    jpegs = payload = 0
    images = encode_all(source, data.write if out else None, work.workers)
    shown = with_progress(images, len(source), f"{'writing' if out else 'checking'} {split}", work.progress)
    with contextlib.closing(images):
        for name, label, image in zip(source.files, source.labels.tolist(), shown, strict=True):
            if image.problem:
                bad[name] = image.problem
                if staged is not None:
                    staged.close()
                    out = None
                continue
            if image.warning:
                warned[name] = image.warning
            sources.update(image.source_digest)
            content.update(content_record(label, image.mode, image.height, image.width, image.digest))
            jpegs += image.mode == beton.JPG
            payload += len(image.payload)
            if out is not None:
                out.append(image, label)
    if warned and not skipped:  # else a first pass has said it
        _say(f"{source.place}: Pillow warns about {len(warned)} images: {listed(warned)}")
    if bad or staged is None:
        return bad
    record: Fingerprint = {
        "split": split,
        "backend": data.backend,
        "num_images": len(source),
        "num_classes": len(source.classes),
        "class_hash": class_hash(source.classes),
        "listing_hash": source.listing_hash,
        "source_hash": sources.hexdigest(),
        "content_hash": content.hexdigest() if out else sources.hexdigest(),
        "versions": fingerprint.versions(),
    }
    if out is not None:
        out.finish()
        index = beton.open_index(staged.place(path), data.num_classes, len(source))
        staged.write(fingerprint.checksums_path(data, split), out.checksums.tobytes())
        record["write"] = asdict(data.write)
        record["file_bytes"] = index.file_bytes
        record["index_crc32"] = fingerprint.index_crc32(index)
        record["sums_crc32"] = zlib.crc32(out.checksums.tobytes())
        record["jpeg_images"] = jpegs
        record["image_bytes"] = payload
    if skipped:
        record["skipped"] = skipped.names
        record["complete_listing_hash"] = skipped.complete_listing_hash
    if data.val_share is not None:
        record["split_by"] = {"val_share": data.val_share, "split_seed": data.split_seed}
    record["classes"] = list(source.classes)
    prefix = f"{folder}/" if (folder := folder_name(data, split)) else ""
    names = "".join(f"{prefix}{name}\n" for name in source.files)
    staged.write(fingerprint.files_path(data, split), names.encode())
    staged.write(fingerprint.fingerprint_path(data, split), fingerprint.text(record).encode())
    return bad


def _need_space(data: DataConfig, sources: Iterable[Source]) -> None:
    """Raises UserError when the files would not fit on the disk, by an estimate from some images of each split."""
    from PIL import Image

    needed, share = 0.0, jpeg_share(data.write)
    for source in sources:
        pixels = []
        for stored in source.images[:: max(1, len(source) // 200)]:
            # Of bad files nothing: they are reported later.
            with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"):
                image = Image.open(io.BytesIO(stored.read()))
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


def _warn_counts(data: DataConfig, sources: Mapping[str, Source]) -> None:
    for split, expected in (("train", data.expected_train), ("val", data.expected_val)):
        found = len(sources[split])
        if expected is not None and found != expected:
            _say(
                f"warning: {sources[split].place} holds {found:,} images, the full {data.label} {expected:,}: "
                "results are not comparable with published ones"
            )


def _say(line: str) -> None:
    print(line, file=sys.stderr)
