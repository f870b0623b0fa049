"""A small set of photographs: prepared once for both backends, and copies that a test may change."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.data.prepare import prepare
from adarem.run.config import DataConfig
from tests.support.photos import data_config, make_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DataConfig]:
    """photos(backend="folder", workers=1): a config over the prepared photographs. Tests must not change the files."""
    root = tmp_path_factory.mktemp("photos")
    make_photos(root)
    for backend in ("ffcv", "folder"):
        prepare(data_config(root, backend=backend), workers=1, progress=False)
    return lambda **changes: data_config(root, **changes)


@pytest.fixture
def photo_root(photos: Callable[..., DataConfig], tmp_path: Path) -> Path:
    """A copy of the photographs, not prepared."""
    root = tmp_path / "photos"
    for split in ("train", "val"):
        shutil.copytree(Path(photos().root) / split, root / split)
    return root


@pytest.fixture
def copied(photos: Callable[..., DataConfig], tmp_path: Path) -> DataConfig:
    """The prepared photographs, with files of their own for damage."""
    shutil.copytree(photos().beton_dir, tmp_path / "ffcv")
    return photos(beton_dir=str(tmp_path / "ffcv"))
