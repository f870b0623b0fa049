"""A config, and made-up answers of the checks that run in a process of their own."""

import json

import pytest

from adarem.doctor import software
from adarem.doctor.check import Outcome
from adarem.plan.plan import make_plan
from adarem.run.config import RunConfig
from tests.support.doctor import TORCH


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return make_plan(["grid=table2", "data=digits", "optimizer=sgdm", f"data.root={tmp_path}/digits"]).runs[0].config


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome]:
    """What the isolated checks answer; a test changes it."""
    given = {
        "imports": Outcome(True, "{}"),
        "torch": Outcome(True, json.dumps(TORCH)),
        "gloo": Outcome(True, ""),
        "nccl": Outcome(True, ""),
        "ffcv": Outcome(True, "1.0.2"),
    }
    monkeypatch.setattr(software, "run_isolated", given.__getitem__)
    return given
