"""Lines and progress of a run: their form, and that a lost terminal or a full disk ends nothing."""

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from adarem.run.directory import RunDir
from adarem.train.console import Progress, RunConsole, append_to_log, print_line

PROGRESS = Progress(
    epoch=2, epochs=3, step=8, steps=12, loss=0.5, unit="images", units_per_second=99.6, seconds_left=61
)


class Gone:
    """A terminal that was closed, or a reader that left."""

    def write(self, _text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_terminal_that_is_gone_does_not_end_training(
    tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tiny_run())
    monkeypatch.setattr("sys.stdout", Gone())
    monkeypatch.setattr("sys.stderr", Gone())
    with RunConsole(run, "name", None) as console:
        console.info("still there")
    print_line("name", "failed")
    assert "still there" in run.log_file.read_text()


def test_lines_of_the_log_and_of_the_terminal(
    tiny_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tiny_run())
    with RunConsole(run, "50%-off", None) as console:
        console.info("starting, 100 % of it")
        append_to_log(run, "from another rank")
    print_line("name", "failed: x")
    printed = capsys.readouterr()
    assert printed.out == "50%-off: starting, 100 % of it\n" and printed.err == "name: failed: x\n"
    lines = run.log_file.read_text().splitlines()
    assert [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "<time> ", line) for line in lines] == [
        "<time> starting, 100 % of it",
        "<time> from another rank",
    ]


def test_progress_is_written_for_status(tiny_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir(tiny_run())
    done = Progress(**vars(PROGRESS) | {"epoch_done": True, "metrics": {"top1": 12.5}})
    with RunConsole(run, "name", "7_1") as console:
        console.show(PROGRESS)
        shown = json.loads(run.progress_file.read_text())
        assert shown | {"time": 0, "host": ""} == {
            "epoch": 2, "epochs": 3, "step": 8, "steps": 12, "loss": 0.5, "images_per_s": 99.6, "seconds_left": 61,
            "slurm_job": "7_1", "time": 0, "host": "",
        }  # fmt: skip
        console.show(done)
    assert run.progress()["top1"] == 12.5 and run.progress()["epoch_done"] is True
    line = "epoch 2/3  step 8/12  loss 0.5000  top-1 12.50 %  100 images/s  1:01 left"
    assert capsys.readouterr().out == f"name: {line}\n" and run.log_file.read_text().count(line) == 1


def test_a_full_disk_does_not_end_training(tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tiny_run())

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunConsole(run, "name", None) as console:
        console._log.handlers[0].stream.close()
        console._log.handlers[0].stream = open("/dev/full", "w")  # noqa: SIM115, the console closes it
        monkeypatch.setattr(os, "fsync", full)
        console.info("lost")
        console.show(PROGRESS)
    assert not run.progress_file.exists() and run.log_file.read_text() == ""


def test_a_progress_bar_takes_the_lines_above_it(
    tiny_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(tiny_run())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with RunConsole(run, "name", None) as console:
        console.info("starting [bold]")
        console.show(PROGRESS)
    printed = capsys.readouterr()
    assert printed.out == "" and "name: starting [bold]" in printed.err
    assert "starting [bold]" in run.log_file.read_text()
