"""What `adarem status` shows of runs; how their state is read is in test_snapshot.py."""

import io
import json
import os
import pty
import resource
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from adarem.launch.snapshot import RunStatus, snapshot
from adarem.launch.status import _view, as_text, status
from adarem.run.directory import RunDir
from adarem.run.sweep import LONGEST_NAME
from tests.support.sweeps import finish, make_config, write_grid


def test_plain_table(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(runs_dir=sweep.parent, grid="table2") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == [
        ["run", "state", "job", "epoch", "loss", "top-1", "images/s", "left"],
        ["resnet18-adam-s0", "diverged", "—", "3/100", "5.435", "0.57", "9,000", "—"],
        ["resnet18-adamw-s0", "planned", "—", "0/100", "—", "—", "—", "—"],
        ["resnet18-adarem-s0", "running", "12_3", "12/100", "2.345", "21.36", "9,123", "1:02:03"],
        ["resnet18-sgdm-s0", "done", "—", "100/100", "1.000", "70.50", "9,000", "—"],
    ]
    assert " ".join(lines[6]) == "4 runs: 1 diverged, 1 planned, 1 running, 1 done"
    assert " ".join(lines[7]) == "table2/resnet18-adam-s0: diverged: loss is nan"


def test_long_names_are_whole_at_80_columns(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "vit_tiny_patch16_224-MyOptimizer-betas=0.9_0.99--1f2e3d4c-s0"
    assert len(name) == LONGEST_NAME
    os.rename(sweep / "resnet18-sgdm-s0", sweep / name)
    status(runs_dir=sweep.parent)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    at = lines.index(name)
    assert lines[at + 1].split() == ["done", "—", "100/100", "1.000", "70.50", "9,000", "—"]
    assert any(line.startswith("resnet18-adamw-s0  ") for line in lines)  # short ones stay on the line
    states = {line.index(word) for line, word in ((lines[0], "state"), (lines[at + 1], "done"))}
    assert len(states) == 1
    (wide,) = (line for line in as_text(snapshot([sweep]), width=200).splitlines() if line.startswith(name))
    assert "done" in wide


def test_a_run_that_cannot_be_read_has_a_row_and_a_line(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "resnet18-adamw-s0" / "config.yaml").write_text("grid: [")
    status(runs_dir=sweep.parent)
    out = capsys.readouterr().out
    assert "resnet18-adamw-s0   unreadable" in out and "resnet18-adamw-s0/config.yaml: not valid YAML" in out


def test_several_sweeps_are_told_apart(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(write_grid(sweep.parent, "table1"), make_config("resnet18", "sgdm", grid="table1"), 70.0)
    status(runs_dir=sweep.parent)
    out = capsys.readouterr().out
    assert "table1/resnet18-sgdm-s0" in out and "table2/resnet18-sgdm-s0" in out


def test_json(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (sweep / "resnet18-adamw-s0" / "config.yaml").write_text("grid: [")
    status(runs_dir=sweep.parent, as_json=True)
    runs = {run["cell"]: run for run in json.loads(capsys.readouterr().out)}
    assert runs["resnet18-adarem-s0"] == {
        "campaign": "table2", "cell": "resnet18-adarem-s0", "state": "running", "job": "12_3", "epoch": 12,
        "epochs": 100, "loss": 2.345, "top1": pytest.approx(60 * (1 - 2.718281828 ** -0.44)), "images_per_s": 9123.4,
        "seconds_left": 3723, "problem": None, "perplexity": None, "tokens_per_s": None,
    }  # fmt: skip
    assert runs["resnet18-adamw-s0"].keys() == {"campaign", "cell", "state", "job", "problem"}


CODE = (
    "import sys, pathlib; from adarem.launch.status import status; status(runs_dir=pathlib.Path(sys.argv[1])); "
    "print([m for m in ('torch', 'pandas', 'hydra', 'numpy') if m in sys.modules])"
)


def test_answers_at_once_and_without_torch(sweep: Path) -> None:
    """As measured against what any program needs that reads YAML, on the same machine at the same time."""
    took, reference = [], []
    for _ in range(5):
        seconds, printed = processor_time(CODE, str(sweep.parent))
        assert printed.splitlines()[-1] == "[]"
        took.append(seconds)
        reference.append(processor_time("import argparse, dataclasses, json, subprocess, yaml")[0])
    assert min(took) < 4 * min(reference)


def processor_time(code: str, *arguments: str) -> tuple[float, str]:
    """Seconds that a Python program takes of a processor, whatever else runs on the machine, and what it prints."""
    began = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - began, done.stdout


def test_the_live_table_ends_when_the_last_run_does(sweep: Path) -> None:
    """On a real terminal: shown, refreshed, and over once nothing runs."""
    leader, follower = pty.openpty()
    code = CODE.replace(
        "from adarem.launch.status",
        "import adarem.launch.status as s; s.REFRESH_SECONDS = 0.1; from adarem.launch.status",
    )
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(sweep.parent)], stdout=follower, stderr=follower, env=env
    )
    os.close(follower)
    try:
        shown = _read_until(leader, b"running", PATIENCE)
        run = RunDir(sweep / "resnet18-adarem-s0")
        run.write_result({"status": "done", "top1": 71.23, "train_loss": 0.9, "images_per_s": 9000.0})
        shown += _read_until(leader, None, PATIENCE)
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    text = shown.decode()
    assert "71.23" in text and "2 done" in text


PATIENCE = 60.0  # seconds; a busy machine starts Python in several


def _read_until(terminal: int, word: bytes | None, seconds: float) -> bytes:
    """What a terminal shows up to a word, or up to its end; fails when that takes too long."""
    shown, deadline = b"", time.monotonic() + seconds
    while word is None or word not in shown:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([terminal], [], [], left)[0], f"after {seconds:g} s only: {shown[-500:]!r}"
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # on Linux: the other side is closed
            chunk = b""
        if not chunk:
            assert word is None, f"ended without {word!r}: {shown[-500:]!r}"
            break
        shown += chunk
    return shown


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """A folder's name is another's; rich would take [red] for markup, and a terminal \x1b for a command."""
    runs = [RunStatus("s", "a[red]\x1b[2J\nb", "failed", problem="host \x07[/]")]
    drawn = io.StringIO()
    Console(file=drawn, width=120).print(_view(runs, 120))
    shown = as_text(runs, 120) + drawn.getvalue()
    assert "\x1b[2J" not in shown and "\x07" not in shown
    assert shown.count("a[red]\\x1b[2J\\nb") >= 2 and shown.count("host \\x07[/]") == 2
