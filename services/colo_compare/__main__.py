"""`python -m colo_compare` is `colo compare`."""

import sys

from colo_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
