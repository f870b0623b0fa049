"""A key for Weights & Biases is found in the environment and in ~/.netrc; a damaged ~/.netrc is none."""

from dataclasses import replace
from pathlib import Path

import pytest

from adarem.run.credentials import has_wandb_key, wandb_entity, wandb_project
from tests.support.sweeps import make_config


def test_key_from_the_environment_or_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert not has_wandb_key()
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine example.org login user password p\n")
    netrc.chmod(0o600)
    assert not has_wandb_key()
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    assert has_wandb_key()
    netrc.write_text("machine api.wandb.ai nonsense\n")
    assert not has_wandb_key()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert has_wandb_key()


def test_the_environment_files_runs_whose_config_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_config("resnet18", "sgdm")
    assert (wandb_project(plain), wandb_entity(plain)) == ("adarem", None)
    monkeypatch.setenv("WANDB_PROJECT", "optimizers")
    monkeypatch.setenv("WANDB_ENTITY", "our-team")
    assert (wandb_project(plain), wandb_entity(plain)) == ("optimizers", "our-team")
    own = replace(plain, wandb=replace(plain.wandb, project="own", entity="me"))
    assert (wandb_project(own), wandb_entity(own)) == ("own", "me")
