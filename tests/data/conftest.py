"""A small set of photographs, prepared once for both backends."""

from collections.abc import Callable

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
