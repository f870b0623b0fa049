from pathlib import Path

import pytest

from adarem.run.directory import RunDir
from tests.support.sweeps import finish, make_config, write_grid


@pytest.fixture
def two_seeds(dirs: tuple[Path, Path]) -> tuple[Path, list[RunDir]]:
    """The folder of Table 2 with two finished seeds of SGDM, and their runs."""
    folder = write_grid(dirs[0], seeds=[0, 1])
    return folder, [finish(folder, make_config("resnet18", "sgdm", s), 70.0 + s, loss=1.0 + s) for s in (0, 1)]
