"""What a person sees of a run: a progress bar on a terminal, plain lines in the log file, progress.json for status."""

import contextlib
import sys
import time
from typing import Any

from adarem.run.directory import RunDir
from adarem.run.errors import UserError

_WRITE_EVERY_SECONDS = 5.0
_LOG_EVERY_SECONDS = 60.0


class Display:
    """Rank 0's voice. As a context manager it closes the log and the bar."""

    def __init__(self, run: RunDir, name: str, job: str | None) -> None:
        self._run, self._name, self._job = run, name, job
        try:
            self._log = open(run.log_file, "a", buffering=1)  # noqa: SIM115, closed in __exit__
        except OSError as e:
            raise UserError(f"{run.log_file}: cannot be written ({e.strerror}); mend that and start again") from None
        self._bar = _Bar(name) if sys.stderr.isatty() else None
        self._written = self._logged = 0.0

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            if self._bar:
                self._bar.close()
        with contextlib.suppress(OSError):
            self._log.close()

    def note(self, text: str) -> None:
        """One line for the log, and for the screen where no bar stands."""
        self._write(text)
        with contextlib.suppress(OSError):  # the terminal, or who read the output, may be gone: training goes on
            if self._bar:
                self._bar.print(f"{self._name}: {text}")
            else:
                print(f"{self._name}: {text}", flush=True)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # what the run can't do without says that the disk is full
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def show(self, record: dict[str, Any]) -> None:
        """``record`` as the trainer makes it: epoch, epochs, step, steps, loss, images_per_s, seconds_left."""
        now = time.monotonic()
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar.update(record)
        if record.get("epoch_done"):
            self.note(_line(record))
            self._logged = now
        elif now - self._logged > _LOG_EVERY_SECONDS:
            self._write(_line(record))
            self._logged = now
        if record.get("epoch_done") or now - self._written > _WRITE_EVERY_SECONDS:
            with contextlib.suppress(UserError):  # a full disk must not stop training before a checkpoint says so
                self._run.write_progress(record | {"slurm_job": self._job})
            self._written = now


def append_to_log(run: RunDir, text: str) -> None:
    """One line for the log from outside of a Display: from another rank or thread."""
    with open(run.log_file, "a") as f:
        f.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def duration(seconds: float) -> str:
    """``1 d 02:03``, ``2:03:04`` or ``3:04``."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24:02d}:{m:02d}"
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def _line(record: dict[str, Any]) -> str:
    words = [f"epoch {record['epoch']}/{record['epochs']}", f"step {record['step']}/{record['steps']}"]
    if record.get("loss") is not None:
        words.append(f"loss {record['loss']:.4f}")
    if record.get("top1") is not None:
        words.append(f"top-1 {record['top1']:.2f} %")
    if record.get("perplexity") is not None:
        words.append(f"perplexity {record['perplexity']:.2f}")
    words += [f"{record[f'{unit}_per_s']:.0f} {unit}/s" for unit in ("images", "tokens") if f"{unit}_per_s" in record]
    words.append(f"{duration(record['seconds_left'])} left")
    return "  ".join(words)


class _Bar:
    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[words]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(name, total=None, words="starting")
        self._progress.start()

    def update(self, record: dict[str, Any]) -> None:
        self._progress.update(self._task, completed=record["step"], total=record["steps"], words=_line(record))

    def print(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()
