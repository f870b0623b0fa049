"""Both splits of a data set's source: train/ and a folder next to it, or one folder of classes that is split here."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from adarem.data.fingerprint import SPLITS
from adarem.data.images.imagenet import Downloads, archives, check_unpacked
from adarem.data.images.source import Source, class_hash, scan
from adarem.data.images.torchvision_sets import files_are_there, open_set
from adarem.run.config import DataConfig
from adarem.run.errors import UserError


def folder_name(data: DataConfig, split: str) -> str:
    """The folder of a split in data.root; empty where root itself holds the classes of both."""
    if data.val_share is not None:
        return ""
    return data.val_folder if split == "val" else split


def source_is_there(data: DataConfig) -> bool:
    """Whether there is a source to read; prepared files are of use without one."""
    if data.source != "folder":
        return files_are_there(data)
    root, folder = Path(data.root), folder_name(data, "train")
    return (root / folder).is_dir() or folder == "train" and bool(archives(root, "train"))


def open_source(data: DataConfig) -> dict[str, Source]:
    """Train and val, listed without opening an image.

    Raises:
        UserError: a folder or a class is missing, empty or too small, an archive is damaged, or the backend reads none;
            see `scan`, `split_classes`, `Downloads` and `open_set`.
    """
    if data.source != "folder":
        return open_set(data)
    root = Path(data.root)
    if data.val_share is not None:
        return split_classes(scan(root, "."), data.val_share, data.split_seed)
    if data.val_folder != "val":
        return {split: scan(root, folder_name(data, split)) for split in SPLITS}
    downloads = Downloads(root)
    sources = {split: downloads.source(split, wanted=data.name == "imagenet") for split in SPLITS}
    if data.backend == "folder":
        for split, source in sources.items():
            check_unpacked(source, root, split)
    return sources


def split_classes(both: Source, val_share: float, seed: int) -> dict[str, Source]:
    """Cuts one folder of classes into train and val, class by class.

    Each class gives ``val_share`` of its images to val, rounded, at least one, and keeps at least one: those whose hash
    of seed and name is smallest. So the split depends on nothing else, and an image that is added moves few others.

    Raises:
        UserError: a class has a single image.
    """
    members: list[list[int]] = [[] for _ in both.classes]
    for i, label in enumerate(both.labels.tolist()):
        members[label].append(i)
    if small := [name for name, of_class in zip(both.classes, members, strict=True) if len(of_class) < 2]:
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise UserError(
            f"{both.place}: one image in {', '.join(small[:5])}{more}, and training and validation need one each of "
            "every class; add images, or make train/ and val/ yourself"
        )
    chosen: set[int] = set()
    for of_class in members:
        count = min(len(of_class) - 1, max(1, round(val_share * len(of_class))))
        chosen.update(sorted(of_class, key=lambda i: _rank(seed, both.files[i]))[:count])
    everything = range(len(both))
    return {
        "train": _part(both, [i for i in everything if i not in chosen]),
        "val": _part(both, [i for i in everything if i in chosen]),
    }


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def _part(both: Source, kept: Sequence[int]) -> Source:
    return replace(
        both,
        files=[both.files[i] for i in kept],
        labels=both.labels[kept],
        sizes=both.sizes[kept],
        images=[both.images[i] for i in kept],
    )


def listing_of(sources: Mapping[str, Source]) -> str:
    """What `data.listing` says of them: names, sizes and classes of both splits."""
    return combined_listing({s: (source.listing_hash, class_hash(source.classes)) for s, source in sources.items()})


def combined_listing(splits: Mapping[str, tuple[str, str]]) -> str:
    """`data.listing` of splits with these listing and class hashes."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(" ".join((split, *splits[split])).encode())
    return digest.hexdigest()[:16]
