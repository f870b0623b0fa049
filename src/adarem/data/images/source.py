"""The source of a data set: which images it has and where their bytes are; a folder ``<split>/<class>/<image>``."""

import hashlib
import io
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adarem.run.errors import UserError
from adarem.run.files import write_atomically

# torchvision.datasets.folder.IMG_EXTENSIONS
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_UNFIT = re.compile("[\n\ud800-\udfff]")  # for a text file with a name a line

BadFiles = Mapping[str, str]  # name of a file that cannot be read, relative to its split's folder -> why not


class Stored(Protocol):
    """One image file, wherever it is stored. Small and picklable: a worker process gets it and reads it."""

    def read(self) -> bytes:
        """The bytes of the image file.

        Raises:
            OSError: they cannot be read; its text stands behind the image's name.
        """
        ...


class File(NamedTuple):
    """An image that is a file of a folder."""

    folder: str
    name: str  # relative to folder

    def read(self) -> bytes:
        with open(os.path.join(self.folder, self.name), "rb") as f:
            return f.read()


@dataclass(frozen=True)
class Source:
    """One split, in torchvision's order: classes sorted by name, files sorted by name within a class."""

    place: Path  # the folder or archive that messages name
    classes: tuple[str, ...]
    files: list[str]  # <class>/<file>
    labels: NDArray[np.int64]  # [n]
    sizes: NDArray[np.int64]  # [n], bytes
    images: Sequence[Stored]  # [n]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def listing_hash(self) -> str:
        """Hash of names and sizes: cheap, and the same for a copy elsewhere."""
        digest = hashlib.sha256()
        for name, size in zip(self.files, self.sizes, strict=True):
            digest.update(f"{name}\0{size}\n".encode())
        return digest.hexdigest()

    def without(self, names: Collection[str]) -> "Source":
        """The source without some files.

        Raises:
            UserError: a class would have no image left.
        """
        left_out = set(names)
        keep = [i for i, name in enumerate(self.files) if name not in left_out]
        labels = self.labels[keep]
        empty = sorted(set(range(len(self.classes))) - set(labels.tolist()))
        if empty:
            raise UserError(f"{self.place}: class {self.classes[empty[0]]} has no readable image left; fix its files")
        files, images = [self.files[i] for i in keep], [self.images[i] for i in keep]
        return Source(self.place, self.classes, files, labels, self.sizes[keep], images)


def class_hash(classes: tuple[str, ...] | list[str]) -> str:
    """Hash of the class names in the order of their labels."""
    return hashlib.sha256("\n".join(classes).encode()).hexdigest()


def scan(root: Path, split: str) -> Source:
    """Lists one split without opening an image.

    Raises:
        UserError: no such folder, no class in it, a class without images, a folder inside a class.
    """
    folder = Path(root) / split
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data.root needs {split}/<class>/<image>.JPEG")
    classes = tuple(sorted(e.name for e in os.scandir(folder) if os.path.isdir(e) and not e.name.startswith(".")))
    if not classes:
        raise UserError(f"{folder}: holds no class folders; data.root needs {split}/<class>/<image>.JPEG")
    files: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    empty: list[str] = []
    for label, name in enumerate(classes):
        found = []
        for entry in os.scandir(folder / name):
            try:
                mode, size = entry.stat().st_mode, entry.stat().st_size
            except OSError:  # a link to nowhere: one of the files that cannot be read, and reported with them
                mode, size = stat.S_IFREG, 0
            if stat.S_ISDIR(mode):
                raise UserError(f"{entry.path}: a folder inside a class folder; images lie directly in <class>/")
            if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."):
                if _UNFIT.search(f"{name}/{entry.name}"):
                    raise UserError(f"{entry.path}: a name with a line feed, or not in UTF-8; rename it")
                found.append((entry.name, size))
        if not found:
            empty.append(name)
        for file, size in sorted(found):
            files.append(f"{name}/{file}")
            labels.append(label)
            sizes.append(size)
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        names = ", ".join(empty[:5])
        raise UserError(
            f"{folder}: no images in {len(empty)} classes: {names}{more}; add images, or remove these folders"
        )
    images = [File(str(folder), name) for name in files]
    return Source(folder, classes, files, np.array(labels, np.int64), np.array(sizes, np.int64), images)


def same_classes(train: Source, val: Source, num_classes: int) -> None:
    """Raises UserError unless both splits hold the same classes, ``num_classes`` of them."""
    differing = sorted(set(train.classes) ^ set(val.classes))
    if differing:
        where = train.place if differing[0] in train.classes else val.place
        raise UserError(
            f"{where}: {len(differing)} classes are in one of train and val only, the first is {differing[0]}; "
            "both need the same class folders"
        )
    if len(train.classes) != num_classes:
        raise UserError(
            f"{train.place}: holds {len(train.classes)} classes, data.num_classes is {num_classes}; "
            "correct data.root or data.num_classes"
        )


class BadSplit(NamedTuple):
    """A split of which some files cannot be read."""

    source: Source
    bad: BadFiles
    listing: Path  # the file that shall list them all


def listed(bad: BadFiles) -> str:
    """The first of the files that cannot be read, each with the reason, and how many more there are."""
    first = "; ".join(f"{name} ({why})" for name, why in list(bad.items())[:3])
    return first + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")


def unreadable(found: Iterable[BadSplit]) -> UserError:
    """The error that names the images that cannot be read, of one split or both; writes the listings."""
    problems, listings = [], []
    for source, bad, listing in found:
        write_atomically(listing, "".join(f"{name} ({why})\n" for name, why in bad.items()))
        problems.append(f"{source.place}: {len(bad)} of {len(source)} images cannot be read: {listed(bad)}")
        listings.append(str(listing))
    return UserError(
        f"{'; '.join(problems)}; replace or remove them (all in {' and '.join(listings)}), "
        "or leave them out with --skip-bad"
    )


def decode_rgb(payload: bytes) -> NDArray[np.uint8]:
    """uint8 [height, width, 3], as torchvision's default loader does it: whatever the file's name says, any mode PIL
    reads, converted to RGB; EXIF orientation is not applied.

    Raises:
        Exception: whatever PIL raises on a file that is no complete image.
    """
    from PIL import Image

    with Image.open(io.BytesIO(payload)) as image:
        return np.asarray(image.convert("RGB"))
