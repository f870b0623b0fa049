"""Real training processes for tests of faults: start them, and wait for what they write."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(run: Path, ranks: int, **environment: str) -> subprocess.Popen:
    """torchrun, as the launcher starts it; both output streams are captured in one."""
    command = [sys.executable, "-m", "adarem.launch.ranks", f"--nproc-per-node={ranks}"]
    return subprocess.Popen(
        [*command, "-m", "adarem", "train", str(run)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(ready: Callable[[], object], seconds: float, process: subprocess.Popen | None = None) -> None:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not ready():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}: {process.stdout.read()}")
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)
