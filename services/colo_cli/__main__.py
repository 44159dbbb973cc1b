"""`python -m colo_cli` is `colo`."""

import sys

from colo_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
