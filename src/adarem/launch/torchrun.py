"""torchrun, with one line in place of a traceback and with the exit code of the rank that ended first.

python -m adarem.launch.torchrun --standalone --nproc-per-node=2 -m adarem train RUN_DIR
"""

import os
import signal
import sys
import time

from adarem.dependencies import import_problem
from adarem.run import exitcodes

_SHUTDOWN_SECONDS = 120  # from a signal to a rank's checkpoint: at most an evaluation and a step
_REPORTED_BY_THE_RANK = (exitcodes.USER_ERROR, exitcodes.DIVERGED, exitcodes.REQUEUE)


def main(argv: list[str]) -> int:
    """Runs torchrun with these arguments; returns an exit code, 128 + the signal for a rank that a signal killed."""
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # of torchrun's own logger
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SHUTDOWN_SECONDS))
    try:
        from torch.distributed import run
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    except Exception as e:
        if (problem := import_problem(e)) is None:
            raise
        print(f"adarem launch: {problem}", file=sys.stderr)
        return exitcodes.USER_ERROR

    try:
        run.main(argv)
    except SignalException as e:
        return exitcodes.REQUEUE if e.sigval in (signal.SIGINT, signal.SIGTERM) else exitcodes.FAILED
    except ChildFailedError as e:
        rank, failure = e.get_first_failure()
        code = failure.exitcode
        if code not in _REPORTED_BY_THE_RANK:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            when = time.strftime("%H:%M:%S", time.localtime(failure.timestamp))
            print(f"rank {rank} (pid {failure.pid}) ended first: {how} at {when}", file=sys.stderr)
        return 128 - code if code < 0 else code
    return exitcodes.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
