"""What a person sees of a run: lines in log.txt and on the terminal, a progress bar, and progress.json for status.

None of it may end training: a terminal that was closed and a full disk are ignored here. What the run needs (metrics,
checkpoints) reports a full disk itself.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Literal

from adarem.run.directory import RunDir
from adarem.run.errors import RunRemoved, UserError
from adarem.run.files import open_file
from adarem.run.streams import plain, terminal
from adarem.run.text import duration

_WRITE_EVERY_SECONDS = 5.0
_LOG_EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class Progress:
    """Where training is."""

    epoch: int  # the current one, 1 to epochs
    epochs: int
    step: int  # steps done
    steps: int
    loss: float | None  # mean over the epoch so far; None before the first reading
    unit: Literal["images", "tokens"]
    units_per_second: float
    seconds_left: float
    epoch_done: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the evaluation after the epoch, if there was one

    def to_record(self) -> dict[str, object]:
        """As progress.json holds it."""
        record: dict[str, object] = {
            "epoch": self.epoch,
            "epochs": self.epochs,
            "step": self.step,
            "steps": self.steps,
            "loss": self.loss,
            f"{self.unit}_per_s": self.units_per_second,
            "seconds_left": self.seconds_left,
        }
        return {**record, "epoch_done": True, **self.metrics} if self.epoch_done else record

    def line(self) -> str:
        words = [f"epoch {self.epoch}/{self.epochs}", f"step {self.step}/{self.steps}"]
        if self.loss is not None:
            words.append(f"loss {self.loss:.4f}")
        if "top1" in self.metrics:
            words.append(f"top-1 {self.metrics['top1']:.2f} %")
        if "perplexity" in self.metrics:
            words.append(f"perplexity {self.metrics['perplexity']:.2f}")
        words.append(f"{self.units_per_second:.0f} {self.unit}/s")
        words.append(f"{duration(self.seconds_left)} left")
        return "  ".join(words)


ShowProgress = Callable[[Progress], None]


class RunConsole:
    """Rank 0's lines and progress. As a context manager it closes the log file and the progress bar.

    Args:
        run: whose log.txt and progress.json are written.
        name: of the run, at the beginning of each line on the terminal.
        slurm_job: the job's id, for progress.json.

    Raises:
        UserError: log.txt cannot be opened.
    """

    def __init__(self, run: RunDir, name: str, slurm_job: str | None) -> None:
        self._run, self._slurm_job = run, slurm_job
        self._log = logging.Logger("adarem.train")  # this run's alone, so not from logging's global table
        try:
            self._log.addHandler(_log_file_handler(run))
        except OSError as e:
            line = f"{run.log_file}: cannot be written ({e.strerror}); fix that and start again"
            raise UserError(line) from None
        self._bar = _ProgressBar(name) if sys.stderr.isatty() else None
        self._log.addHandler(self._bar.log_handler() if self._bar else _stream_handler(name, sys.stdout))
        self._written = self._logged = 0.0

    def __enter__(self) -> "RunConsole":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if self._bar:
                self._bar.close()
        for handler in self._log.handlers:
            with contextlib.suppress(OSError):
                handler.close()

    def info(self, text: str) -> None:
        """One line for the log file and the terminal."""
        self._log.info("%s", text)

    def show(self, progress: Progress) -> None:
        """Updates the bar; writes lines and progress.json where it is time."""
        now = time.monotonic()
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar.update(progress)
        if progress.epoch_done:
            self.info(progress.line())
            self._logged = now
        elif now - self._logged > _LOG_EVERY_SECONDS:
            self._log.debug("%s", progress.line())
            self._logged = now
        if progress.epoch_done or now - self._written > _WRITE_EVERY_SECONDS:
            try:
                self._run.write_progress(progress.to_record() | {"slurm_job": self._slurm_job})
            except RunRemoved:
                raise
            except UserError:  # a full disk ends training at the next checkpoint, and not before
                pass
            self._written = now


def print_line(name: str, text: str) -> None:
    """One line about a run on standard error, from any rank or thread."""
    _handle(_stream_handler(name, sys.stderr), text)


def append_to_log(run: RunDir, text: str) -> None:
    """One line for log.txt, from any rank or thread. Raises OSError where the file cannot be opened."""
    with contextlib.closing(_log_file_handler(run)) as handler:
        _handle(handler, text)


def _handle(handler: logging.Handler, text: str) -> None:
    handler.handle(logging.makeLogRecord({"msg": "%s", "args": (text,), "levelno": logging.INFO}))


class _Lossy(logging.Handler):
    """Drops what cannot be written; other errors are shown as logging shows them."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _FileHandler(_Lossy, logging.FileHandler):
    def _open(self) -> TextIOWrapper:
        descriptor = open_file(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return open(descriptor, "a", encoding=self.encoding)


class _StreamHandler(_Lossy, logging.StreamHandler[IO[str]]): ...


def _log_file_handler(run: RunDir) -> logging.Handler:
    handler = _FileHandler(run.log_file, encoding="utf-8")
    handler.setFormatter(_PlainFormatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    return handler


def _stream_handler(name: str, stream: IO[str]) -> logging.Handler:
    handler = _StreamHandler(stream)
    handler.setLevel(logging.INFO)
    handler.setFormatter(_name_first(name))
    return handler


def _name_first(name: str) -> logging.Formatter:
    return _PlainFormatter(f"{name.replace('%', '%%')}: %(message)s")


class _PlainFormatter(logging.Formatter):
    """For log.txt too, which people show on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


class _ProgressBar:
    """On standard error, with lines above it."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._name = name
        description, words = (TextColumn(f"{{task.{of}}}", markup=False) for of in ("description", "fields[words]"))
        columns = description, BarColumn(), words
        self._bar = Bar(*columns, console=Console(file=terminal(sys.stderr)), transient=True)
        self._task = self._bar.add_task(plain(name), total=None, words="starting")
        self._bar.start()

    def update(self, progress: Progress) -> None:
        self._bar.update(self._task, completed=progress.step, total=progress.steps, words=progress.line())

    def log_handler(self) -> logging.Handler:
        from rich.highlighter import NullHighlighter
        from rich.logging import RichHandler

        class LossyRichHandler(_Lossy, RichHandler): ...

        handler = LossyRichHandler(
            logging.INFO,
            self._bar.console,
            show_time=False,
            show_level=False,
            show_path=False,
            highlighter=NullHighlighter(),
        )
        handler.setFormatter(_name_first(self._name))
        return handler

    def close(self) -> None:
        self._bar.stop()
