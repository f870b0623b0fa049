"""``python -m adarem``."""

import sys

from adarem.cli import main

if __name__ == "__main__":
    sys.exit(main())
