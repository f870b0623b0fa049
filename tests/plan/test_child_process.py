"""The process that plan asks: its errors are one line each."""

from pathlib import Path

import pytest

from adarem.plan.child_process import ChildProcess
from adarem.run.errors import UserError


def test_one_that_waits_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waits_for_ever.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        ChildProcess(limit_seconds=1.0) as child,
        pytest.raises(UserError, match="^optimizer=w: no answer within 1 seconds of the process that tries it"),
    ):
        child.ask({"describe": "waits_for_ever:Own"}, "optimizer=w")
