"""A sweep's grid is one typed object from plan to the report, in files of this format and of the one before."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from adarem.run.errors import UserError
from adarem.run.sweep import (
    LONGEST_NAME,
    PaperPart,
    SweepSpec,
    heading,
    overrides_text,
    read_sweep,
    run_name,
    same_setting,
    scale_in_name,
    setting_text,
    spec_from_dict,
    spec_to_dict,
    sweep_name,
    write_sweep,
)
from tests.support import ROOT

GOLDEN = ROOT / "tests" / "golden"
OLD = sorted((GOLDEN / "sweeps").glob("*/*/grid.yaml"))
SPEC = SweepSpec(
    name="table9",
    axes={"model": ("resnet18",), "optimizer": ("adam", "adarem"), "optimizer.lr": ("0.1", "0.2")},
    metrics=("top1", "top5"),
    paper=PaperPart("Table 9", "table9.csv"),
    seeds=(0, 3),
    settings=("train.compile=true",),
    overrides={"λ 0.9": {"optimizer.lam": 0.9}, "plain": {}},
    search={"adam": {"optimizer.lr": (0.1, 1)}},
    settings_from="table9_search",
    data="digits",
    scale="rehearsal",
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_sweep(tmp_path, SPEC)
    assert read_sweep(tmp_path) == SPEC
    assert spec_from_dict(spec_to_dict(SPEC)) == SPEC


@pytest.mark.parametrize("path", OLD, ids=lambda p: p.parent.name)
def test_files_of_before_are_read(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    spec = read_sweep(path.parent)
    assert (spec.name, spec.title, spec.settings_from) == (raw["name"], raw["title"], raw.get("winners"))
    assert {k: list(v) for k, v in spec.axes.items()} == raw["axes"]
    assert (list(spec.metrics), list(spec.seeds)) == (raw["metrics"], raw["seeds"])
    assert spec.labels.overrides == raw["labels"]["settings"] and spec.labels.model == raw["labels"]["model"]
    assert spec.paper is not None and spec.paper.values == raw["paper"]  # all of them are the paper's
    assert spec_from_dict(spec_to_dict(spec)) == spec


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"variants": {"a": {"optimizer.lam": 0.9}}}, {"overrides": {"a": {"optimizer.lam": 0.9}}}),
        ({"winners": "x_search"}, {"settings_from": "x_search"}),
        ({"labels": {"settings": {"lam=0.9": "a"}}}, {"labels": {"overrides": {"lam=0.9": "a"}}}),
        ({"paper": "table2.csv"}, {"paper": {"source": "Table 2", "values": "table2.csv"}}),
        ({"settings": None, "search": None}, {}),
    ],
)
def test_old_and_new_keys_read_alike(old: dict, new: dict) -> None:
    common = {"name": "table2", "axes": {"model": ["resnet18"], "optimizer": ["adam"]}, "metrics": ["top1"]}
    assert spec_from_dict(common | old) == spec_from_dict(common | new | {"format": 2})


@pytest.mark.parametrize("name", ["figure2", "lambda", "table3_search"])
def test_grids_without_printed_numbers_were_the_papers(name: str) -> None:
    raw = {"name": name, "axes": {"model": ["resnet18"], "optimizer": ["adam"]}, "metrics": ["top1"], "paper": None}
    of_before = spec_from_dict(raw)
    assert of_before.paper is not None and of_before.paper.values is None
    assert spec_from_dict(raw | {"format": 2}).paper is None
    assert spec_from_dict(raw | {"name": "mine"}).paper is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"axes": {"model": 5}}, "axes.model=5: needs a list of str; plan the grid again"),
        ({"metrics": "top1"}, "metrics='top1': needs a list of str; plan the grid again"),
        ({"labels": {"model": ["a"]}}, "labels.model=['a']: needs a mapping; plan the grid again"),
        ({"seeds": [True]}, "seeds[0]=True: needs int, not bool; plan the grid again"),
        ({"overrides": {"a": {"optimizer.lr": {}}}}, "overrides.a.optimizer.lr={}: needs str or int or float or"),
        ({"metrix": []}, "metrix: no such key; did you mean 'metrics'?; plan the grid again"),
    ],
)
def test_a_damaged_file_is_one_line(changed: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(spec_to_dict(SPEC) | changed))
    with pytest.raises(UserError) as caught:
        read_sweep(tmp_path)
    assert f"{path}: {message}" in str(caught.value) and "\n" not in str(caught.value)


def test_no_sweep_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no grid.yaml there; `adarem plan` makes it"):
        read_sweep(tmp_path)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SPEC.name = "other"  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("data", "scale", "name"),
    [
        ("imagenet", "paper", "table2"),
        ("imagenet", "smoke", "table2-smoke"),
        ("ptb", "paper_text", "table2"),
        ("digits", "rehearsal", "table2-digits"),
        ("digits", "smoke", "table2-digits-smoke"),
        ("pydoc", "rehearsal_text", "table2-pydoc"),
        ("mine", "small", "table2-mine"),
        ("mine", "paper", "table2-mine-paper"),
    ],
)
def test_names_of_sweeps(data: str, scale: str, name: str) -> None:
    assert sweep_name("table2", data, scale) == name


def test_the_papers_folder_is_for_reproductions_alone() -> None:
    assert scale_in_name("imagenet", "paper", reproduces=False) == "trial"
    assert scale_in_name("imagenet", "paper", reproduces=True) == "paper"
    assert scale_in_name("imagenet", "smoke", reproduces=False) == "smoke"
    assert scale_in_name("digits", "rehearsal", reproduces=False) == "rehearsal"


def test_run_names_are_safe_file_names() -> None:
    assert run_name("timm:resnet10t", "adarem", 2, {"optimizer.lr": 0.1}) == "timm_resnet10t-adarem-lr=0.1-s2"
    two = {"model.hidden": 24, "model.dropout.hidden": 0.1}  # of one last word: both stay
    assert run_name("awd_lstm", "adam", 0, two) == "awd_lstm-adam-hidden=0.1-hidden=24-s0"
    assert "/" not in run_name("a/../b", "$(rm -rf ~)", 0, {"x.y": "a b\n'c'"})
    assert " " not in run_name("a", "b", 0, {"x.y": "a b"})
    long = [run_name("a", "b", 0, {f"x.key{i}": v for i in range(60)}) for v in (1, 2)]
    assert long[0] != long[1] and all(len(name) <= LONGEST_NAME for name in long)


def test_a_long_name_is_short_and_of_one_run() -> None:
    model, optimizer = "timm:vit_tiny_patch16_224", "my_package.some_module:MyOptimizer"
    settings = {"optimizer.weight_decay": 0.05, "optimizer.betas": "[0.9,0.99]"}
    names = [run_name(model, optimizer, seed, settings) for seed in (0, 1)]
    assert names[0].startswith("vit_tiny_patch16_224-MyOptimizer-betas=0.9_0.99") and len(names[0]) <= LONGEST_NAME
    assert names[0].removesuffix("s0") == names[1].removesuffix("s1")  # seeds of one cell
    other = [
        run_name(model, "other_package.some_module:MyOptimizer", 0, settings),
        run_name(model, optimizer, 0, settings | {"optimizer.weight_decay": 0.06}),
        run_name(model, optimizer, 0, {"optimizer.weight_decay": 0.05, "model.betas": "[0.9,0.99]"}),
        run_name(model, "my_package_some_module_MyOptimizer", 0, settings),
    ]
    assert len({names[0], *other}) == 5
    assert run_name("mobilenet_v2_0.5", "adarem_s", 0, {"optimizer.lr": 0.4}) == "mobilenet_v2_0.5-adarem_s-lr=0.4-s0"


def test_settings_are_the_same_however_a_number_is_written() -> None:
    assert same_setting("1e-4", 0.0001) and same_setting(1, "1.0") and same_setting("[0.9,0.99]", (0.9, 0.99))
    assert not same_setting("0.1", "0.2") and not same_setting("step", "epoch") and not same_setting(None, "0.1")


def test_words() -> None:
    assert overrides_text({"optimizer.weight_decay": 0.0005, "optimizer.lam": 0.9}) == "lam=0.9, weight_decay=0.0005"
    assert overrides_text({}) == ""
    assert [heading(g) for g in ("table2", "figure2", "table3_search", "lambda", "tables")] == [
        "Table 2", "Figure 2", "Table 3 search", "lambda", "tables",
    ]  # fmt: skip


def test_lists_switches_and_none_are_settings_and_read_as_on_the_command_line(tmp_path: Path) -> None:
    settings = {"optimizer.betas": [0.9, 0.99], "optimizer.nesterov": True, "optimizer.cap": None}
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(spec_to_dict(SPEC) | {"overrides": {"a": settings}}))
    found = read_sweep(tmp_path).overrides["a"]
    assert found == {"optimizer.betas": (0.9, 0.99), "optimizer.nesterov": True, "optimizer.cap": None}
    assert [setting_text(found[key]) for key in settings] == ["[0.9,0.99]", "True", "null"]
