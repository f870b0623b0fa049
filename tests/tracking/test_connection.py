"""Online, offline or not at all."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run.directory import RunDir
from adarem.run.errors import UserError
from adarem.tracking.connection import refusal, sending_mode, wandb_mode


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
