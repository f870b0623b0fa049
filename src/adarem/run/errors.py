"""The exceptions that end a command in one line instead of a traceback."""


class UserError(ValueError):
    """A mistake in what the user gave: a config, a path, a file, the command line.

    The command line prints the message without a traceback.

    Args:
        message: one line, ``<file | key | value>: <what is wrong>; <what to do>``.
        retryable: the same command may succeed when it is started again, so the exit code is 1, after which Slurm
            starts the job again; otherwise it is 2.
        reported: a rank has printed and recorded the error already; the command line prints nothing.
    """

    def __init__(self, message: str, *, retryable: bool = False, reported: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.reported = reported


class RunRemoved(UserError):
    """A run's directory was removed while it trained."""


class RankLost(RuntimeError):
    """Another rank has ended; the message names its rank, host and last step. It is reported before this is raised."""
