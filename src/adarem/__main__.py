"""``python -m adarem`` and the installed ``adarem``: the command line, or why its own imports fail, in one line."""

import sys


def main() -> int:
    """Runs one command; see ``cli.main``."""
    try:
        from adarem import cli
    except Exception as e:  # a file of the user's that bears the name of a part of Python
        from adarem.dependencies import import_problem

        if (problem := import_problem(e)) is None:
            raise
        print(f"adarem: {problem}", file=sys.stderr)
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
