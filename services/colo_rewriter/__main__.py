"""`python -m colo_rewriter` is `colo rewriter`."""

import sys

from colo_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(["rewriter", *sys.argv[1:]]))
