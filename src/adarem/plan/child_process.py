"""The process with torch in which plan tries what a user imports by name, since plan itself loads none.

A line of JSON in, a line of JSON out; ``train.try_parts`` answers.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from adarem.run.config import RunConfig
from adarem.run.errors import UserError

LIMIT_SECONDS = 300.0  # of one answer: an import from a slow network disk takes a minute


def distinct(configs: Iterable[RunConfig], parts: Callable[[RunConfig], object]) -> list[RunConfig]:
    """The first of the configs that are alike in these parts, so that nothing is tried twice."""
    found: list[tuple[object, RunConfig]] = []
    for config in configs:
        of_config = parts(config)
        if all(of_config != other for other, _ in found):
            found.append((of_config, config))
    return [config for _, config in found]


class ChildProcess:
    """Starts with the first question and ends with this context."""

    def __init__(self, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._limit = limit_seconds
        self._child: subprocess.Popen[str] | None = None
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  a pipe that nobody empties would stop the child

    def __enter__(self) -> "ChildProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._child is not None:
            # With what it has started itself. A Ctrl-C does not reach its group: it ends here too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.communicate()
        self._stderr.close()

    def ask(self, request: Mapping[str, object], named: str) -> dict[str, object]:
        """The answer.

        Args:
            named: what is tried, as on the command line: ``optimizer=torch:NAdam``.

        Raises:
            UserError: what the answer has as ``error``; the child ended, or gave none in time.
        """
        child = self._started()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            if not select.select([child.stdout], [], [], self._limit)[0]:
                raise UserError(
                    f"{named}: no answer within {self._limit:g} seconds of the process that tries it; see what it "
                    "waits for"
                )
            line = child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            child.wait()
            self._stderr.seek(0)
            last = (self._stderr.read().strip().splitlines() or [f"exit code {child.returncode}"])[-1]
            raise UserError(f"{named}: ends the process that tries it ({last}); correct it")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        if "error" in answer:
            raise UserError(str(answer["error"]))
        return answer

    def _started(self) -> subprocess.Popen[str]:
        if self._child is None:
            # -P: like a job on a cluster, which does not find a module because it lies in the current folder.
            command = [sys.executable, "-P", "-m", "adarem.train.try_parts"]
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                encoding="utf-8",
                errors="replace",
                process_group=0,
            )
        return self._child
