"""ImageNet's development kit: the classes of the validation images, which lie in one folder without classes; checksums.

torchvision has a reader of it, `torchvision.datasets.imagenet.parse_devkit_archive`. It is not used: it unpacks the
archive without a look at its names, leaves a pickle in the data folder, accepts one checksum alone and needs torch.
Both read ``meta.mat`` with scipy. Its MD5 sums of image-net.org's archives are used.
"""

import contextlib
import hashlib
import io
import multiprocessing
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from adarem.run.errors import UserError

ARCHIVE = "ILSVRC2012_devkit_t12.tar.gz"
FOLDER = "ILSVRC2012_devkit_t12"
# Bytes of image-net.org's archives: one of another size is another archive, of which no checksum is known.
SIZES = {"ILSVRC2012_img_train.tar": 147_897_477_120, "ILSVRC2012_img_val.tar": 6_744_924_160, ARCHIVE: 2_568_145}
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
_LARGEST = 64 << 20  # bytes unpacked; the real files have less than one million each


def devkit_places(root: Path) -> list[Path]:
    """Where a development kit may be: the archive, its folder, or its two files."""
    found = [root / ARCHIVE] if (root / ARCHIVE).is_file() else []
    return found + [p for p in (root / FOLDER / "data", root) if (p / _META).is_file() or (p / _TRUTH).is_file()]


def read_devkit(place: Path) -> dict[str, str]:
    """The class (a WordNet id) of each validation image, by the image's name without its ending.

    Args:
        place: the archive, or the folder with meta.mat and the ground truth.

    Raises:
        UserError: it is damaged, or lacks one of the two files.
    """
    files = _from_archive(place) if place.is_file() else _from_folder(place)
    wnids = _wnids(files[_META], place)
    truth: dict[str, str] = {}
    for number, line in enumerate(files[_TRUTH].split(), 1):
        wnid = wnids.get(int(line)) if line.isdigit() and len(line) < 9 else None
        if wnid is None:
            raise UserError(
                f"{place}: line {number} of {_TRUTH} is {line.decode(errors='replace')[:40]!r}, no class of {_META}; "
                "get the devkit again"
            )
        truth[f"ILSVRC2012_val_{number:08d}"] = wnid
    return truth


def check_md5(path: Path) -> None:
    """Reads one of image-net.org's archives from first to last, where it has the size of that.

    Raises:
        UserError: its MD5 sum is another one.
    """
    if path.stat().st_size != SIZES.get(path.name):
        return
    from torchvision.datasets.imagenet import ARCHIVE_META

    known = {name: md5 for name, md5 in ARCHIVE_META.values()}[path.name]
    with open(path, "rb") as f:
        found = hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != known:
        raise UserError(f"{path}: MD5 sum {found}, image-net.org's has {known}; it is damaged: get it again")


@contextlib.contextmanager
def _reading(place: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error) as e:
        raise UserError(f"{place}: ends too early or is damaged ({e}); get it again") from None
    except OSError as e:  # gzip.BadGzipFile is one, without a number
        problem = f"cannot be read ({e.strerror})" if e.errno else f"ends too early or is damaged ({e})"
        raise UserError(f"{place}: {problem}; get it again") from None


def _from_archive(place: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with _reading(place), tarfile.open(place, "r:gz") as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if name not in (_META, _TRUTH) or not member.isreg() or name in found:
                continue
            file = tar.extractfile(member)
            if file is not None and member.size <= _LARGEST:
                found[name] = file.read()
    return _both(found, place)


def _from_folder(place: Path) -> dict[str, bytes]:
    with _reading(place):
        return _both({name: (place / name).read_bytes() for name in (_META, _TRUTH) if (place / name).is_file()}, place)


def _both(found: dict[str, bytes], place: Path) -> dict[str, bytes]:
    missing = [name for name in (_META, _TRUTH) if name not in found]
    if missing:
        raise UserError(f"{place}: holds no {' and no '.join(missing)}; get {ARCHIVE} again")
    return found


def _wnids(meta: bytes, place: Path) -> dict[int, str]:
    # In a process of its own: scipy's reader ends the process on some damaged files.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_read_meta, meta).result()
        except BrokenProcessPool:
            problem = "scipy ends the process"
        except Exception as e:  # whatever scipy raises on a file that is no MATLAB file
            problem = f"{type(e).__name__}: {e}"
    raise UserError(f"{place}: its {_META} cannot be read ({' '.join(problem.split())}); get it again")


def _read_meta(meta: bytes) -> dict[int, str]:
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]  # type: ignore[arg-type]  # files too
    # The kit lists the tree above the classes too: a class has no children.
    return {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["num_children"]) == 0}
