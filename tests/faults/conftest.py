import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.small_disk import Disk


class NeverStop:
    signal = None


@pytest.fixture
def train_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[Path], tuple[int, str]]:
    """``adarem train RUN_DIR`` in this process: its exit code and standard error."""
    from adarem.cli import main
    from adarem.train import train

    monkeypatch.setattr(train, "SignalListener", NeverStop)

    def go(path: Path) -> tuple[int, str]:
        capfd.readouterr()
        return main(["train", str(path)]), capfd.readouterr().err

    return go


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A tmpfs of 16 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
