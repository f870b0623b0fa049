"""The process that plan asks: its errors are one line each."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adarem.plan.child_process import ChildProcess
from adarem.run.errors import UserError
from tests.support.processes import wait_for


@pytest.fixture
def forked_plan() -> None:
    """A new interpreter, as for a user."""


def test_one_that_waits_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waits_for_ever.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        ChildProcess(limit_seconds=1.0) as child,
        pytest.raises(UserError, match="^optimizer=w: no answer within 1 seconds of the process that tries it"),
    ):
        child.ask({"describe": "waits_for_ever:Own"}, "optimizer=w")


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_ctrl_c_while_a_module_is_imported_leaves_nothing_behind(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    (tmp_path / "waits_for_ever.py").write_text(
        "import os, pathlib, subprocess, threading\n"
        "started = subprocess.Popen(['sleep', '1000'])\n"
        f"pathlib.Path({str(tmp_path / 'part')!r}).write_text(f'{{os.getpid()}} {{started.pid}}')\n"
        f"os.replace({str(tmp_path / 'part')!r}, {str(pids)!r})\n"
        "threading.Event().wait()\n"
    )
    words = ["-m", "adarem", "plan", "grid=table2", "data=digits", "optimizer=waits_for_ever:Own", "optimizer.lr=1"]
    plan = subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(pids.exists, 60)
        plan.send_signal(signal.SIGINT)
        printed, _ = plan.communicate(timeout=60)
    finally:
        plan.kill()
    assert (plan.returncode, printed) == (130, "")
    wait_for(lambda: not any(map(alive, map(int, pids.read_text().split()))), 60)
    assert {p.name for p in tmp_path.iterdir()} <= {"waits_for_ever.py", "pids", "__pycache__"}
