"""`python -m colo_frame` is `colo frame`."""

import sys

from colo_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(["frame", *sys.argv[1:]]))
