"""The child process of `adarem plan`: what it says of a signature, and of an optimizer that does not work."""

import copy
import io
import json
import os
import sys
from pathlib import Path

import pytest

from adarem.run.config import RunConfig, from_dict, to_dict
from adarem.run.errors import UserError
from adarem.train.try_optimizer import describe, main, try_config
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
    [("torch:NAdam", {"betas": [0.9, 0.99]}), ("timm:lion", {}), ("own_to_try:Mine", {}), ("own_to_try:make", {})],
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
        ("own_to_try:Switching", {}, r"switches between train\(\) and eval\(\), which this trainer does not do"),
        ("own_to_try:Unsafe", {}, r"its state cannot be read back from a checkpoint \(.*\); keep tensors"),
        ("own_to_try:make_some", {}, "leaves 59 of 62 parameters out, layer1.0.conv1.weight among them; give it all"),
    ],
)
def test_what_does_not_work_is_one_line(name: str, hparams: dict[str, object], line: str) -> None:
    with pytest.raises(UserError, match=rf"^optimizer={name}: {line}") as error:
        try_config(config(name, **hparams))
    assert "\n" not in str(error.value)


def test_a_line_of_json_in_and_one_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where imported code prints."""
    (tmp_path / "prints_at_once.py").write_text("import torch\nprint('hello')\nOwn = torch.optim.SGD\n")
    asked = [{"describe": "prints_at_once:Own"}, {"try": to_dict(config("own_to_try:Flat"))}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in asked)))
    saved, (reader, writer) = os.dup(1), os.pipe()
    try:
        os.dup2(writer, 1)
        main()
    finally:
        os.dup2(saved, 1)
        os.close(writer)
    with os.fdopen(reader) as answers:
        first, second = map(json.loads, answers)
    assert "momentum" in first["names"] and second["error"].startswith("optimizer=own_to_try:Flat: takes")
