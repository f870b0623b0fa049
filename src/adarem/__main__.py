"""``python -m adarem``: the command line, without the installed script."""

import sys

from adarem.cli import main

if __name__ == "__main__":
    sys.exit(main())
