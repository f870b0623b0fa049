"""scikit-learn's 1,797 handwritten digits as JPEGs in ImageNet's layout: the embedded data set of the rehearsals.

Real images (UCI Optical Recognition of Handwritten Digits, 8 x 8 pixels), upscaled to 64 x 64, with a fixed stratified
split of 1,437 for training and 360 for validation.
"""

import io
import os
import secrets
import shutil
from pathlib import Path

import numpy as np

from adarem.run.errors import UserError

SIDE = 64  # pixels
TRAIN, VAL = 1437, 360
_MARK = ".digits-1"  # in the root when the tree is complete; raise the number when the images change


def write_digits(root: Path) -> None:
    """Writes ``root/train/<digit>/<number>.JPEG`` and ``root/val/...``; does nothing when they are there.

    Each split is written under a temporary name and renamed, and a mark file comes last, so an interrupted call leaves
    nothing that looks complete. Two processes may call at once: both write the same bytes and the first rename wins.
    """
    root = Path(root)
    if (root / _MARK).exists() and all((root / split).is_dir() for split in ("train", "val")):
        return
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    everything = np.arange(len(images))
    train, val = train_test_split(everything, test_size=VAL, train_size=TRAIN, stratify=labels, random_state=0)
    root.mkdir(parents=True, exist_ok=True)
    for split, members in (("train", train), ("val", val)):
        partial = root / f".{split}.{secrets.token_hex(8)}.partial"
        partial.mkdir()
        try:
            for i in np.sort(members):
                folder = partial / f"digit{labels[i]}"
                folder.mkdir(exist_ok=True)
                grey = Image.fromarray((images[i].reshape(8, 8) * 255 / 16).round().astype(np.uint8))
                buffer = io.BytesIO()
                grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB").save(buffer, "JPEG", quality=95)
                (folder / f"{i:04d}.JPEG").write_bytes(buffer.getvalue())
            target = root / split
            if target.exists():  # left by an older version or an interrupted call: the mark file is missing
                _replace(target)
            try:
                os.rename(partial, target)
            except OSError:  # another process was faster
                if not target.is_dir():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    (root / _MARK).touch()


def _replace(target: Path) -> None:
    """Removes a tree that holds nothing but files which `write_digits` wrote.

    Raises:
        UserError: it holds another file.
    """
    foreign = [p for p in target.rglob("*") if p.is_file() and not (p.suffix == ".JPEG" and p.stem.isdigit())]
    if foreign:
        raise UserError(f"{target}: holds {foreign[0].name}, which is no digit; choose another data.root")
    shutil.rmtree(target, ignore_errors=True)
