"""Small data sets and configs over them, for the tests of data."""

import dataclasses
from pathlib import Path

from adarem.run.config import DataConfig, WriteConfig
from tests.support.imagenet_tree import make_imagenet_tree

CLASSES, TRAIN, VAL = 7, 61, 41  # counts that no batch size divides


def data_config(root: Path, **changes: object) -> DataConfig:
    """ImageNet's settings at a smaller crop over ``root``."""
    base = DataConfig(
        name="photos",
        label="photos",
        root=str(root),
        beton_dir=str(root / "ffcv"),
        backend="ffcv",
        embedded=False,
        num_classes=CLASSES,
        expected_train=None,
        expected_val=None,
        train_crop=96,
        crop_area=(0.08, 1.0),
        crop_aspect=(0.75, 4 / 3),
        flip=0.5,
        eval_resize=110,
        eval_crop=96,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        workers=2,
        write=WriteConfig(mode="proportion", max_side=400, jpeg_quality=90, compress_probability=0.5),
    )
    return dataclasses.replace(base, **changes)


def make_photos(root: Path) -> None:
    make_imagenet_tree(root, classes=CLASSES, train_per_class=9, val_per_class=6, distinct=24)
    for split, n in (("train", TRAIN), ("val", VAL)):  # uneven classes
        for path in sorted((root / split).glob("*/*"))[n:]:
            path.unlink()


def file_states(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of each file: equal where nothing was written anew."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir() if p.name != ".prepare.lock"}
