"""A process that crashes or hangs fails its check and nothing else."""

from pathlib import Path

import pytest

from adarem.doctor import check
from tests.support.launching import executable


def test_a_crashing_and_a_hanging_check_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(tmp_path / "python", "#!/bin/sh\nkill -SEGV $$\n")
    monkeypatch.setattr(check.sys, "executable", str(tmp_path / "python"))
    assert check.run_isolated("ffcv")[:2] == (False, "crashed with signal 11")
    executable(tmp_path / "python", "#!/bin/sh\necho numpy; echo scipy; kill -SEGV $$\n")
    assert check.run_isolated("imports")[:2] == (False, "crashed with signal 11 at scipy")
    executable(tmp_path / "python", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(check, "ISOLATED_SECONDS", 0.2)
    assert check.run_isolated("ffcv")[:2] == (False, "no answer within 0.2 s")


def test_an_import_that_fails_brings_its_own_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    executable(
        tmp_path / "python", f"#!/bin/sh\necho 'scipy: broken (a; b); reinstall it' >&2\nexit {check.EXPLAINED}\n"
    )
    monkeypatch.setattr(check.sys, "executable", str(tmp_path / "python"))
    assert check.run_isolated("torch") == (False, "scipy: broken (a; b)", "reinstall it")


def test_lines() -> None:
    assert str(check.Check("disk", True, "5 GB", "clear up")) == "✓ disk           5 GB"
    assert str(check.Check("disk", False, "1 GB", "clear up")).splitlines()[1].strip() == "fix: clear up"
