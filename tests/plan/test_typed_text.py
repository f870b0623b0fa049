"""Settings that are text: on the command line and in files they are what was typed."""

from pathlib import Path

import pytest

from adarem.plan.compose import parse
from adarem.plan.plan import make_plan
from adarem.plan.typed_text import as_typed, restore_text
from adarem.run.errors import UserError


@pytest.mark.parametrize(
    "typed",
    ["12:00:00", "1-12:00:00", "90", "0123", "1e5", "1_000", "0x1f", "off", "yes", "True", "nan", ".5", "1.10",
     "2026-01-01", "größe", "a~b", "a#b", "a;b", "a&b", "a!b", "a<b>"],
)  # fmt: skip
def test_a_setting_that_is_text_is_what_was_typed(typed: str) -> None:
    for key in ("cluster.account", "wandb.project", "data.label", "cluster.time"):
        override = parse([f"{key}={typed}"])[key]
        assert str(override.value()) == typed and not isinstance(override.value(), int | float)
        assert as_typed(as_typed(f"{key}={typed}")) == as_typed(f"{key}={typed}")


def test_other_settings_and_hydras_own_forms_are_left_to_it() -> None:
    for left in (
        "optimizer.lr=1e-1", "cluster.account=null", "cluster.account=", 'cluster.account="007"', "~grid.axes",
        "data.root=${oc.env:HOME}", 'cluster.extra=["--qos=x"]', "model=resnet18,resnet50", "scale.epochs=010",
        "cluster.partition=gpu", "data.root=/data/imagenet", "model.init=./w.pt",
    ):  # fmt: skip
        assert as_typed(left) == left
    assert parse(["optimizer.lr=1e-1"])["optimizer.lr"].value() == 0.1


def test_a_path_begins_with_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    for key in ("data.root", "data.beton_dir", "runs_dir", "results_dir", "model.init", "grid.settings_from"):
        assert as_typed(f"{key}=~/x") == f"{key}=/home/someone/x"
        assert as_typed(f"{key}='~/my x'") == f"{key}='/home/someone/my x'"
    with pytest.raises(UserError, match="~nobody-of-that-name/x: no such home; name the folder, or ./~nobody"):
        as_typed("data.root=~nobody-of-that-name/x")


def test_files_of_configs_are_read_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML 1.1 reads 43200, 83 and False."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "cluster").mkdir(parents=True)
    (tmp_path / "configs" / "cluster" / "ours.yaml").write_text(
        "defaults: [slurm]\ntime: 12:00:00\naccount: 0123\npartition: off\n"
    )
    chosen = ["grid=table2", "data=digits", "scale=smoke", "optimizer=sgdm", "model=shufflenet_v2_0.5"]
    cluster = make_plan([*chosen, "cluster=ours"]).runs[0].config.cluster
    assert (cluster.time, cluster.account, cluster.partition) == ("12:00:00", "0123", "off")


def test_a_number_that_no_file_has_stays_one() -> None:
    raw: dict[str, object] = {"cluster": {"account": 12345}}
    restore_text(raw)
    assert raw == {"cluster": {"account": 12345}}
