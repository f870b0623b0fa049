"""Signals reach a child process; the launch's own handling of them is in test_local.py."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.processes import wait_for


def test_a_terminal_that_goes_away_does_not_keep_the_signal_from_the_child(tmp_path: Path) -> None:
    """SIGHUP comes when there is nowhere to print to any more; the child is asked to stop all the same."""
    code = (
        "import os, sys; from adarem.launch.signal_forwarding import run_forwarding_signals as run\n"
        f"stop = 'trap \"touch {tmp_path}/asked; exit 75\" TERM; touch {tmp_path}/up; while :; do sleep 0.05; done'\n"
        "os._exit(run(['bash', '-c', stop], dict(os.environ)).code)"
    )
    process = subprocess.Popen([f"{sys.prefix}/bin/python", "-c", code], stderr=subprocess.PIPE)
    wait_for((tmp_path / "up").exists, 60)
    assert process.stderr is not None
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 75 and (tmp_path / "asked").exists()
