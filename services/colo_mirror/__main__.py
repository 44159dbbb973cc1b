"""`python -m colo_mirror` is `colo mirror`."""

import sys

from colo_runtime.commandline import main
from colo_runtime.service import Service

SERVICE = Service(
    "mirror",
    "Client frames to the guest, and a copy to the secondary (QEMU's filter-mirror).",
)

if __name__ == "__main__":
    sys.exit(main(SERVICE))
