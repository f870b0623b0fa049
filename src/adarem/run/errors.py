"""The exceptions that end in one line instead of a traceback."""


class UserError(ValueError):
    """A mistake in what the user gave: a config, a path, a file, the command line.

    The message is one line that names the thing, the place and the remedy. The command line prints it without a
    traceback and exits with code 2.
    """


class Mishap(UserError):
    """One that starting again may mend by itself: exit code 1, after which Slurm starts the job again."""


class Told(UserError):
    """One that has been told already, by this rank or by the one that speaks for all."""


class _ToldMishap(Told, Mishap): ...


def told(error: UserError, line: str) -> Told:
    """``line`` for a rank that need not print it again; of the same exit code as ``error``."""
    return (_ToldMishap if isinstance(error, Mishap) else Told)(line)


class RankLost(RuntimeError):
    """Another rank is gone; the message names rank, host and last step. It has been told when this is raised."""
