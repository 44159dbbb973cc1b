"""`python -m colo_rewriter` is `colo rewriter`."""

import sys

from colo_runtime.commandline import main
from colo_runtime.service import Service

SERVICE = Service(
    "rewriter",
    "The secondary's TCP numbers in terms of the primary's (QEMU's filter-rewriter).",
)

if __name__ == "__main__":
    sys.exit(main(SERVICE))
