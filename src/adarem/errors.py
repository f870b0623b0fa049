"""The one exception for mistakes that the user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: a config, a path, a file, the command line.

    The message is one line that names the thing, the place and the remedy. The command line prints it without a
    traceback and exits with code 2.
    """
