"""`python -m colo_frame` is `colo frame`."""

import sys

from colo_runtime.commandline import main
from colo_runtime.service import Service

SERVICE = Service(
    "frame",
    "Checkpoints, modes, heartbeat, worker table (the COLO frame).",
    make="colo_frame.shell:make",
    check="colo_frame.shell:check",
)

if __name__ == "__main__":
    sys.exit(main(SERVICE))
