"""`python -m colo_lab` is `colo lab`."""

import sys

from colo_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(["lab", *sys.argv[1:]]))
