"""One start of a run: what is recorded of it and reported, by whichever rank still can."""

import contextlib
from contextlib import ExitStack

from adarem.run.config import RunConfig
from adarem.run.directory import RunDir
from adarem.run.errors import RankLost, UserError
from adarem.train.console import RunConsole, append_to_log, print_line
from adarem.train.distributed.context import RankContext, on_main_rank
from adarem.train.distributed.watchdog import Watchdog
from adarem.train.implementation import Implementation
from adarem.train.named_networks import source_of_network
from adarem.train.named_optimizers import source_of_optimizer
from adarem.train.provenance import Provenance, slurm_job


class Attempt:
    """Every rank holds one. Rank 0 writes its record as long as rank 0 lives.

    Args:
        run: the run directory.
        config: of the run, whose name is at the beginning of each line on the terminal.
        context: of this rank.
    """

    def __init__(self, run: RunDir, config: RunConfig, context: RankContext) -> None:
        self._run, self._config, self._run_name, self._context = run, config, config.run_name, context
        self._number = 0  # 0 before the attempt has begun: the newest record may be another process's
        self.console: RunConsole | None = None  # on rank 0

    def begin(self, stack: ExitStack, implementation: Implementation | None) -> None:
        """Every rank must call; ``stack`` closes the console."""

        def start() -> int:
            self.console = stack.enter_context(RunConsole(self._run, self._run_name, slurm_job()))
            record = Provenance.of(self._context).to_record()
            if implementation is not None:
                record["implementation"] = implementation.name
                record["implementation_notes"] = list(implementation.notes)
                for line in (f"steps: {implementation.name}", *implementation.notes):
                    self.console.info(line)
            record["images_per_pass"] = self._config.scale.images_per_pass(self._context.world_size)
            if (source := source_of_optimizer(self._config.optimizer)) is not None:
                record["optimizer"] = source
            if (source := source_of_network(self._config)) is not None:
                record["network"] = source
            return self._run.start_attempt(record)

        self._number = on_main_rank(self._context, start)

    def end(self, why: str, detail: str) -> None:
        """Records and shows an end that all ranks come to; does nothing on other ranks than 0."""
        if self.console is not None:
            self._run.check_there()
            self._run.end_attempt(self._number, why, detail)
            self.console.info(f"{why}: {detail}")

    def report_failure(self, line: str) -> None:
        """Records and shows a failure on any rank, where rank 0 may be the one that is lost."""
        print_line(self._run_name, f"failed: {line}")
        if not self._number:
            return
        with contextlib.suppress(OSError, UserError):  # the disk may be what is lost
            self._run.check_there()
            if not any(a["attempt"] == self._number and "end" in a for a in self._run.attempts()):
                self._run.end_attempt(self._number, "failed", line)
            append_to_log(self._run, f"failed: {line}")

    def fail(self, error: BaseException, watchdog: Watchdog) -> None:
        """Reports ``error`` on one rank, and raises another exception where this rank ends with that one.

        Raises:
            RankLost: the error came of the loss of another rank.
            UserError: a user's mistake, which rank 0 or this rank has reported.
        """
        if lost := watchdog.lost_rank(error):
            if watchdog.is_reporter():
                self.report_failure(lost)
            raise RankLost(lost) from None
        message = (str(error).strip().splitlines() or [""])[0]
        message = message if isinstance(error, UserError) else f"{type(error).__name__}: {message}"
        reported = isinstance(error, UserError) and error.reported
        with contextlib.suppress(UserError):  # the disk may be full: the error itself counts
            if self._context.is_main:
                self.end("failed", message)
            elif not reported:
                self.report_failure(f"rank {self._context.rank} on {self._context.host}: {message}")
        if isinstance(error, UserError) and not self._context.is_main:
            raise UserError(message, retryable=error.retryable, reported=True) from None
