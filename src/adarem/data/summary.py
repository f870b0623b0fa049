"""`adarem prepare --summary`: what is in a prepared data set, in words and as contact sheets to look at."""

import io
import os
from pathlib import Path

import numpy as np

from adarem.data import fingerprint
from adarem.data.fingerprint import Fingerprint
from adarem.data.images.sampling import index_words
from adarem.run.catalog import DATA_SETS
from adarem.run.config import DataConfig
from adarem.run.files import write_atomically

ROWS, VIEWS = 6, 8  # of the training sheet: images, and epochs in which each is shown
TILE = 128  # pixels, longest side of a tile on a sheet
IMAGENET = sum(count or 0 for count in DATA_SETS["imagenet"].counts.values())  # images


def summarise(data: DataConfig) -> str:
    """A few lines about both splits; writes ``summary-train.png`` and ``summary-val.png`` into data.beton_dir.

    The training sheet shows one image a row, in the source's order of classes, as the network sees it in epochs 0 to 7
    of seed 0; the validation sheet shows the evaluation's crop of images spread over the set.

    Raises:
        UserError: not prepared, or damaged.
    """
    lines = [f"{data.label}: {data.beton_dir} ({data.backend})"]
    for split in fingerprint.SPLITS:
        found = fingerprint.read_fingerprint(data, split)
        lines.append(f"{split}: {found['num_images']:,} images in {found['num_classes']:,} classes")
        if data.backend == "ffcv":
            lines += _stored(data, split, found)
        lines.append(f"  content {found['content_hash'][:16]}, source {found['source_hash'][:16]}")
    lines.append(
        f"training sees: random resized crop {data.train_crop} px, area {data.crop_area[0]:g} to "
        f"{data.crop_area[1]:g}, aspect {data.crop_aspect[0]:.3g} to {data.crop_aspect[1]:.3g}, flip {data.flip:g}"
    )
    lines.append(f"evaluation sees: {geometry(data)}")
    lines += [f"look at {path}" for path in _sheets(data)]
    return "\n".join(lines)


def geometry(data: DataConfig) -> str:
    """The evaluation's way from stored image to network, in one line, for display next to its numbers."""
    if data.backend == "folder":
        return (
            f"torchvision's Resize({data.eval_resize}), CenterCrop({data.eval_crop}), PIL bilinear with antialiasing, "
            "from the source's own pixels"
        )
    crop = f"the centre that Resize({data.eval_resize}), CenterCrop({data.eval_crop}) shows, in one step"
    write = data.write
    stored = {
        "raw": "raw",
        "jpg": f"JPEG quality {write.jpeg_quality}",
        "proportion": f"{write.compress_probability:.0%} JPEG quality {write.jpeg_quality}, the rest raw",
    }[write.mode]
    return f"{crop}, OpenCV INTER_AREA, from images stored with at most {write.max_side} px a side, {stored}"


def _stored(data: DataConfig, split: str, found: Fingerprint) -> list[str]:
    index = fingerprint.open_beton(data, split).index
    longer = np.maximum(index.heights, index.widths)
    counts = np.bincount(index.labels)
    sizes = index.sizes.astype(np.int64)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fits = (
        "fits in this machine's memory: read from disk once, then from the cache"
        if index.file_bytes < 0.8 * memory
        else "larger than this machine's memory: every epoch reads from disk, and loading may be bound by it"
    )
    imagenet = ""
    if data.embedded or data.name == "imagenet":  # a rehearsal of it, or a part
        imagenet = f" (ImageNet's {IMAGENET:,} images would take {sizes.mean() * IMAGENET / 1e9:,.0f} GB at that size)"
    return [
        f"  {counts.min():,} to {counts.max():,} images a class",
        f"  stored {index.widths.mean():.0f} x {index.heights.mean():.0f} pixels on average, longer side "
        f"{longer.min()} to {longer.max()}, {found['jpeg_images'] / found['num_images']:.0%} JPEG",
        f"  {index.file_bytes / 1e9:.3f} GB, {sizes.mean() / 1e3:.1f} kB an image{imagenet}",
        f"  {fits}",
    ]


def _sheets(data: DataConfig) -> list[Path]:
    from PIL import Image, ImageDraw

    from adarem.data.loaders import open_eval, open_train

    train = open_train(data, global_batch_size=1, seed=0, rank=0, world_size=1, device="cpu")
    chosen = np.linspace(0, train.num_images - 1, min(ROWS, train.num_images)).astype(np.int64)
    with train.reader.read([index_words(e, chosen) for e in range(VIEWS)], pin=False) as batches:
        views = [(images.numpy(), labels.tolist()) for images, labels in batches]
    train.close()
    val = open_eval(data, batch_size=1, rank=0, world_size=1, device="cpu")
    spread = np.linspace(0, val.num_images - 1, min(ROWS * VIEWS, val.num_images)).astype(np.int64)
    with val.reader.read([index_words(0, spread)], pin=False) as batches:
        crops, labels = next(batches)
    val.close()
    classes = fingerprint.read_fingerprint(data, "train")["classes"]
    train_tiles = [(views[e][0][r], classes[views[e][1][r]]) for r in range(len(chosen)) for e in range(VIEWS)]
    val_tiles = [(crop.numpy(), classes[label]) for crop, label in zip(crops, labels.tolist(), strict=True)]
    paths = []
    for split, tiles in (("train", train_tiles), ("val", val_tiles)):
        rows = -(-len(tiles) // VIEWS)
        sheet = Image.new("RGB", (VIEWS * (TILE + 4), rows * (TILE + 18)), "white")
        draw = ImageDraw.Draw(sheet)
        for k, (pixels, name) in enumerate(tiles):
            x, y = k % VIEWS * (TILE + 4), k // VIEWS * (TILE + 18)
            sheet.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS), (x, y))
            draw.text((x + 2, y + TILE + 2), name, fill="black")
        path = Path(data.beton_dir) / f"summary-{split}.png"
        picture = io.BytesIO()
        sheet.save(picture, "PNG")
        write_atomically(path, picture.getvalue())
        paths.append(path)
    return paths
