"""The plain backend shows what torchvision shows, and needs no FFCV."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adarem.data.loaders import open_eval, open_train
from adarem.data.prepare import prepare
from adarem.run.errors import UserError
from tests.support.photos import data_config, file_states


def test_folder_evaluates_as_torchvision_does(photos):
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

    data = photos(backend="folder")
    theirs = ImageFolder(Path(data.root) / "val", Compose([Resize(110), CenterCrop(96), PILToTensor()]))
    for indices, images, labels in open_eval(data, batch_size=8, rank=0, world_size=1, device="cpu"):
        for i, image, label in zip(indices.tolist(), images, labels, strict=True):
            assert torch.equal(theirs[i][0], image) and theirs[i][1] == label


def test_folder_needs_no_ffcv(photos):
    program = f"""
import sys
sys.modules["ffcv"] = sys.modules["numba"] = None
from pathlib import Path
from tests.support.photos import data_config
from adarem.data.loaders import open_train
if __name__ == "__main__":
    data = data_config(Path({photos().root!r}), backend="folder", workers=1)
    next(open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu").epoch(0))
    assert not {{"hydra", "wandb", "pandas"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_folder_backend_writes_no_beton(photo_root):
    data = data_config(photo_root, backend="folder")
    prints = prepare(data, workers=1, progress=False)
    assert not list((photo_root / "ffcv").glob("*.beton*"))
    assert prints["train"] == json.loads((photo_root / "ffcv" / "train.folder.json").read_text())
    before = file_states(photo_root / "ffcv")
    assert prepare(data, workers=1, progress=False) == prints and file_states(photo_root / "ffcv") == before


def test_folder_file_that_goes_bad_later_is_named(photo_root):
    data = data_config(photo_root, backend="folder")
    prepare(data, workers=1, progress=False)
    victim = sorted((photo_root / "train").glob("*/*"))[11]
    victim.write_bytes(victim.read_bytes()[:700])
    loader = open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu")
    with pytest.raises(UserError, match=f"{victim.name}: sample 11 does not decode"):
        list(loader.epoch(0))


def test_workers_in_a_deep_temporary_folder_hand_over_their_images(photos, tmp_path: Path) -> None:
    """Their socket's name would be longer than Linux takes, and the first batch never come."""
    deep = tmp_path / ("d" * 150)
    deep.mkdir()
    program = f"""
from pathlib import Path
from tests.support.photos import data_config
from adarem.data.loaders import open_train
data = data_config(Path({photos().root!r}), backend="folder", workers=1)
next(open_train(data, global_batch_size=4, seed=0, rank=0, world_size=1, device="cpu").epoch(0))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "TMPDIR": str(deep)})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
