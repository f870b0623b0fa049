"""The child process of `adarem plan`: what it says of a signature, and of an optimizer that does not work."""

import copy
from pathlib import Path

import pytest

from adarem.plan.plan import make_plan
from adarem.run.config import RunConfig, from_dict, to_dict
from adarem.run.errors import UserError
from adarem.train.try_optimizer import describe, try_config
from tests.support.optimizers import write_module
from tests.support.sweeps import make_config


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return write_module(tmp_path, "own_to_try")


def config(name: str, **hparams: object) -> RunConfig:
    raw = copy.deepcopy(to_dict(make_config("resnet18", "sgdm", data="digits")))
    raw["optimizer"] = {"name": name, "label": "Mine", "lr": 0.01, "weight_decay": 0.0, **hparams}
    return from_dict(raw)


def test_the_settings_of_a_signature() -> None:
    found = describe("own_to_try:Mine")
    assert found["weight_decay"] == 3e-4 and found["takes_weight_decay"] and found["required"] == []
    assert found["defaults"] == {"betas": (0.9, 0.99), "mode": "plain", "warm": False, "cap": None}
    assert "kwargs" not in found["names"]  # type: ignore[operator]
    assert describe("own_to_try:Named")["required"] == ["rank"]
    factory = describe("own_to_try:make")
    assert (factory["weight_decay"], factory["defaults"], factory["required"]) == (0.01, {"share": 0.1}, [])


@pytest.mark.parametrize(
    ("name", "hparams"),
    [
        ("torch:NAdam", {"betas": [0.9, 0.99]}),
        ("timm:lion", {}),
        ("own_to_try:Mine", {}),
        ("own_to_try:make", {}),
        ("own_to_try:Switching", {}),
        ("pytorch_optimizer:ScheduleFreeAdamW", {}),
    ],
)
def test_what_works_passes(name: str, hparams: dict[str, object]) -> None:
    try_config(config(name, **hparams))


@pytest.mark.parametrize(
    ("name", "hparams", "line"),
    [
        (
            "own_to_try:Mine",
            {"betas": [1.5, 0.9]},
            r"refuses its settings \(betas: 1.5 is no share\); correct optimizer",
        ),
        ("torch:NAdam", {"betas": [0.9]}, r"refuses its settings \(.*\); correct optimizer"),
        ("own_to_try:Flat", {}, r"takes parameters of two dimensions only \(only matrices\); write a factory"),
        ("torch:Muon", {}, r"takes parameters of two dimensions only \(.*\); write a factory"),
        ("own_to_try:NoWayBack", {}, r"its train\(\) does not lead back from its eval\(\); take another"),
        ("own_to_try:FailsToSwitch", {}, r"its train\(\) or eval\(\) fails \(no average\), so it cannot be evaluated"),
        ("own_to_try:NotFinite", {}, r"its eval\(\) leaves parameters that are not finite; take another"),
        ("own_to_try:Unsafe", {}, r"its state cannot be read back from a checkpoint \(.*\); keep tensors"),
        ("own_to_try:make_some", {}, "leaves 59 of 62 parameters out, layer1.0.conv1.weight among them; give it all"),
    ],
)
def test_what_does_not_work_is_one_line(name: str, hparams: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=rf"^optimizer={name}: {line}") as error:
        try_config(config(name, **hparams))
    assert "\n" not in str(error.value)


def test_a_factorys_averaging_optimizer_under_a_schedule_is_noted() -> None:
    """Its class is not known before it is made."""
    raw = to_dict(config("own_to_try:make_averaging"))
    assert "averages by itself, and its rate follows the cosine schedule" in str(try_config(from_dict(raw)))
    raw["schedule"]["name"] = "constant"  # type: ignore[index]
    assert try_config(from_dict(raw)) is None


def test_one_average_at_a_time() -> None:
    raw = to_dict(make_plan(["grid=table3", "data=pydoc", "optimizer=sgdm", "model.average_after=5"]).runs[0].config)
    raw["optimizer"] = {"name": "own_to_try:Switching", "label": "Mine", "lr": 0.01, "weight_decay": 0.0}
    with pytest.raises(UserError, match="model.average_after=5: own_to_try:Switching averages by itself; give model"):
        try_config(from_dict(raw))
