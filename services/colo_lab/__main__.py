"""`python -m colo_lab` is `colo lab`."""

import sys

from colo_lab.cli import lab
from colo_runtime.commandline import run

if __name__ == "__main__":
    sys.exit(run(lab, sys.argv[1:], "colo lab"))
