"""How far the pixels of the two backends are apart, and what the .beton's resolution and JPEG quality do to them.

    python -m benchmarks.pixels

Two sets of pictures: scikit-learn's two photographs (china, flower) in four sections each of 500 x 375, and generated
ones with a photograph's spectrum and more fine detail than photographs have. Differences are mean absolute differences
of uint8 values, over all pixels of the crops, between the FFCV path and the folder backend: for evaluation that is
torchvision's Resize(256), CenterCrop(224), for training torchvision's resized_crop of the same boxes.
"""

import dataclasses
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from benchmarks.loader import config
from numpy.typing import NDArray
from PIL import Image
from tests.support.imagenet_tree import photograph

from adarem.data.loaders import open_eval, open_train
from adarem.data.prepare import prepare
from adarem.run.config import DataConfig, WriteConfig

KINDS, VIEWS = ("photographs", "generated"), ("training", "evaluation")
SETTINGS = [
    WriteConfig("raw", 500, 90, 0.5),
    WriteConfig("jpg", 500, 100, 0.5),
    WriteConfig("jpg", 500, 95, 0.5),
    WriteConfig("jpg", 500, 90, 0.5),
    WriteConfig("jpg", 500, 80, 0.5),
    WriteConfig("raw", 400, 90, 0.5),
    WriteConfig("raw", 256, 90, 0.5),
    WriteConfig("jpg", 256, 90, 0.5),
]


def pictures(kind: str) -> list[Image.Image]:
    """Eight pictures of 500 x 375."""
    if kind == "generated":
        return [Image.fromarray(photograph(500, 375, k)) for k in range(8)]
    from sklearn.datasets import load_sample_images

    complete = [Image.fromarray(a) for a in load_sample_images().images]
    return [p.crop((x, y, x + 500, y + 375)) for p in complete for x in (0, 140) for y in (0, 52)]


def write_tree(root: Path, images: list[Image.Image]) -> None:
    """The images as both splits of a data set of two classes."""
    for split in ("train", "val"):
        for k, image in enumerate(images):
            folder = root / split / f"c{k % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=95)
            (folder / f"{k}.JPEG").write_bytes(buffer.getvalue())


def crops(data: DataConfig, view: str) -> NDArray[np.uint8]:
    """uint8 [n, 3, size, size]: what training sees in twelve epochs, or evaluation once."""
    if view == "evaluation":
        loader = open_eval(data, batch_size=8, rank=0, world_size=1, device="cpu")
        return torch.cat([x for _, x, _ in loader]).numpy()
    loader = open_train(data, global_batch_size=8, seed=0, rank=0, world_size=1, device="cpu")
    return torch.cat([x for e in range(12) for x, _ in loader.epoch(e)]).numpy()


def main() -> None:
    """Prints the table."""
    print("| stored as | " + " | ".join(f"{k}, {v}" for k in KINDS for v in VIEWS) + " |")
    print("| --- |" + " --- |" * (len(KINDS) * len(VIEWS)))
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            root = Path(folder) / kind
            write_tree(root / "original", pictures(kind))
            base = dataclasses.replace(config(root, "raw", 1), num_classes=2)
            plain = dataclasses.replace(base, backend="folder")
            prepare(plain, workers=1, progress=False)
            for write in SETTINGS:
                name = f"{write.mode}, {write.max_side} px" + (
                    f", quality {write.jpeg_quality}" if write.mode == "jpg" else ""
                )
                data = dataclasses.replace(base, beton_dir=str(root / name), write=write)
                prepare(data, workers=1, progress=False)
                for view in VIEWS:
                    found = difference(crops(data, view), crops(dataclasses.replace(plain, write=write), view))
                    rows.setdefault(name, []).append(f"{found:.2f}")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(row) + " |")


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean absolute difference."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.int16) - b).mean())


if __name__ == "__main__":
    main()
