"""ImageNet as it is downloaded: the archives of image-net.org, or Kaggle's, unpacked or not, in any mixture.

    data.root/train/<wnid>/*.JPEG                unpacked; also train/<wnid>.tar, unpacked once
    data.root/ILSVRC2012_img_train.tar           image-net.org: a tar of a tar for each class
    data.root/ILSVRC/Data/CLS-LOC/train/<wnid>   Kaggle's, unpacked
    data.root/imagenet-object-localization-challenge.zip

Of the validation set the same, without folders of classes: these come from ``LOC_val_solution.csv`` (Kaggle), the
devkit (image-net.org), or ``imagenet_2012_validation_synset_labels.txt``, a class a line in order of the images' names.
"""

import csv
import io
import re
import shlex
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from adarem.data.images.archives import add_class_tars, add_tar, add_zip, open_zip, unzip
from adarem.data.images.devkit import ARCHIVE, devkit_places, read_devkit
from adarem.data.images.source import File, Listing, Source, list_folder
from adarem.run.errors import UserError

PAGE = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php"
ZIP = "imagenet-object-localization-challenge.zip"
KAGGLE = f"kaggle competitions download -c {ZIP.removesuffix('.zip')}"
_KAGGLE_FOLDER = "ILSVRC/Data/CLS-LOC"
_SOLUTION = "LOC_val_solution.csv"
_SYNSETS = "imagenet_2012_validation_synset_labels.txt"


class _Truth(NamedTuple):
    place: Path
    classes: Mapping[str, str]  # an image's name without its ending -> its class


def archives(root: Path, split: str) -> list[Path]:
    """What may hold images of a split other than ``<root>/<split>``, and is there."""
    places = (root / f"ILSVRC2012_img_{split}.tar", root / _KAGGLE_FOLDER / split, root / ZIP)
    return [place for place in places if place.exists()]


class Downloads:
    """What was downloaded into ``root``; the directory of a zip archive is read once for both splits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._zip: zipfile.ZipFile | None = None

    def source(self, split: str, *, wanted: bool) -> Source:
        """A split, listed without opening an image.

        Args:
            wanted: whether ImageNet is asked for, so that its archives are named where nothing is there.

        Raises:
            UserError: nothing of the split is there, an archive is damaged, nothing says the images' classes, or as
                `Listing` raises.
        """
        folder = self.root / split
        packed = archives(self.root, split)
        listing: Listing | None = None
        if folder.is_dir():
            listing = list_folder(folder)
            add_class_tars(listing)
        for place in packed:
            if listing is None or not (listing.classes or listing.loose):
                listing = self._list(place, split)
        if listing is not None and listing.loose and split == "val":
            self._sort_into_classes(listing)
        if listing is None or not listing.classes:
            problem = f"{folder}: no such folder" if listing is None else f"{listing.place}: holds no class folders"
            root = shlex.quote(str(self.root))
            for path in sorted(self.root.glob("imagenet_object_localization*.tar.gz")):  # an older form of Kaggle's
                raise UserError(f"{path}: compressed; unpack it: `tar -xzf {shlex.quote(str(path))} -C {root}`")
            if self.root / ZIP in packed:
                raise UserError(f"{self.root / ZIP}: holds no {_KAGGLE_FOLDER}/{split}/; {unzip(self.root / ZIP)}")
            more = f", or ILSVRC2012_img_{split}.tar from {PAGE}, or {ZIP} from `{KAGGLE} -p {root}`"
            known = wanted or bool(packed) or any(archives(self.root, other) for other in ("train", "val"))
            raise UserError(f"{problem}; data.root needs {split}/<class>/<image>.JPEG{more if known else ''}")
        return listing.source()

    def _list(self, place: Path, split: str) -> Listing:
        if place.is_dir():
            listing = list_folder(place)
        elif place.suffix == ".tar":
            listing = Listing(place)
            add_tar(listing, place, split)
        else:
            listing = Listing(place / _KAGGLE_FOLDER / split)
            add_zip(listing, self._opened_zip(), f"{_KAGGLE_FOLDER}/{split}/")
        return listing

    def _opened_zip(self) -> zipfile.ZipFile:
        if self._zip is None:
            self._zip = open_zip(self.root / ZIP)
        return self._zip

    def _sort_into_classes(self, listing: Listing) -> None:
        """Gives images that lie next to each other the class folders that they have in the usual layout.

        Where some are in class folders already, an interrupted sorting, others follow where their classes are known.
        """
        truth = self._truth()
        if truth is None:
            if listing.classes:
                return
            raise UserError(
                f"{listing.place}: {len(listing.loose):,} images without class folders, whose classes nothing says; "
                f"put {ARCHIVE} from {PAGE} into {self.root}, or {_SOLUTION} from "
                f"`{KAGGLE} -f {_SOLUTION} -p {shlex.quote(str(self.root))}`"
            )
        known = {name: truth.classes.get(name.rpartition(".")[0]) for name in listing.loose}
        unknown = [name for name, wnid in known.items() if wnid is None]
        if unknown and not listing.classes:
            raise UserError(f"{listing.place}: {truth.place} has no class of {unknown[0]}; remove one of the two")
        for name, wnid in known.items():
            if wnid is not None:
                listing.classes.setdefault(wnid, {}).setdefault(name, listing.loose.pop(name))

    def _truth(self) -> _Truth | None:
        roots = [self.root]
        if (inner := self.root.absolute()).as_posix().endswith(f"/{_KAGGLE_FOLDER}"):
            roots.append(inner.parents[2])  # where Kaggle's archive has it
        for root in roots:
            if (root / _SOLUTION).is_file():
                return _Truth(root / _SOLUTION, _solution((root / _SOLUTION).read_bytes(), root / _SOLUTION))
            for place in devkit_places(root):
                return _Truth(place, read_devkit(place))
            if (root / _SYNSETS).is_file():
                return _Truth(root / _SYNSETS, _synsets((root / _SYNSETS).read_bytes(), root / _SYNSETS))
        if (self.root / ZIP).is_file() and _SOLUTION in self._opened_zip().namelist():
            place = self.root / ZIP / _SOLUTION
            try:
                return _Truth(place, _solution(self._opened_zip().read(_SOLUTION), place))
            except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as e:
                raise UserError(f"{place}: is damaged ({e}); get {ZIP} again") from None
        return None


def check_unpacked(source: Source, root: Path, split: str) -> None:
    """Raises UserError unless every image of a split is the file ``<root>/<split>/<class>/<image>``."""
    folder = root / split
    if any(image != File(str(folder), name) for image, name in zip(source.images, source.files, strict=True)):
        raise UserError(
            f"data.backend=folder: reads {folder}/<class>/<image>.JPEG, and the images of {source.place} are packed or "
            "without class folders; set data.backend=ffcv, or unpack them to there"
        )


def _solution(text: bytes, place: Path) -> dict[str, str]:
    """Kaggle's table: ``ILSVRC2012_val_00000001,n01751748 111 108 230 366``, class and box, several of one class."""
    found: dict[str, str] = {}
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text.decode(errors="replace"))), 1):
            if row and not (number == 1 and row[0] == "ImageId"):
                found[row[0]] = _checked(row[1].split(" ")[0] if len(row) > 1 else "", number, place)
    except csv.Error as e:
        raise UserError(f"{place}: is no table ({e}); get it again") from None
    return found


def _synsets(text: bytes, place: Path) -> dict[str, str]:
    lines = text.decode(errors="replace").split()
    return {f"ILSVRC2012_val_{n:08d}": _checked(wnid, n, place) for n, wnid in enumerate(lines, 1)}


def _checked(wnid: str, line: int, place: Path) -> str:
    if not re.fullmatch(r"n\d{8}", wnid):  # as of a class: it becomes the name of a folder
        raise UserError(f"{place}: line {line} names no class, {wnid[:40]!r} is none; get it again")
    return wnid
