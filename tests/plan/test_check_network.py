"""Networks that are imported are planned like the catalog's, and refused before anything is written."""

from pathlib import Path

import pytest

from adarem.plan.check_network import NetworkSignature, complete_network
from adarem.plan.plan import make_plan
from adarem.report.load import Sweeps
from adarem.run.config import ModelConfig, from_dict, to_dict
from adarem.run.errors import UserError
from adarem.run.text_models import GptConfig, LmConfig
from tests.support.networks import write_networks

SIGNATURE = NetworkSignature(("width", "rank"), ("rank",), {"width": 8})


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_networks(tmp_path, "nets_to_plan")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def write_model(name: str, text: str) -> None:
    file = Path("configs", "model", f"{name}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_on_an_axis_with_settings_of_the_signature_and_labels() -> None:
    plan = make_plan(
        [
            "data=digits",
            "model=nets_to_plan:Small,torchvision:resnet18,resnet18",
            "optimizer=sgdm",
            "optimizer.lr=0.1,0.2",
        ]
    )
    names = [r.config.run_name for r in plan.runs]
    assert names[0] == "nets_to_plan_Small-sgdm-lr=0.1-s0" and len(set(names)) == 6
    small, library, known = (r.config.model for r in plan.runs[::2])
    assert isinstance(small, ModelConfig) and small.imported == "nets_to_plan:Small"
    assert dict(small.settings) == {"width": 8, "depth": 2, "act": "relu"}  # so a changed default changes no run
    assert [m.label for m in (small, library, known)] == ["Small", "torchvision:resnet18", "ResNet-18"]
    assert plan.spec.labels.model["nets_to_plan:Small"] == "Small"
    for planned in plan.runs:
        assert from_dict(to_dict(planned.config)) == planned.config
    plan.write()
    assert not make_plan(["data=digits", "model=nets_to_plan:Small", "optimizer=sgdm", "optimizer.lr=0.1"]).runs[0].new
    assert Sweeps(Path("runs")).matching("table2", "digits", "rehearsal")


def test_files_name_it_label_it_and_two_may_share_a_function() -> None:
    for width in (4, 12):
        write_model(f"own{width}", f"name: nets_to_plan:make_network\nlabel: Own {width}\nwidth: {width}\n")
    first, second = make_plan(["data=digits", "model=own4,own12", "optimizer=sgdm"]).runs
    for run, width in ((first, 4), (second, 12)):
        m = run.config.model
        assert isinstance(m, ModelConfig) and m.imported == "nets_to_plan:make_network"
        assert (m.name, m.label, dict(m.settings)) == (f"own{width}", f"Own {width}", {"width": width})
    changed = make_plan(["data=digits", "model=own4", "optimizer=sgdm", "model.width=6"]).runs[0].config
    assert isinstance(changed.model, ModelConfig) and changed.model.settings == {"width": 6}
    assert changed.run_name == "own4-sgdm-width=6-s0"


def test_language_models(tmp_path: Path) -> None:
    common = ["grid=table3", "data=pydoc", "optimizer=sgdm,adarem"]
    gpt, _, lm, _ = (r.config for r in make_plan([*common, "model=gpt,nets_to_plan:Lm"]).runs)
    assert isinstance(gpt.model, GptConfig) and (gpt.model.label, gpt.run_name) == ("GPT 4 x 128", "gpt-sgdm-s0")
    assert isinstance(lm.model, LmConfig) and dict(lm.model.settings) == {"width": 8, "first": True, "both": False}
    assert (lm.model.context, lm.model.label) == (64, "Lm")
    for config in (gpt, lm):
        assert from_dict(to_dict(config)) == config
    own = make_plan([*common, "model=nets_to_plan:Lm", "model.context=32", "model.width=4"]).runs[0].config.model
    assert isinstance(own, LmConfig) and (own.context, own.settings["width"]) == (32, 4)
    for overrides, line in (
        (["model=nets_to_plan:Lm", "model.vocabulary=9"], "model.vocabulary: is given by the data; leave it out"),
        (["model=gpt", "model.heads=3"], "model.heads=3: does not divide model.width=128; take a divisor"),
        (["model=gpt", "data=digits"], "model.name=gpt reads text, data.name=digits is images"),
        (["model=gpt", "train.label_smoothing=0.1"], "train.label_smoothing=0.1: gpt takes none"),
    ):
        with pytest.raises(UserError, match=line):
            make_plan([*(o for o in common if not o.startswith("data=") or "data=digits" not in overrides), *overrides])


def test_rates_of_one_network_are_not_anothers(tmp_path: Path) -> None:
    """Neither those of configs/tuned nor, as tests/plan/test_selection.py has it, those of a search."""
    runs = f'runs_dir="{tmp_path}"'
    both = make_plan(["grid=table3", "data=pydoc", "model=awd_lstm,gpt", "optimizer=sgdm", runs]).runs
    assert both[0].config.optimizer.lr == 10.0 and both[1].config.optimizer.lr < 2.0


def test_the_gpt_is_never_the_papers_table(tmp_path: Path) -> None:
    plan = make_plan(["grid=table3", "data.root=/d", "model=awd_lstm,gpt", "optimizer=sgdm", f"runs_dir={tmp_path}"])
    assert [r.standing.kind for r in plan.runs] == ["reproduction", "variation"]
    assert plan.runs[1].standing.reason.endswith("network gpt")


@pytest.mark.slow  # each starts a process with torch
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model=nets_to_plan:Small", "model.widht=3"], "model.widht: .* names no such setting; did you mean 'width'"),
        (["model=nets_to_plan:Small", "model.num_classes=3"], "model.num_classes: is given by the data; leave it out"),
        (["model=nets_to_plan:make_required"], "model.rank: nets_to_plan:make_required has no default for it; give it"),
        (["model=no_such_module_x:make"], "no module no_such_module_x can be imported; install it, or set PYTHONPATH"),
        (["model=nets_to_plan:x-y"], "model=nets_to_plan:x-y: no name of a network; write MODULE:NAME"),
        (["model=nets_to_plan:make_nothing"], "returns NoneType, no torch.nn.Module; return one"),
        (["model=nets_to_plan:Paired"], "returns a tuple of 2, not scores alone"),
        (["model=nets_to_plan:Unused"], "gives 2 of 12 parameters no gradient"),  # two ranks, as configs/cluster/local
        (["model=torchvision:alexnet"], "does not take 2 images of 32 x 32 px"),
        (["model=timm:resnet10t", "model.width=3"], "model.width: no such key .timm:resnet10t.; write a function"),
        (["model=resnet18", "+model.width=3"], "model.width: no such key .resnet18."),
        (
            ["model=nets_to_plan:Small", "model.label=resnet 18"],
            "model.label=resnet 18: is how resnet18 is printed, and this is nets_to_plan:Small; leave the label out",
        ),
    ],
)
def test_refused_before_anything_is_written(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_plan(["data=digits", "optimizer=sgdm", *overrides])
    assert not Path("runs").exists()


def test_two_networks_that_a_table_could_not_tell_apart_are_refused() -> None:
    write_model("other", "name: nets_to_plan:make_network\nlabel: Small\n")
    with pytest.raises(UserError, match=r"model=other: printed as Small, and so is nets_to_plan:Small; give one of"):
        make_plan(["data=digits", "optimizer=sgdm", "model=nets_to_plan:Small,other"])


def test_the_papers_networks_at_its_sizes_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adarem.plan.child_process.ChildProcess._started", lambda self: pytest.fail("a process"))
    for grid in ("table1", "table2"):
        make_plan([f"grid={grid}", "data.root=/data/imagenet"])
        make_plan([f"grid={grid}", "data=digits"])
    with pytest.raises(pytest.fail.Exception):
        make_plan(["data=digits", "model=resnet18", "optimizer=sgdm", "scale.global_batch_size=2"])


def test_another_network_than_the_papers_is_a_variation() -> None:
    plan = make_plan(["grid=table2", "data.root=/data/imagenet", "optimizer=sgdm", "model=resnet18,timm:resnet10t"])
    assert [r.standing.kind for r in plan.runs] == ["reproduction", "variation"]
    assert plan.runs[1].standing.reason.endswith("network timm:resnet10t")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, "model.rank: mine has no default for it; give it, model.rank=..."),
        ({"rank": 1, "wide": 1}, "model.wide: mine names no such setting; did you mean 'width'?"),
    ],
)
def test_what_a_config_lacks(given: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        complete_network({"name": "mine", "kind": "images", **given}, "mine", SIGNATURE)
