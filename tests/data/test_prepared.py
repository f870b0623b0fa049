"""One answer to whether a data set is prepared: complete, and written with the config's settings."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.data import check_prepared, is_prepared
from adarem.data.text.corpus import text_path
from adarem.run.config import DataConfig, TextConfig, WriteConfig
from adarem.run.errors import UserError
from tests.support.texts import text_config


@pytest.fixture(params=["ffcv", "folder"])
def prepared(request: pytest.FixtureRequest, photos: Callable[..., DataConfig], tmp_path: Path) -> DataConfig:
    """A prepared data set whose files a test may change."""
    folder = tmp_path / "ffcv"
    shutil.copytree(photos().beton_dir, folder)
    return photos(backend=request.param, beton_dir=str(folder))


def problem(data: DataConfig | TextConfig) -> str:
    """What keeps the data set from being prepared; both functions agree on it."""
    assert not is_prepared(data)
    with pytest.raises(UserError) as error:
        check_prepared(data)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_complete_files_are_prepared(prepared: DataConfig) -> None:
    assert is_prepared(prepared)
    check_prepared(prepared)


@pytest.mark.parametrize("split", ["train", "val"])
def test_either_split_can_be_missing(prepared: DataConfig, split: str) -> None:
    ending = "beton" if prepared.backend == "ffcv" else "folder.files"
    (Path(prepared.beton_dir) / f"{split}.{ending}").unlink()
    assert problem(prepared).startswith(f"{prepared.beton_dir}/{split}.{ending}: no such file")


def test_a_cut_file_is_not_prepared(photos: Callable[..., DataConfig], tmp_path: Path) -> None:
    shutil.copytree(photos().beton_dir, tmp_path / "ffcv")
    data = photos(beton_dir=str(tmp_path / "ffcv"))
    path = tmp_path / "ffcv" / "val.beton"
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: " in problem(data) and "truncated" in problem(data)


def test_other_settings_are_another_data_set(photos: Callable[..., DataConfig]) -> None:
    smaller = WriteConfig("jpg", 128, 80, 0.5)
    assert "train.beton: written with another data.write; run `adarem prepare" in problem(photos(write=smaller))
    assert is_prepared(photos(backend="folder", write=smaller))  # the folder's pixels are the source's


def test_text_is_prepared_when_its_files_are_right(tmp_path: Path) -> None:
    data = text_config(tmp_path)
    assert "ptb.train.txt: cannot be read" in problem(data)
    for split in ("train", "val", "test"):
        text_path(data, split).write_text("the cat sat\n")
    assert is_prepared(data)
    assert "has 929,589" in problem(dataclasses.replace(data, expected_train=929589))
