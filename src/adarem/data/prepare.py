"""`adarem prepare`: checks a source, writes the .beton files and their fingerprints."""

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from adarem.data import fingerprint
from adarem.data.ffcv import beton
from adarem.data.fingerprint import Fingerprint
from adarem.data.images.build import build
from adarem.data.images.digits import write_digits
from adarem.data.images.source import Source, class_hash, listed, same_classes, scan, unreadable
from adarem.data.images.verify import compare
from adarem.data.prepared import check_split
from adarem.data.staged import Staged, half_written
from adarem.run.config import DataConfig
from adarem.run.errors import UserError

JPEG_BYTES_PER_PIXEL = 0.5  # of ImageNet-like photographs at quality 90, for the disk-space estimate


def prepare(
    data: DataConfig, *, workers: int, verify: bool = False, skip_bad: bool = False, progress: bool = True
) -> dict[str, Fingerprint]:
    """Brings ``data`` into the form that its backend reads, and returns {"train": fingerprint, "val": fingerprint}.

    Backend "ffcv": ``<beton_dir>/train.beton`` and ``val.beton``; "folder": the source's file list. Every image of the
    source is decoded in the one pass that writes. A second call with the same source and settings does nothing;
    ``verify`` then reads every stored byte again and compares it with the fingerprint (and the source, if it is there).
    ``skip_bad`` leaves files out that cannot be read, and records their names in the fingerprint.

    Raises:
        UserError: source or files are not what they should be. What stood there before stays as it was.
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
    with _only_writer(folder / ".prepare.lock"), contextlib.ExitStack() as stack:
        for half in (p for split in fingerprint.SPLITS for p in half_written(folder, split)):
            half.unlink(missing_ok=True)  # left by a preparer that was killed: there is no other one now
        present = {split: _present(data, split) for split in fingerprint.SPLITS}
        if not (root / "train").is_dir() and all(present.values()):
            _say(f"{root}: source is not there any more; {folder} is complete and stays as it is")
            sources: dict[str, Source] = {}
        else:
            sources = {split: scan(root, split) for split in fingerprint.SPLITS}
            same_classes(sources["train"], sources["val"], data.num_classes)
            _warn_counts(data, sources)
        todo = {s: src for s, src in sources.items() if not _same(present[s], src)}
        if data.backend == "ffcv":
            _need_space(data, todo.values())
        made: list[Staged] = []
        bad: dict[str, dict[str, str]] = {}
        for split in fingerprint.SPLITS:
            found, source = present[split] or {}, sources.get(split)
            if split in todo:
                # Once a bad file is known nothing will be kept: the other split is only looked at.
                staged = None if any(bad.values()) else stack.enter_context(contextlib.closing(Staged()))
                bad[split] = _make(data, split, todo[split], workers, progress, staged, skip_bad)
                made += [staged] if staged else []
            elif verify:
                read = source.without(found.get("skipped", ())) if source else None
                bad[split] = compare(data, split, found, read, workers, progress)
        named = [(sources[s], of, fingerprint.bad_path(data, s)) for s, of in bad.items() if of]
        for split in fingerprint.SPLITS:
            fingerprint.bad_path(data, split).unlink(missing_ok=True)
        if named:
            raise unreadable(named)
        for staged in made:
            staged.commit()
        return {split: fingerprint.read_fingerprint(data, split) for split in fingerprint.SPLITS}


def _present(data: DataConfig, split: str) -> Fingerprint | None:
    """The fingerprint of a split that is prepared, else None."""
    try:
        return check_split(data, split)
    except UserError:
        return None


def _same(found: Fingerprint | None, source: Source) -> bool:
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
    staged: Staged | None,
    skip_bad: bool,
) -> dict[str, str]:
    """See `build`. With ``skip_bad``, files that cannot be read are left out in a second pass."""
    bad = build(data, split, source, workers, progress, staged)
    if bad and skip_bad and staged:
        _say(f"{source.folder}: leaving out {listed(bad)}, which cannot be read")
        bad = build(data, split, source.without(bad), workers, progress, staged, skipped=list(bad))
    return bad


@contextlib.contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Raises UserError when another process prepares the same folder. The kernel frees the lock with the process."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # a link that lies there is not written through
        f = os.fdopen(os.open(path, flags, 0o666), "r+")
    except OSError as e:
        raise UserError(f"{path.parent}: cannot be written to ({e.strerror}); choose another data.beton_dir") from None
    with f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path.parent}: {f.read().strip() or 'another process'} is preparing it; wait") from None
        f.truncate(0)
        f.write(f"host {os.uname().nodename}, pid {os.getpid()}")
        f.flush()
        yield


def _need_space(data: DataConfig, sources: Iterable[Source]) -> None:
    """Raises UserError when the files would not fit on the disk, by an estimate from some images of each split."""
    from PIL import Image

    from adarem.data.images.sampling import stored_size

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
