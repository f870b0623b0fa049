"""Makes of a tree ``train/<wnid>/``, ``val/<wnid>/`` what image-net.org and Kaggle offer for download."""

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

PREFIX = "ILSVRC2012_val_"


def tar_of(files: Iterable[tuple[str, bytes]], **settings: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **settings) as tar:
        for name, payload in files:
            info = tarfile.TarInfo(name)
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))
    return buffer.getvalue()


def classes_of(tree: Path) -> list[str]:
    return sorted(p.name for p in (tree / "train").iterdir())


def val_images(tree: Path) -> dict[str, Path]:
    """By name, in no order."""
    files = sorted((tree / "val").glob("*/*"), key=lambda p: p.name[::-1])
    return {p.name: p for p in files}


def write_train_tar(tree: Path, root: Path, **settings: int) -> None:
    """A tar of one tar a class; the members in no order."""
    inner = [
        (f"{wnid}.tar", tar_of([(p.name, p.read_bytes()) for p in sorted((tree / "train" / wnid).iterdir())[::-1]]))
        for wnid in classes_of(tree)[::-1]
    ]
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner, **settings))


def write_val_tar(tree: Path, root: Path, prefix: str = "", **settings: int) -> None:
    files = [(f"{prefix}{name}", path.read_bytes()) for name, path in val_images(tree).items()]
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_of(files, **settings))


def devkit_files(tree: Path) -> dict[str, bytes]:
    """``meta.mat`` as scipy writes it, with nodes above the classes, numbered in another order than the wnids; and the
    ground truth: a line for each number up to the highest.
    """
    from scipy.io import savemat

    wnids = classes_of(tree)
    numbers = {wnid: n for n, wnid in enumerate(np.random.default_rng(1).permutation(wnids).tolist(), 1)}
    nodes = [*sorted(wnids, key=numbers.__getitem__), "n00001740", "n00015388"]
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
    synsets = np.zeros((len(nodes), 1), [(name, object) for name in fields])
    for n, wnid in enumerate(nodes, 1):
        children = [] if wnid in numbers else [1, 2]
        synsets[n - 1, 0] = (n, wnid, f"word {n}, other", "gloss", len(children), children, 0)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = {int(p.stem.removeprefix(PREFIX)): numbers[p.parent.name] for p in val_images(tree).values()}
    lines = "".join(f"{truth.get(n, 1)}\n" for n in range(1, max(truth) + 1))
    return {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": lines.encode()}


def write_devkit(tree: Path, root: Path) -> None:
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        for name, payload in [("readme.txt", b"text"), *((f"data/{n}", p) for n, p in devkit_files(tree).items())]:
            info = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/{name}")
            info.size = len(payload)
            tar.addfile(info, io.BytesIO(payload))


def solution(tree: Path) -> str:
    rows = [f"{p.stem},{p.parent.name} 1 2 30 40 {p.parent.name} 5 6 7 8 \n" for p in val_images(tree).values()]
    return "ImageId,PredictionString\n" + "".join(rows)


def write_kaggle_folder(tree: Path, root: Path) -> None:
    place = root / "ILSVRC" / "Data" / "CLS-LOC"
    shutil.copytree(tree / "train", place / "train")
    (place / "val").mkdir()
    for name, path in val_images(tree).items():
        shutil.copy(path, place / "val" / name)
    (root / "LOC_val_solution.csv").write_text(solution(tree))


def write_kaggle_zip(tree: Path, root: Path, compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(root / "imagenet-object-localization-challenge.zip", "w", compression) as archive:
        archive.writestr("LOC_val_solution.csv", solution(tree))
        archive.writestr("ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml", "<annotation/>")
        archive.writestr("ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG", "")
        for path in sorted((tree / "train").glob("*/*")):
            archive.write(path, f"ILSVRC/Data/CLS-LOC/train/{path.parent.name}/{path.name}")
        for name, path in val_images(tree).items():
            archive.write(path, f"ILSVRC/Data/CLS-LOC/val/{name}")


def write_flat_val(tree: Path, root: Path) -> None:
    shutil.copytree(tree / "train", root / "train")
    (root / "val").mkdir()
    for name, path in val_images(tree).items():
        shutil.copy(path, root / "val" / name)


def _image_net_org(tree: Path, root: Path) -> None:
    write_train_tar(tree, root)
    write_val_tar(tree, root)
    write_devkit(tree, root)


def _train_unpacked_val_tar(tree: Path, root: Path) -> None:
    shutil.copytree(tree / "train", root / "train")
    write_val_tar(tree, root, "./val/")
    write_devkit(tree, root)


def _train_unpacked_once(tree: Path, root: Path) -> None:
    """One class is unpacked, one is there as folder and tar, the others are tars; val is unpacked."""
    (root / "train").mkdir()
    first, second, *_ = classes_of(tree)
    for wnid in classes_of(tree):
        if wnid in (first, second):
            shutil.copytree(tree / "train" / wnid, root / "train" / wnid)
        if wnid != first:
            files = [(p.name, p.read_bytes()) for p in sorted((tree / "train" / wnid).iterdir())]
            (root / "train" / f"{wnid}.tar").write_bytes(tar_of(files))
    sorted((root / "train" / second).iterdir())[0].unlink()
    shutil.copytree(tree / "val", root / "val")


def _flat_val_unpacked_devkit(tree: Path, root: Path) -> None:
    write_flat_val(tree, root)
    for name, payload in devkit_files(tree).items():
        (root / "ILSVRC2012_devkit_t12" / "data").mkdir(parents=True, exist_ok=True)
        (root / "ILSVRC2012_devkit_t12" / "data" / name).write_bytes(payload)


def _flat_val_synsets(tree: Path, root: Path) -> None:
    write_flat_val(tree, root)
    truth = {int(p.stem.removeprefix(PREFIX)): p.parent.name for p in val_images(tree).values()}
    lines = [truth.get(n, classes_of(tree)[0]) for n in range(1, max(truth) + 1)]
    (root / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(lines))


def _flat_val_devkit(tree: Path, root: Path) -> None:
    write_flat_val(tree, root)
    write_devkit(tree, root)


def _val_half_sorted(tree: Path, root: Path) -> None:
    """Sorting into class folders was interrupted: all folders are made, some images are moved."""
    write_flat_val(tree, root)
    write_devkit(tree, root)
    for n, path in enumerate(val_images(tree).values()):
        (root / "val" / path.parent.name).mkdir(exist_ok=True)
        if n % 3 == 0:
            (root / "val" / path.name).rename(root / "val" / path.parent.name / path.name)


def _pax_tars(tree: Path, root: Path) -> None:
    write_train_tar(tree, root, format=tarfile.PAX_FORMAT)
    write_val_tar(tree, root, "./", format=tarfile.PAX_FORMAT)
    write_devkit(tree, root)


LAYOUTS: dict[str, Callable[[Path, Path], None]] = {
    "image-net.org": _image_net_org,
    "image-net.org, pax": _pax_tars,
    "train unpacked, val a tar": _train_unpacked_val_tar,
    "train unpacked once": _train_unpacked_once,
    "Kaggle zip": write_kaggle_zip,
    "Kaggle zip, stored": lambda tree, root: write_kaggle_zip(tree, root, zipfile.ZIP_STORED),
    "Kaggle folder": write_kaggle_folder,
    "flat val, devkit": _flat_val_devkit,
    "flat val, devkit unpacked": _flat_val_unpacked_devkit,
    "val half sorted": _val_half_sorted,
    "flat val, list of synsets": _flat_val_synsets,
}
