"""What a launch prints of its runs."""

import os
import pty
import sys
import threading
from pathlib import Path

import pytest

from adarem.launch.progress import Screen, progress_line
from adarem.launch.snapshot import read_status
from adarem.run.directory import RunDir


def test_a_line_of_a_run(sweep: Path) -> None:
    runs = {p.name: read_status(RunDir(p)) for p in sweep.iterdir() if p.is_dir()}
    assert progress_line(runs["resnet18-adarem-s0"]) == (
        "resnet18-adarem-s0  epoch 12/100  loss 2.345  top-1 21.36 %  9,123 images/s  1:02:03 left"
    )
    assert progress_line(runs["resnet18-adamw-s0"]) == "resnet18-adamw-s0  starts"


def test_without_a_terminal_lines_and_nothing_else(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Screen() as screen:
        screen.print("a: [1/2] started", sys.stdout)
        screen.show([RunDir(sweep / "resnet18-adarem-s0")])
        screen.print("a: wrong", sys.stderr)
    assert capsys.readouterr() == ("a: [1/2] started\n", "a: wrong\n")


def test_on_a_terminal_the_live_line_is_below(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = pty.openpty()
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                seen.extend(os.read(parent, 4096) or b"")
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(child, "w") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(sys, "stdout", terminal)
        with Screen() as screen:
            screen.show([RunDir(sweep / "resnet18-adarem-s0")])
            screen.print("[1/2] a: starts", sys.stdout)
    reader.join(30)
    text = seen.decode()
    assert text.index("resnet18-adarem-s0  epoch 12/100") < text.index("[1/2] a: starts")
    assert text.count("[1/2] a: starts") == 1
