"""scikit-learn's 1,797 handwritten digits as JPEGs in ImageNet's layout: the embedded data set of the rehearsals.

Real images (UCI Optical Recognition of Handwritten Digits, 8 x 8 pixels), upscaled to 64 x 64, with a fixed stratified
split of 1,437 for training and 360 for validation.
"""

import io
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from adarem.data.fingerprint import SPLITS
from adarem.data.ownership import check_same
from adarem.run.errors import UserError

SIDE = 64  # pixels
TRAIN, VAL = 1437, 360
_MARK = ".digits-1"  # in the root when the tree is complete; raise the number when the images change


def write_digits(root: Path) -> None:
    """Writes ``root/train/<digit>/<number>.JPEG`` and ``root/val/...``; does nothing when they are there.

    Each split is written under a temporary name and renamed, and a mark file comes last, so an interrupted call leaves
    nothing that looks complete. Two processes may call at once: both write the same bytes and the first rename wins.

    Raises:
        UserError: there is a ``train`` or ``val`` that is not exactly what this writes. It stays as it is.
    """
    root = Path(root)
    if (root / _MARK).exists() and all((root / split).is_dir() for split in SPLITS):
        return
    made = _jpegs()
    missing = [split for split in SPLITS if not os.path.lexists(root / split)]
    for split in SPLITS:
        if split not in missing:  # of an interrupted call: the mark file is missing
            _check_own(root / split, made[split])
    root.mkdir(parents=True, exist_ok=True)
    for split in missing:
        partial = root / f".{split}.{secrets.token_hex(8)}.partial"
        partial.mkdir()
        try:
            for name, payload in made[split].items():
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_bytes(payload)
            try:
                os.rename(partial, root / split)
            except OSError:  # another process was faster
                _check_own(root / split, made[split])
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # its name is this call's own
    (root / _MARK).touch()


def _jpegs() -> dict[str, dict[str, bytes]]:
    """Each split's files by name, ``<digit>/<number>.JPEG``."""
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    everything = np.arange(len(images))
    train, val = train_test_split(everything, test_size=VAL, train_size=TRAIN, stratify=labels, random_state=0)
    made: dict[str, dict[str, bytes]] = {}
    for split, members in zip(SPLITS, (train, val), strict=True):
        made[split] = {}
        for i in np.sort(members):
            grey = Image.fromarray((images[i].reshape(8, 8) * 255 / 16).round().astype(np.uint8))
            buffer = io.BytesIO()
            grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB").save(buffer, "JPEG", quality=95)
            made[split][f"digit{labels[i]}/{i:04d}.JPEG"] = buffer.getvalue()
    return made


def _check_own(folder: Path, made: Mapping[str, bytes]) -> None:
    """Raises UserError unless ``folder`` holds these files and nothing else."""
    found = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_symlink() or not p.is_dir()}
    foreign = [path for name, path in found.items() if name not in made]
    if foreign:
        raise UserError(f"{foreign[0]}: no embedded digit, and not overwritten; choose another data.root")
    if len(found) < len(made):
        raise UserError(
            f"{folder}: holds {len(found)} of {len(made)} embedded digits, and is not overwritten; "
            "choose another data.root"
        )
    for name, payload in made.items():
        check_same(folder / name, payload, "the embedded digit of this name")
