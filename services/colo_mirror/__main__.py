"""`python -m colo_mirror` is `colo mirror`."""

import sys

from colo_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(["mirror", *sys.argv[1:]]))
