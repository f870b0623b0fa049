"""The user's own folder counts before what comes with adarem, file by file."""

from pathlib import Path

import pytest

from adarem import resources
from adarem.launch.slurm.commands import report_command
from adarem.plan.plan import make_plan
from adarem.resources import config_dirs, config_files, paper_file, shipped_configs, slurm_script
from adarem.run.errors import UserError
from tests.support import ROOT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ADAREM_CONFIGS", raising=False)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def optimizer(name: str) -> str:
    return (shipped_configs() / "optimizer" / f"{name}.yaml").read_text()


def test_a_checkout_has_everything_at_its_top(here: Path) -> None:
    assert config_dirs() == [ROOT / "configs"]
    assert slurm_script("run.sbatch") == ROOT / "slurm" / "run.sbatch"
    assert paper_file("table2.csv", here / "results") == ROOT / "results" / "paper" / "table2.csv"
    assert make_plan(["data=digits"]).folder == here / "runs" / "table2-digits"


def test_a_folder_with_one_file_of_the_users_own(here: Path) -> None:
    """A new name stands next to adarem's, and everything else is found as before."""
    write(here / "configs" / "optimizer" / "mine.yaml", optimizer("sgdm").replace("lr: 0.4", "lr: 0.125"))
    plan = make_plan(["data=digits", "optimizer=mine,sgdm"])
    assert [(c.config.run_name, c.config.optimizer.lr) for c in plan.runs] == [
        ("resnet18-mine-s0", 0.125),
        ("resnet18-sgdm-s0", 0.4),
    ]
    with pytest.raises(UserError, match="did you mean 'mine'"):
        make_plan(["data=digits", "optimizer=minne"])


def test_a_grid_of_the_users_own(here: Path) -> None:
    text = (shipped_configs() / "grid" / "table2.yaml").read_text()
    write(here / "configs" / "grid" / "mine.yaml", text.replace("name: table2", "name: mine"))
    assert make_plan(["grid=mine", "data=digits", "optimizer=adam"]).folder.name == "mine-digits"


def test_a_users_file_replaces_the_one_of_its_name(here: Path) -> None:
    write(here / "configs" / "optimizer" / "adam.yaml", optimizer("adam").replace("lr: 0.004", "lr: 0.5"))
    write(
        here / "configs" / "run.yaml",
        (shipped_configs() / "run.yaml").read_text().replace("runs_dir: runs", "runs_dir: r"),
    )
    plan = make_plan(["data=digits", "optimizer=adam"])
    assert plan.runs[0].config.optimizer.lr == 0.5 and plan.runs_dir == here / "r"
    assert config_files("optimizer")["adam"].parent.parent == here / "configs"
    assert config_files("optimizer")["sgdm"].parent.parent == ROOT / "configs"


def test_the_variable_names_another_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here / "configs" / "optimizer" / "mine.yaml", optimizer("adam"))
    write(here / "elsewhere" / "optimizer" / "other.yaml", optimizer("adam"))
    monkeypatch.setenv("ADAREM_CONFIGS", "elsewhere")
    assert make_plan(["data=digits", "optimizer=other"]).runs[0].config.run_name == "resnet18-other-s0"
    with pytest.raises(UserError, match="optimizer=mine: no such file"):
        make_plan(["data=digits", "optimizer=mine"])


def test_a_script_of_the_users_own(here: Path) -> None:
    write(here / "slurm" / "report.sbatch", "#!/bin/bash\n")
    cluster = make_plan(["data=digits"]).runs[0].config.cluster
    assert str(here / "slurm" / "report.sbatch") in report_command(here, [], cluster)
    assert slurm_script("run.sbatch").parent == ROOT / "slurm"


def test_a_package_has_them_in_a_folder_of_its_own(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = here / "lib" / "python3" / "site-packages" / "adarem"
    monkeypatch.setattr(resources, "_PACKAGE", package)
    with pytest.raises(UserError, match="configs: no run.yaml there; the installation is incomplete"):
        config_dirs()
    with pytest.raises(UserError, match="run.sbatch: no such file; the installation is incomplete"):
        slurm_script("run.sbatch")
    with pytest.raises(UserError, match="table2.csv: no such file"):
        paper_file("table2.csv", here)
    for name in ("configs/run.yaml", "slurm/run.sbatch", "results/paper/table2.csv"):
        write(package / "shipped" / name, "")
    assert config_dirs() == [package / "shipped" / "configs"]
    assert slurm_script("run.sbatch") == package / "shipped" / "slurm" / "run.sbatch"
    assert paper_file("table2.csv", here) == package / "shipped" / "results" / "paper" / "table2.csv"
