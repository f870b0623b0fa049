"""CIFAR-10, CIFAR-100 and Fashion-MNIST, read by torchvision's own classes from the files as they are downloaded.

CIFAR's files are pickles. torchvision compares each with its known MD5 before it unpickles it, and nothing else here
unpickles. Fashion-MNIST's are plain arrays. torchvision, and torch with it, is imported when a set is read.
"""

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adarem.data.fingerprint import SPLITS
from adarem.data.images.source import Source
from adarem.run.config import DataConfig, TextConfig
from adarem.run.errors import UserError
from adarem.run.text import typed

_SYSTEM = Path("/usr")  # which package managers alone write to: Debian's dataset-fashion-mnist is there
_FASHION_FILES = tuple(
    f"{split}-{what}-ubyte" for split in ("train", "t10k") for what in ("images-idx3", "labels-idx1")
)


# By name: the folder in data.root where torchvision has its files.
SETS: Mapping[str, str] = {
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "fashion_mnist": "FashionMNIST/raw",
}


class Pixels(NamedTuple):
    """An image that is in memory: its bytes are those of a PGM or PPM file, which keeps every pixel."""

    header: bytes
    pixels: bytes

    def read(self) -> bytes:
        return self.header + self.pixels


def files_are_there(data: DataConfig) -> bool:
    """Whether data.root has the set's files; which of them are damaged, reading finds out."""
    root = Path(data.root)
    if data.source == "fashion_mnist":
        return all(_fashion_file(root, name) for name in _FASHION_FILES)
    return (root / SETS[data.source]).is_dir()


def open_set(data: DataConfig) -> dict[str, Source]:
    """Train and val, the latter the set's test images; in the set's own order, grey images with one channel.

    Raises:
        UserError: files are missing or damaged.
    """
    if not files_are_there(data):
        raise _missing(data, "has none of its files")
    try:
        return _read(data)
    except (RuntimeError, ValueError, AssertionError, EOFError, OSError, zlib.error) as e:
        raise _missing(data, f"a file is missing or damaged ({_first_line(e)})") from None


def download(data: DataConfig | TextConfig) -> None:
    """Lets torchvision fetch the set's files into data.root, unless they are there; it checks and unpacks them.

    Raises:
        UserError: the set is none of torchvision's, or cannot be fetched.
    """
    if isinstance(data, TextConfig) or data.source not in SETS:
        raise UserError(
            f"--download: data={data.name} is not fetched by this program; leave --download out, or take one of "
            f"{', '.join(f'data={name}' for name in SETS)}"
        )
    if files_are_there(data):
        return
    root = Path(data.root)
    if root.is_relative_to(_SYSTEM):
        raise UserError(f"data.root={root}: is a package's; give a folder of yours, data.root=/data/fashion")
    try:
        root.mkdir(parents=True, exist_ok=True)
        _torchvision(data.source)(str(root), download=True)
    except (RuntimeError, OSError) as e:
        raise UserError(
            f"{_address(data)}: cannot be fetched ({_first_line(e)}); fetch it on a machine with a network, put it "
            f"into {root / _archive_folder(data)} and run the same command again, which then checks and unpacks it"
        ) from None


def _torchvision(source: str) -> Any:  # one of torchvision's classes, which have no types
    from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST

    return {"cifar10": CIFAR10, "cifar100": CIFAR100, "fashion_mnist": FashionMNIST}[source]


def _address(data: DataConfig) -> str:
    """Where torchvision looks for the set."""
    known = _torchvision(data.source)
    if data.source == "fashion_mnist":
        return f"{known.mirrors[0]} ({', '.join(f'{name}.gz' for name in _FASHION_FILES)})"
    return str(known.url)


def _archive_folder(data: DataConfig) -> str:
    return SETS[data.source] if data.source == "fashion_mnist" else ""


def _missing(data: DataConfig, how: str) -> UserError:
    root = Path(data.root)
    where = f"data.root={root}: {how}, as torchvision has them in {SETS[data.source]}/"
    if data.source == "fashion_mnist":
        return UserError(
            f"{where}; `apt-get install dataset-fashion-mnist` puts them where they are found without data.root, or "
            "fetch them into a folder of yours: adarem prepare data=fashion_mnist data.root=/data/fashion --download"
        )
    return UserError(
        f"{where}; remove that folder if it is there, and fetch them: "
        f"adarem prepare data={data.name} {typed('data.root', root)} --download"
    )


def _read(data: DataConfig) -> dict[str, Source]:
    known = _torchvision(data.source)
    with _torchvision_root(data) as root:
        parts = {split: known(str(root), train=split == "train", download=False) for split in SPLITS}
        classes = [name.replace("/", "_") for name in parts["train"].classes]
        return {
            split: _source(Path(data.root), classes, np.asarray(part.data), np.asarray(part.targets))
            for split, part in parts.items()
        }


@contextmanager
def _torchvision_root(data: DataConfig) -> Iterator[Path]:
    """data.root, or a folder for the time being with Fashion-MNIST's files unpacked and laid out for torchvision."""
    if data.source != "fashion_mnist":
        yield Path(data.root)
        return
    with tempfile.TemporaryDirectory(prefix="adarem-") as made:
        folder = Path(made) / SETS[data.source]
        folder.mkdir(parents=True)
        for name in _FASHION_FILES:
            found = _fashion_file(Path(data.root), name)
            assert found is not None
            if found.suffix != ".gz":
                (folder / name).symlink_to(found.absolute())
                continue
            with gzip.open(found) as packed, open(folder / name, "wb") as plain:
                shutil.copyfileobj(packed, plain)
        yield Path(made)


def _fashion_file(root: Path, name: str) -> Path | None:
    places = (folder / f"{name}{end}" for end in ("", ".gz") for folder in (root / SETS["fashion_mnist"], root))
    return next((p for p in places if p.is_file()), None)


def _source(place: Path, classes: Sequence[str], pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Source:
    """A split from its arrays: uint8 [n, height, width] or [n, height, width, 3], and [n].

    The name of an image ends in the checksum of its pixels, so that a list of names stands for the images.
    """
    if len(pixels) != len(labels) or len(labels) == 0 or not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"{len(pixels)} images, {len(labels)} labels of {len(classes)} classes do not fit together")
    kind, end = (b"P5", "pgm") if pixels.ndim == 3 else (b"P6", "ppm")
    header = kind + b"\n%d %d\n255\n" % (pixels.shape[2], pixels.shape[1])
    images = [Pixels(header, image.tobytes()) for image in pixels]
    files = [
        f"{classes[label]}/{i:05d}-{zlib.crc32(image.pixels):08x}.{end}"
        for i, (label, image) in enumerate(zip(labels.tolist(), images, strict=True))
    ]
    sizes = np.full(len(images), len(images[0].read()), np.int64)
    return Source(place, tuple(classes), files, labels.astype(np.int64), sizes, images)


def _first_line(error: BaseException) -> str:
    reason = getattr(error, "reason", None)  # of urllib
    return " ".join(str(reason or error).split())[:200] or type(error).__name__
