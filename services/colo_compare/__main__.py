"""`python -m colo_compare` is `colo compare`."""

import sys

from colo_runtime.commandline import main
from colo_runtime.service import Service

SERVICE = Service(
    "compare",
    "Release what both guests agree on (QEMU's colo-compare).",
)

if __name__ == "__main__":
    sys.exit(main(SERVICE))
