"""`python -m colo_netdev` is `colo netdev`."""

import sys

from colo_runtime.commandline import main
from colo_runtime.service import Service

SERVICE = Service(
    "netdev",
    "Open the taps and hand their descriptors to the filters (QEMU's -netdev tap).",
    make="colo_netdev.shell:make",
)

if __name__ == "__main__":
    sys.exit(main(SERVICE))
