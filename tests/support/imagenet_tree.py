"""Generates a tree that looks like ImageNet: wnids, names, sizes of files and images, and its oddities.

The pictures are noise with the spectrum of photographs (power falls with the square of the frequency), so that JPEG
sizes and decoding times are like those of the real set. For tests and speed measurements only.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

# (width, height) and how often: like the real set, mostly 500 pixels on the longer side, average near 500 x 375
SIZES = (
    ((500, 375), 44),
    ((375, 500), 16),
    ((500, 333), 16),
    ((333, 500), 6),
    ((500, 400), 6),
    ((640, 480), 4),
    ((300, 225), 3),
    ((160, 120), 2),
    ((1024, 768), 2),
    ((75, 100), 1),
)


def photograph(width: int, height: int, seed: int) -> np.ndarray:
    """uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    falloff = 1 / np.maximum(np.hypot(fy, fx), 1 / max(width, height)) ** 1.15
    planes = []
    for strength in (1.0, 0.35, 0.35):  # luminance and two colour differences
        wave = np.fft.irfft2(falloff * np.exp(2j * np.pi * rng.random(falloff.shape)), (height, width))
        planes.append(strength * wave / wave.std())
    y, u, v = planes
    rgb = np.stack([y + u, y - 0.5 * u - 0.5 * v, y + v], axis=-1) * 52 + 118
    return rgb.clip(0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int = 91, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def with_comment(payload: bytes, text: str) -> bytes:
    """The same JPEG with a comment segment behind its first marker: other bytes, same pixels."""
    comment = text.encode()
    return payload[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + payload[2:]


def make_imagenet_tree(
    root: Path,
    classes: int = 1000,
    train_per_class: int = 3,
    val_per_class: int = 1,
    seed: int = 0,
    distinct: int = 48,
    oddities: bool = True,
) -> None:
    """Writes ``root/train/<wnid>/<wnid>_<n>.JPEG`` and ``root/val/<wnid>/ILSVRC2012_val_<n>.JPEG``.

    ``distinct`` pictures are drawn and encoded; files repeat them with a comment of their own, so that no two files are
    equal and thousands cost seconds. With ``oddities`` the first three training images are a greyscale JPEG, a CMYK
    JPEG and a PNG named .JPEG, as the real set holds some.
    """
    rng = np.random.default_rng(seed)
    sizes = [size for size, weight in SIZES for _ in range(weight)]
    kinds = [sizes[k] for k in rng.permutation(len(sizes))]
    pictures = [jpeg(photograph(*kinds[k % len(kinds)], seed=1000 * seed + k)) for k in range(distinct)]
    count = 0
    for c in range(classes):
        wnid = f"n{1440764 + 7919 * c:08d}"
        for split, number in (("train", train_per_class), ("val", val_per_class)):
            folder = Path(root) / split / wnid
            folder.mkdir(parents=True, exist_ok=True)
            for _ in range(number):
                count += 1
                name = f"{wnid}_{count}.JPEG" if split == "train" else f"ILSVRC2012_val_{count:08d}.JPEG"
                (folder / name).write_bytes(with_comment(pictures[int(rng.integers(distinct))], name))
    if oddities:
        first = sorted((Path(root) / "train").glob("*/*.JPEG"))[:3]
        picture = photograph(500, 375, seed=999)
        png = io.BytesIO()
        Image.fromarray(picture).save(png, "PNG")
        for path, payload in zip(
            first, (jpeg(picture, mode="L"), jpeg(picture, mode="CMYK"), png.getvalue()), strict=False
        ):
            path.write_bytes(payload)
