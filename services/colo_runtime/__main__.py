"""`python -m colo_runtime` is `colo`."""

import sys

from colo_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
