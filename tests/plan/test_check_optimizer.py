"""Optimizers that are imported are planned like the catalog's, and refused before anything is written."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from adarem.plan.check_optimizer import OptimizerChecks, Signature, complete
from adarem.plan.child_process import ChildProcess
from adarem.plan.plan import make_plan
from adarem.run.config import from_dict, to_dict
from adarem.run.errors import UserError
from adarem.run.identity import differing_keys
from tests.support.optimizers import write_module
from tests.support.sweeps import make_config

SIGNATURE = Signature(("lr", "weight_decay", "betas", "rank"), ("rank",), {"betas": [0.9, 0.99]}, 0.1, True)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, "own_to_plan")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_settings_of_every_kind_as_axes_and_defaults_of_the_class() -> None:
    plan = make_plan(
        [
            "data=digits",
            "optimizer=own_to_plan:Mine,torch:NAdam",
            "optimizer.lr=0.1",
            "optimizer.betas=[0.9,0.99],[0.8,0.9]",
        ]
    )
    names = [r.config.run_name for r in plan.runs]
    assert names[0] == "resnet18-own_to_plan_Mine-betas=0.9_0.99-lr=0.1-s0" and len(set(names)) == 4
    mine, other, nadam, _ = (r.config.optimizer for r in plan.runs)
    assert (mine.label, mine.weight_decay) == ("Mine", 3e-4)
    assert dict(mine.hparams) == {"betas": (0.9, 0.99), "mode": "plain", "warm": False, "cap": None}
    assert other.hparams["betas"] == (0.8, 0.9)
    assert (nadam.label, nadam.weight_decay, nadam.hparams["momentum_decay"]) == ("NAdam", 0.0, 0.004)
    assert plan.spec.labels.optimizer["own_to_plan:Mine"] == "Mine"
    for planned in plan.runs:
        assert from_dict(to_dict(planned.config)) == planned.config
    plan.write()
    again = ["data=digits", "optimizer=own_to_plan:Mine", "optimizer.lr=0.1", "optimizer.betas=[0.9,0.99]"]
    assert not make_plan(again).runs[0].new


def test_a_file_names_and_labels_it_and_two_files_may_share_a_class() -> None:
    for name, share in (("hybrid", 0.1), ("hybrid2", 0.5)):
        file = Path("configs", "optimizer", f"{name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"name: own_to_plan:make\nlabel: Hybrid {share}\nlr: 0.02\nshare: {share}\n")
    plan = make_plan(["data=digits", "optimizer=sgdm,hybrid,hybrid2"])
    sgdm, first, second = (r.config.optimizer for r in plan.runs)
    assert sgdm.imported is None
    assert (first.name, first.label, first.lr, first.imported) == ("hybrid", "Hybrid 0.1", 0.02, "own_to_plan:make")
    assert (second.name, second.hparams["share"], second.weight_decay) == ("hybrid2", 0.5, 0.01)
    assert make_plan(["data=digits", "optimizer=hybrid", "optimizer.share=0.3"]).runs[0].config.optimizer.hparams == {
        "share": 0.3
    }


def test_a_grid_has_them_on_its_axis_and_in_its_search() -> None:
    file = Path("configs", "grid", "mine.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(
        "name: mine\ntitle: Mine\npaper: null\nmetrics: [top1]\nseeds: [0]\n"
        "axes: {model: [resnet18], optimizer: [sgdm, 'own_to_plan:Mine']}\n"
        "search:\n  own_to_plan:Mine: {optimizer.lr: [0.1], optimizer.betas: [[0.9, 0.99], [0.8, 0.9]],\n"
        "    optimizer.cap: [null], optimizer.warm: [true]}\n"
    )
    plan = make_plan(["grid=mine", "data=digits"])
    found = [(o.name, o.hparams.get("betas"), o.hparams.get("warm")) for o in (r.config.optimizer for r in plan.runs)]
    own = "own_to_plan:Mine"
    assert found == [("sgdm", None, None), (own, (0.9, 0.99), True), (own, (0.8, 0.9), True)]


@pytest.mark.slow  # each starts a process with torch
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["optimizer=own_to_plan:Mine"], "optimizer.lr: not given for own_to_plan:Mine, and none is guessed; give it"),
        (["optimizer=torch:Naddam", "optimizer.lr=0.1"], "torch.optim has no Naddam; did you mean 'NAdam'?"),
        (
            ["optimizer=torch:x-y", "optimizer.lr=0.1"],
            "optimizer=torch:x-y: no name of an optimizer; write MODULE:NAME",
        ),
        (["optimizer=own_to_plan:Quitting", "optimizer.lr=0.1"], r"ends the process that tries it \(exit code 3\)"),
        (["optimizer=own_to_plan:make_nothing", "optimizer.lr=0.1"], "returns NoneType, no torch.optim.Optimizer"),
        (
            ["optimizer=sgdm", "optimizer.label=Mine"],
            "optimizer.label=Mine: sgdm is printed as SGDM; leave the label out",
        ),
    ],
)
def test_refused_before_anything_is_written(overrides: list[str], line: str) -> None:
    with pytest.raises(UserError, match=line):
        make_plan(["data=digits", *overrides])
    assert not Path("runs").exists()


def test_two_optimizers_that_a_table_could_not_tell_apart_are_refused() -> None:
    Path("other_optimizers.py").write_text("from own_to_plan import Mine\n")
    with pytest.raises(
        UserError, match=r"optimizer=other_optimizers:Mine: printed as Mine, and so is own_to_plan:Mine;"
    ):
        make_plan(["data=digits", "optimizer=own_to_plan:Mine,other_optimizers:Mine", "optimizer.lr=0.1"])


def test_a_module_in_the_current_folder_is_not_found_without_pythonpath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    with ChildProcess() as child, pytest.raises(UserError, match="install it, or set PYTHONPATH to the folder"):
        OptimizerChecks(child).signature("own_to_plan:Mine")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"rank": 1}, "optimizer.lr: not given"),
        ({"lr": 1}, "optimizer.rank: mine has no default for it; give it, optimizer.rank=..."),
        ({"lr": 1, "rank": 1, "beta": 1}, "optimizer.beta: mine names no such setting; did you mean 'betas'?"),
    ],
)
def test_what_a_config_lacks(given: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=line):
        complete(given, "mine", SIGNATURE)


@pytest.mark.parametrize(
    ("default", "given", "alike"),
    [([0.9, 1.0], [0.9, 1], True), (1e-8, 1e-8, True), (0.0, 0, True), (False, 0, False), ([0.9], [0.9, 0.9], False)],
)
def test_a_default_that_is_spelled_out_is_the_default(default: object, given: object, alike: bool) -> None:
    signature = Signature(("lr", "own"), (), {"own": default}, None, False)
    left_out: dict[str, object] = {"lr": 1}
    spelled: dict[str, object] = {"lr": 1, "own": given}
    for optimizer in (left_out, spelled):
        complete(optimizer, "mine", signature)
    assert (json.dumps(left_out, sort_keys=True) == json.dumps(spelled, sort_keys=True)) is alike


def test_a_run_with_its_defaults_spelled_out_computes_the_same() -> None:
    grid = ["data=digits", "optimizer=torch:NAdam", "optimizer.lr=0.01"]
    plain, spelled = (make_plan([*grid, *more]).runs[0].config for more in ([], ["optimizer.betas=[0.9,0.999]"]))
    differing = [line.partition(":")[0] for line in differing_keys(plain, spelled)]
    assert [key for key in differing if key != "cell" and not key.startswith("overrides.")] == []


def test_weight_decay_that_a_class_does_not_take() -> None:
    plain = Signature(("lr",), (), {}, None, False)
    given: dict[str, object] = {"lr": 1}
    complete(given, "mine", plain)
    assert given["weight_decay"] == 0.0
    with pytest.raises(UserError, match="optimizer.weight_decay=0.1: mine names no such setting; leave it out"):
        complete({"lr": 1, "weight_decay": 0.1}, "mine", plain)


def test_runs_that_a_factory_is_built_for_alike_are_tried_once() -> None:
    """Seeds are alike; total_steps are not, nor is what has no weight decay."""
    asked: list[object] = []

    class Recording(ChildProcess):
        def ask(self, request: Mapping[str, object], named: str) -> dict[str, object]:
            asked.append(request)
            return {}

    raw = to_dict(make_config("resnet18", "sgdm"))
    o = {"name": "own:make", "label": "Own", "lr": 0.1, "weight_decay": 0.0}
    configs = [
        from_dict(
            raw | {"optimizer": o, "seed": seed, "scale": raw["scale"] | {"epochs": e}, "train": raw["train"] | t}
        )
        for seed in (0, 1)
        for e, t in ((1, {}), (2, {}), (2, {"decay_norm_and_bias": False}))
    ]
    with Recording() as child:
        OptimizerChecks(child).try_runs(configs)
    assert len(asked) == 3
