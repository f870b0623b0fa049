"""One start of a run: what is recorded of it and said to people, by whichever rank still can."""

import contextlib
import sys
from contextlib import ExitStack

from adarem.run.directory import RunDir
from adarem.run.errors import RankLost, UserError
from adarem.train.console import Display, append_to_log
from adarem.train.distributed.context import World, together
from adarem.train.distributed.watchdog import Watchdog
from adarem.train.provenance import describe_attempt, slurm_job


class Attempt:
    """Rank 0 writes it, as long as there is a rank 0; every rank holds one."""

    def __init__(self, run: RunDir, cell: str, world: World) -> None:
        self._run, self._cell, self._world = run, cell, world
        self._number = 0  # none before it has begun: the newest in the file may be another process's
        self.display: Display | None = None  # rank 0's

    def begin(self, stack: ExitStack) -> None:
        """Every rank must call; ``stack`` closes the display."""

        def start() -> int:
            if not self._world.is_main:
                return 0
            self.display = stack.enter_context(Display(self._run, self._cell, slurm_job()))
            return self._run.start_attempt(describe_attempt(self._world))

        self._number = self._world.broadcast(together(self._world, start))

    def end(self, why: str, detail: str) -> None:
        """An end that all ranks come to, told by rank 0."""
        if self.display is not None:
            self._run.end_attempt(self._number, why, detail)
            self.display.note(f"{why}: {detail}")

    def fail(self, line: str) -> None:
        """Any rank's last word, where rank 0 may be the one that is lost."""
        with contextlib.suppress(OSError):  # the terminal may be gone: what is recorded counts
            print(f"{self._cell}: failed: {line}", file=sys.stderr, flush=True)
        if not self._number:
            return
        with contextlib.suppress(OSError, UserError):  # the disk may be what is lost
            if not any(a["attempt"] == self._number and "end" in a for a in self._run.attempts()):
                self._run.end_attempt(self._number, "failed", line)
            append_to_log(self._run, f"failed: {line}")

    def fail_with(self, error: BaseException, watchdog: Watchdog) -> None:
        """Tells of an error, and raises what this rank is to end with where that is another one.

        Raises:
            RankLost: it came of the loss of another rank.
            UserError: a user's mistake, which rank 0 or this rank has reported.
        """
        if lost := watchdog.lost(error):
            if watchdog.is_teller():
                self.fail(lost)
            raise RankLost(lost) from None
        message = (str(error).strip().splitlines() or [""])[0]
        message = message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"
        with contextlib.suppress(UserError):  # the disk may be full: the error itself counts
            if self._world.is_main:
                self.end("failed", message)
            elif not (isinstance(error, UserError) and error.reported):
                self.fail(f"rank {self._world.rank} on {self._world.hosts[self._world.rank]}: {message}")
        if isinstance(error, UserError) and not self._world.is_main:
            raise UserError(message, retryable=error.retryable, reported=True) from None
