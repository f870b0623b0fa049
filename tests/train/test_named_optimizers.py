"""Optimizers by where they are imported from: found, built with the settings that their signature names, recorded."""

import hashlib
import sys
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from adarem.run.config import OptimizerConfig
from adarem.run.errors import UserError
from adarem.run.setting import Value
from adarem.train.named_optimizers import build_named, load_named, source_of_optimizer
from tests.support.optimizers import write_module


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


def build(name: str, model: nn.Module, hparams: dict[str, Value] | None = None, **more: bool) -> torch.optim.Optimizer:
    given = {"lr": 0.1, "weight_decay": 0.5, "steps_per_epoch": 4, "total_steps": 8}
    return build_named(load_named(name), model, hparams=hparams or {}, **given, **more)  # type: ignore[arg-type]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_of_this_test", raising=False)  # another test's, whose file is gone
    return write_module(tmp_path, "own_of_this_test")


@pytest.mark.parametrize("name", ["torch:NAdam", "timm:lion", "pytorch_optimizer:Adan", "own_of_this_test:Mine"])
def test_classes_of_libraries_and_of_the_user(name: str, own: Path) -> None:
    model = network()
    optimizer = build(name, model, {"betas": (0.8, 0.9)} if name != "pytorch_optimizer:Adan" else {})
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.5)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert not any(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_what_a_name_of_timm_stands_for_is_kept() -> None:
    optimizer = build("timm:sgd", network(), {"momentum": 0.9})
    assert optimizer.param_groups[0]["nesterov"] is True


def test_norms_and_biases_can_be_left_undecayed(own: Path) -> None:
    optimizer = build("own_of_this_test:Mine", network(), decay_norm_and_bias=False)
    assert {(p.dim() > 1, g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]} == {
        (True, 0.5),
        (False, 0.0),
    }


def test_kinds_of_parameters_without_decay(own: Path) -> None:
    model = network()
    optimizer = build("own_of_this_test:Mine", model, no_decay=["bias"])
    free = {id(p) for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]}
    assert free == {id(p) for n, p in model.named_parameters() if n.endswith("bias")}
    with pytest.raises(UserError, match="own_of_this_test:make is a function, which makes its groups itself; leave it"):
        build("own_of_this_test:make", model, no_decay=["bias"])
    with pytest.raises(UserError, match="own_of_this_test:Flat names no weight_decay; leave it out"):
        build("own_of_this_test:Flat", model, no_decay=["bias"])


def test_a_factory_sets_groups_and_rates_of_its_own(own: Path) -> None:
    optimizer = build("own_of_this_test:make", network(), {"share": 0.25})
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.025]
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nowhere_to_be_found:Mine", "no module nowhere_to_be_found can be imported; install it, or set PYTHONPATH"),
        ("nowhere_to_be_found.part:Mine", "no module nowhere_to_be_found can be imported"),
        ("own_of_this_test:Mime", "own_of_this_test has no Mime; did you mean 'Mine'"),
        ("torch:nadam", "torch.optim has no nadam; did you mean 'NAdam'"),
        ("timm:lionn", "timm has no lionn; did you mean 'lion'"),
        ("own_of_this_test:number", "neither a class nor a function but int"),
        ("torch:Optimizer", "no subclass of torch.optim.Optimizer"),
        ("pathlib:Path", "Path is no subclass of torch.optim.Optimizer"),
        ("own_of_this_test:make_without_rate", "names no lr in its signature"),
        ("torch:LBFGS", "needs a closure that computes the gradients again"),
        ("pytorch_optimizer:SAM", "needs a closure"),
        ("own_of_this_test:Closed", "needs a closure"),
        ("own_of_this_test:ClosedWhenAsked", "needs a closure"),
    ],
)
def test_what_is_no_optimizer_is_one_line(name: str, line: str, own: Path) -> None:
    with pytest.raises(UserError) as error:
        load_named(name)
    assert str(error.value).startswith(f"optimizer={name}: ") and line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_that_fails_while_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "fails_at_once.py").write_text("raise RuntimeError('no licence\\nfound')")
    (tmp_path / "needs_another.py").write_text("import not_there_either")
    with pytest.raises(UserError, match=r"importing fails_at_once fails \(RuntimeError: no licence\); correct it"):
        load_named("fails_at_once:Mine")
    with pytest.raises(UserError, match="needs_another needs the module not_there_either; install it"):
        load_named("needs_another:Mine")


@pytest.mark.parametrize(
    ("name", "key"), [("pytorch_optimizer:Adan", "wieght_decay"), ("own_of_this_test:Mine", "beta")]
)
def test_settings_that_a_class_would_swallow_are_refused(name: str, key: str, own: Path) -> None:
    with pytest.raises(UserError, match=rf"optimizer.{key}: {name} names no such setting; did you mean '"):
        build(name, network(), {key: 3})


def test_a_factory_that_returns_no_optimizer_is_one_line(own: Path) -> None:
    with pytest.raises(UserError, match="returns NoneType, no torch.optim.Optimizer; return one"):
        build("own_of_this_test:make_nothing", network())


def test_where_an_optimizer_comes_from_is_recorded(own: Path) -> None:
    def of(name: str) -> dict[str, object]:
        return cast(dict[str, object], source_of_optimizer(OptimizerConfig(name, "Mine", 0.1, 0.0, {})))

    mine = of("own_of_this_test:Mine")
    assert mine["file"] == own.name and mine["sha256"] == hashlib.sha256(own.read_bytes()).hexdigest()
    assert (mine["distribution"], mine["version"]) == (None, None)
    library = of("torch:NAdam")
    assert (library["distribution"], library["file"]) == ("torch", "nadam.py")
    assert str(library["version"]).split("+")[0] == torch.__version__.split("+")[0]
    assert source_of_optimizer(OptimizerConfig("sgdm", "SGDM", 0.1, 0.0, {})) is None
