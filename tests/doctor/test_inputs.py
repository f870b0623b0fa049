"""The data set and the key for Weights & Biases."""

import dataclasses
from pathlib import Path

import pytest

from adarem.doctor import doctor, inputs
from adarem.doctor.check import Outcome
from adarem.run.config import RunConfig
from tests.support.doctor import found
from tests.support.texts import text_config


def test_the_wandb_key_is_never_printed(
    answers: dict[str, Outcome],
    config: RunConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    online = dataclasses.replace(config, wandb=dataclasses.replace(config.wandb, mode="online"))
    assert found(online, "wandb")[0].ok is False and found(config, "wandb")[0].ok is None
    monkeypatch.setenv("WANDB_API_KEY", "secret-0123456789")
    assert found(online, "wandb")[0].ok
    doctor(config)
    assert "secret" not in capsys.readouterr().out


def test_images(answers: dict[str, Outcome], config: RunConfig, tmp_path: Path) -> None:
    assert "made by `adarem launch`" in found(config, "data")[0].found
    real = dataclasses.replace(config, data=dataclasses.replace(config.data, embedded=False))
    (missing,) = found(real, "data")
    assert missing.ok is False and f"{tmp_path}/digits/train: no such folder" in missing.found
    for split in ("train", "val"):
        for i in range(10):
            (tmp_path / "digits" / split / str(i)).mkdir(parents=True)
    assert found(real, "data")[0].ok
    (tmp_path / "digits" / "val" / "9").rmdir()
    (tmp_path / "digits" / "val" / "@eaDir").mkdir()
    assert "val: 9 class folders" in found(real, "data")[0].found


def test_images_in_archives(answers: dict[str, Outcome], config: RunConfig, tmp_path: Path) -> None:
    real = dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(tmp_path / "a"), embedded=False))
    (tmp_path / "a" / "val").mkdir(parents=True)
    (tmp_path / "a" / "ILSVRC2012_img_train.tar").touch()
    assert "val: 0 class folders" in found(real, "data")[0].found
    (tmp_path / "a" / "val" / "ILSVRC2012_val_00000001.JPEG").touch()
    assert found(real, "data")[0].ok


def test_prepared_images_are_counted(config: RunConfig, digits_root: Path) -> None:
    data = dataclasses.replace(config.data, root=str(digits_root), beton_dir=str(digits_root / "ffcv"), embedded=False)
    assert inputs.dataset(data).ok and "1,437 + 360 images, prepared" in inputs.dataset(data).found
    other = dataclasses.replace(data, write=dataclasses.replace(data.write, max_side=32))
    check = inputs.dataset(other)
    assert check.ok is False and "train.beton: written with another data.write" in check.found


def test_text(tmp_path: Path) -> None:
    data = text_config(tmp_path)
    missing = inputs.dataset(data)
    assert missing.ok is False and "ptb.train.txt: cannot be read" in missing.found
    assert inputs.dataset(dataclasses.replace(data, embedded=True)).ok  # a launch makes it
    for split in ("train", "valid", "test"):
        (tmp_path / f"ptb.{split}.txt").write_text("the cat sat\n")
    assert inputs.dataset(data).found == "Penn Treebank: 4 tokens for training"
