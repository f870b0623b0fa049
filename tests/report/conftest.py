import pytest

from tests.support.sweeps import finish, make_config, write_grid


@pytest.fixture
def dirs(tmp_path, monkeypatch):
    """(runs_dir, results_dir), empty, with a terminal of known width."""
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "runs", tmp_path / "results"


@pytest.fixture
def table2_runs(dirs):
    """Table 2 on ImageNet, three seeds, SGDM and AdaRem finished: 70.5, 70.6, 70.7 and 71.0, 71.2, 71.4."""
    folder = write_grid(dirs[0], seeds=[0, 1, 2])
    for seed in range(3):
        finish(folder, make_config("resnet18", "sgdm", seed), 70.5 + 0.1 * seed, loss=1.1)
        finish(folder, make_config("resnet18", "adarem", seed), 71.0 + 0.2 * seed, loss=0.9)
    return folder
