"""Small folders of one's own images, as users have them."""

from pathlib import Path

from PIL import Image


def make_folder(root: Path, *counts: int, side: int = 16, first: int = 0) -> Path:
    """``root/class0/img000.png`` and so on: as many images of each class as ``counts`` says, each of its own colour."""
    for c, count in enumerate(counts):
        (root / f"class{c}").mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            Image.new("RGB", (side, side), (40 * c % 256, 7 * i % 256, 128)).save(
                root / f"class{c}" / f"img{i:03d}.png"
            )
    return root
