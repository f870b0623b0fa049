"""The source of a data set: which images it has and where their bytes are; a folder ``<split>/<class>/<image>``."""

import hashlib
import io
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from adarem.data.images.junk import is_junk
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


class LeftOut(NamedTuple):
    """Names of what lies among the images of a split and is no image; folders with all that is in them count once."""

    junk: tuple[str, ...] = ()  # see adarem.data.images.junk
    no_images: tuple[str, ...] = ()  # no image by the file's name, or an image outside the class folders


@dataclass(frozen=True)
class Source:
    """One split, in torchvision's order: classes sorted by name, files sorted by name within a class."""

    place: Path  # the folder or archive that messages name
    classes: tuple[str, ...]
    files: list[str]  # <class>/<file>
    labels: NDArray[np.int64]  # [n]
    sizes: NDArray[np.int64]  # [n], bytes
    images: Sequence[Stored]  # [n]
    left_out: LeftOut = LeftOut()

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
        return replace(self, files=files, labels=labels, sizes=self.sizes[keep], images=images)


def class_hash(classes: tuple[str, ...] | list[str]) -> str:
    """Hash of the class names in the order of their labels."""
    return hashlib.sha256("\n".join(classes).encode()).hexdigest()


class _Found(NamedTuple):
    size: int  # bytes
    image: Stored


class Listing:
    """What lies in the folder of a split, added in any order; images are kept, anything else is left out and counted.

    Folders and archives go through here, so that the same files are the same source wherever they are stored.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.classes: dict[str, dict[str, _Found]] = {}
        self.loose: dict[str, _Found] = {}  # images next to the class folders
        self.junk: dict[str, None] = {}  # names in order, once each
        self.no_images: dict[str, None] = {}

    def add_folder(self, name: str) -> bool:
        """A folder next to the other classes; returns whether it is a class."""
        if is_junk(name, folder=True):
            self.junk[name] = None
        elif name.startswith("."):
            self.no_images[f"{name}/"] = None
        else:
            self.classes.setdefault(name, {})
            return True
        return False

    def add_file(self, folder: str, name: str, size: int, image: Stored) -> None:
        """A file of the class ``folder``, or of none (""). Of two with one name the last counts, as in unpacking.

        Raises:
            UserError: a name that no list of names can hold.
        """
        path = f"{folder}/{name}" if folder else name
        if is_junk(name, folder=False):
            self.junk[path] = None
        elif name.startswith(".") or not name.lower().endswith(EXTENSIONS):
            self.no_images[path] = None
        elif _UNFIT.search(path):
            raise UserError(f"{self.place / path}: a name with a line feed, or not in UTF-8; rename it")
        else:
            (self.classes[folder] if folder else self.loose)[name] = _Found(size, image)

    def add_folder_in_class(self, folder: str, name: str) -> None:
        """A folder in the class ``folder``. Raises UserError unless it is junk."""
        if not is_junk(name, folder=True):
            raise UserError(
                f"{self.place / folder / name}: a folder inside a class folder; images lie directly in <class>/"
            )
        self.junk[f"{folder}/{name}"] = None

    def add_path(self, parts: Sequence[str], size: int, image: Stored) -> None:
        """A file by the folders that it lies in and its name, as an archive lists it. Raises as the others do."""
        *folders, name = parts
        for depth, folder in enumerate(folders):
            if depth == 0 and folder not in self.classes and not self.add_folder(folder):
                return
            if depth == 1:
                self.add_folder_in_class(folders[0], folder)
                return
        self.add_file(folders[0] if folders else "", name, size, image)

    def source(self) -> Source:
        """The split. Raises UserError where a class has no image."""
        names = tuple(sorted(self.classes))
        files: list[str] = []
        labels: list[int] = []
        sizes: list[int] = []
        images: list[Stored] = []
        for label, name in enumerate(names):
            for file, found in sorted(self.classes[name].items()):
                files.append(f"{name}/{file}")
                labels.append(label)
                sizes.append(found.size)
                images.append(found.image)
        empty = [name for name in names if not self.classes[name]]
        if empty:
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            raise UserError(
                f"{self.place}: no images in {len(empty)} classes: {', '.join(empty[:5])}{more}; add images, or remove "
                "these folders"
            )
        left_out = LeftOut(tuple(self.junk), tuple([*self.no_images, *self.loose]))
        return Source(self.place, names, files, np.array(labels, np.int64), np.array(sizes, np.int64), images, left_out)


def list_folder(folder: Path) -> Listing:
    """What lies in ``<folder>/<class>/`` and next to the class folders; no image is opened.

    Raises:
        UserError: a folder inside a class that is not junk, a name that no list can hold.
    """
    listing = Listing(folder)
    for entry in os.scandir(folder):
        if not _is_folder(entry):
            listing.add_file("", entry.name, _size(entry), File(str(folder), entry.name))
        elif listing.add_folder(entry.name):
            for inner in os.scandir(entry):
                if _is_folder(inner):
                    listing.add_folder_in_class(entry.name, inner.name)
                else:
                    image = File(str(folder), f"{entry.name}/{inner.name}")
                    listing.add_file(entry.name, inner.name, _size(inner), image)
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nowhere: one of the files that cannot be read, and reported with them
        return 0


def scan(root: Path, split: str) -> Source:
    """Lists one split without opening an image.

    Raises:
        UserError: no such folder, no class in it, a class without images, a folder inside a class.
    """
    folder, layout = Path(root) / split, f"{'' if split == '.' else f'{split}/'}<class>/<image>"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; data.root needs {layout}")
    listing = list_folder(folder)
    if not listing.classes:
        raise UserError(f"{folder}: holds no class folders; data.root needs {layout}")
    return listing.source()


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


def left_out_lines(source: Source) -> list[str]:
    """What `prepare` says of the files that it leaves out: how many, and the first of them."""
    lines = []
    for names, what in (
        (source.left_out.junk, "that programs leave behind"),
        (source.left_out.no_images, "that are no image of a class, by place and name,"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            first = ", ".join(sorted(names)[:3])
            lines.append(f"{source.place}: {len(names)} files or folders {what} are left out: {first}{more}")
    return lines


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
