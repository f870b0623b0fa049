"""Online, offline or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.tracking.connection import own_environment, refusal, sending_mode, wandb_mode


def test_online_only_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_run: Callable[..., Path]) -> None:
    config = RunDir(tiny_run("wandb.mode=auto")).config()
    for name in ("WANDB_MODE", "WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode(config) == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode(config) == "online"
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert wandb_mode(config) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(config) == "disabled"
    monkeypatch.setenv("WANDB_MODE", "of line")
    with pytest.raises(UserError, match="WANDB_MODE=of line: no mode of wandb; give online, offline or disabled"):
        wandb_mode(config)


def test_what_is_disabled_is_sent_only_when_asked(tiny_run: Callable[..., Path]) -> None:
    config = RunDir(tiny_run()).config()
    with pytest.raises(UserError, match="wandb: disabled by wandb.mode of the run or by WANDB_MODE; give --mode="):
        sending_mode(config, None)
    assert sending_mode(config, "offline") == "offline"


def test_a_refusal_is_one_line() -> None:
    assert str(refusal(ValueError("no.\nmore"))) == ("wandb: no; `wandb login` stores a key, --mode=offline needs none")


def test_a_sweep_of_wandb_names_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a job of a wandb agent every run would have the agent's id."""
    given = {"WANDB_RUN_ID": "a", "WANDB_SWEEP_ID": "b", "WANDB_TAGS": "c", "WANDB__X": "d", "WANDB_SERVICE": "e"}
    kept = {"WANDB_API_KEY": "f", "WANDB_BASE_URL": "http://g", "WANDB_IGNORE_GLOBS": "*.h"}
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in {**given, **kept}.items():
        monkeypatch.setenv(name, value)
    with own_environment():
        assert {k: v for k, v in os.environ.items() if k.startswith("WANDB_")} == kept
    assert {k: os.environ.get(k) for k in given} == given


def test_a_home_that_cannot_be_written_to_is_not_wandbs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with own_environment():
        made = os.environ["WANDB_CACHE_DIR"]
        assert Path(made).is_dir() and "WANDB_DATA_DIR" not in os.environ
    assert not Path(made).exists() and "WANDB_CACHE_DIR" not in os.environ
