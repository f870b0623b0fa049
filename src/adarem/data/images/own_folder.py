"""`data=folder`: what plan finds in a folder of images and freezes, so that its owner need not count classes."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_type_hints

from adarem.data.fingerprint import SPLITS
from adarem.data.images.open_source import listing_of, split_classes
from adarem.data.images.source import Source, list_folder, same_classes, scan
from adarem.run.build import coerce
from adarem.run.catalog import DATA_SETS
from adarem.run.config import DataConfig
from adarem.run.errors import UserError

VAL_FOLDERS = ("val", "valid", "validation", "test")  # the first that is there counts
VAL_SHARE = 0.2  # of a folder that is split here, where nobody says


@dataclass(frozen=True)
class _Found:
    num_classes: int
    counts: Mapping[str, int]  # split to images
    listing: str
    val_folder: str
    val_share: float | None


class FolderReading:
    """Fills in what a config leaves open; of one plan: each folder is listed once."""

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], _Found] = {}

    def complete(self, data: dict[str, object]) -> None:
        """Adds to a composed ``data`` section, in place, what the images in its root say. No image is opened.

        Raises:
            UserError: the folder is missing or has no layout that is known; a built-in data set's name or label; other
                counts than those that are given.
        """
        root = Path(str(data["root"]))
        hints = get_type_hints(DataConfig, include_extras=True)
        val_folder = coerce(data.get("val_folder"), str | None, "data.val_folder")
        share = coerce(data.get("val_share"), hints["val_share"], "data.val_share")
        seed = coerce(data.get("split_seed", 0), hints["split_seed"], "data.split_seed")
        assert isinstance(val_folder, str | None) and isinstance(share, float | None) and isinstance(seed, int)
        key = (root, val_folder, share, seed)
        if key not in self._found:
            self._found[key] = _read(root, val_folder, share, seed)
        found = self._found[key]
        folder = root.parent.name if root.name == "train" else root.name
        own = safe_name(folder)
        data["name"] = data.get("name") or own
        if data["name"] in DATA_SETS:
            raise UserError(f"data.name={data['name']}: a built-in data set's; choose another name")
        label = data.get("label")
        labels = {known.label.casefold() for known in DATA_SETS.values()}
        if label is None:
            label = folder or own
            data["label"] = f"{label} (a folder)" if label.casefold() in labels else label
        elif str(label).casefold() in labels:
            raise UserError(f"data.label={label}: a built-in data set's; choose another label")
        if data.get("num_classes") not in (None, found.num_classes):
            raise UserError(
                f"data.num_classes={data['num_classes']}: {root} holds {found.num_classes} classes; leave it out, or "
                "correct data.root"
            )
        data["num_classes"] = found.num_classes
        for split in SPLITS:
            if data.get(f"expected_{split}") is None:
                data[f"expected_{split}"] = found.counts[split]
        if data.get("beton_dir") is None:
            place = hashlib.sha256(str(root).encode()).hexdigest()[:6]  # another folder of this name is another place
            data["beton_dir"] = f"data/{data['name']}-{place}"
        data |= {"val_folder": found.val_folder, "val_share": found.val_share, "listing": found.listing}


def safe_name(folder: str) -> str:
    """A folder's name as a name of files: ``My flowers (2)`` is ``My_flowers_2``; no built-in data set's."""
    name = re.sub(r"[^A-Za-z0-9.+=-]+", "_", folder).strip("_.+=-")[:56] or "images"
    return f"{name}_folder" if name in DATA_SETS else name


def _read(root: Path, val_folder: str | None, share: float | None, seed: int) -> _Found:
    if not root.is_dir():
        raise UserError(f"data.root={root}: no such folder; name the folder that holds your images")
    if val_folder is None and (root / "train").is_dir():
        if not any(p.is_dir() for p in (root / "train").iterdir()):
            raise UserError(
                f"data.root={root}: its train/ holds no class folders; sort the images into train/CLASS/, or, where "
                "train is itself a class, rename that folder"
            )
        val_folder = next((name for name in VAL_FOLDERS if (root / name).is_dir()), None)
        if val_folder is None:
            raise UserError(
                f"data.root={root}: has train/ and none of {'/, '.join(VAL_FOLDERS)}/; add one, or let a part of each "
                f"class validate: data.root={root / 'train'}"
            )
    if val_folder is None:
        share = VAL_SHARE if share is None else share
        sources = split_classes(_scan_flat(root), share, seed)
        return _Found(len(sources["train"].classes), _counts(sources), listing_of(sources), "val", share)
    if share is not None or seed:
        given = f"data.val_share={share}" if share is not None else f"data.split_seed={seed}"
        raise UserError(f"{given}: {root} has train/ and {val_folder}/ already; leave it out")
    sources = {"train": scan(root, "train"), "val": scan(root, val_folder)}
    classes = len(sources["train"].classes)
    same_classes(sources["train"], sources["val"], classes)
    return _Found(classes, _counts(sources), listing_of(sources), val_folder, None)


def _scan_flat(root: Path) -> Source:
    listing = list_folder(root)
    if not listing.classes:
        raise UserError(
            f"data.root={root}: holds no folder of images; put each class into a folder of its own, {root}/CLASS/*.jpg"
        )
    found = listing.source()
    if len(found.classes) < 2:
        raise UserError(f"data.root={root}: holds a single class, {found.classes[0]}; add a folder of another class")
    return found


def _counts(sources: Mapping[str, Source]) -> dict[str, int]:
    return {split: len(source) for split, source in sources.items()}
