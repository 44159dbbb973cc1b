"""`python -m colo_vote` is `colo vote`."""

import sys

from colo_runtime.commandline import main
from colo_runtime.service import Service

SERVICE = Service(
    "vote",
    "Hold a key in a store for the side that writes to the client LAN (the third vote).",
    make="colo_vote.shell:make",
    check="colo_vote.shell:check",
)

if __name__ == "__main__":
    sys.exit(main(SERVICE))
