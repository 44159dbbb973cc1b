"""`python -m colo_redirector` is `colo redirector`."""

import sys

from colo_runtime.commandline import main
from colo_runtime.service import Service

SERVICE = Service(
    "redirector",
    "Frames out of the chain, or into it (QEMU's filter-redirector).",
)

if __name__ == "__main__":
    sys.exit(main(SERVICE))
