"""`python -m colo_redirector` is `colo redirector`."""

import sys

from colo_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(["redirector", *sys.argv[1:]]))
