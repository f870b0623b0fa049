"""What a launch on this machine shows: the lines of its runs, and on a terminal a live line for each run below."""

import contextlib
import sys
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from adarem.launch.snapshot import RunStatus, read_status
from adarem.run.directory import RunDir
from adarem.run.streams import plain, terminal
from adarem.run.text import duration

if TYPE_CHECKING:
    from rich.live import Live

_EVERY_SECONDS = 1.0


class Screen:
    """A context manager; without a terminal it prints lines and nothing else."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._shown_at = 0.0

    def __enter__(self) -> "Screen":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=terminal(sys.stderr))
            self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()

    def print(self, line: str, file: IO[str]) -> None:
        """One line above the live ones. A terminal that went away is ignored: training goes on."""
        with contextlib.suppress(OSError):
            if self._live is None or not file.isatty():
                print(line, file=file, flush=True)
            else:
                from rich.text import Text

                self._live.console.print(Text(plain(line)), soft_wrap=True)

    def show(self, runs: Sequence[RunDir]) -> None:
        """Updates the live lines, at most once a second."""
        now = time.monotonic()
        if self._live is None or now - self._shown_at < _EVERY_SECONDS:
            return
        from rich.text import Text

        self._shown_at = now
        lines = [plain(progress_line(read_status(run))) for run in runs]
        with contextlib.suppress(OSError):
            self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)


def progress_line(status: RunStatus) -> str:
    """Where a run is: ``resnet18-adam-s0  epoch 3/10  loss 0.512  top-1 81.11 %  640 images/s  1:02 left``."""
    p = status.progress
    if p is None or status.state != "running" or p.seconds_left is None:
        return f"{status.run}  starts"
    words = [status.run, f"epoch {p.epoch}/{p.epochs}"]
    if p.loss is not None:
        words.append(f"loss {p.loss:.3f}")
    if p.perplexity is not None:
        words.append(f"perplexity {p.perplexity:.2f}")
    elif p.top1 is not None:
        words.append(f"top-1 {p.top1:.2f} %")
    for rate, unit in ((p.images_per_s, "images/s"), (p.tokens_per_s, "tokens/s")):
        if rate is not None:
            words.append(f"{rate:,.0f} {unit}")
    return "  ".join([*words, f"{duration(p.seconds_left)} left"])
