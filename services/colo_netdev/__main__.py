"""`python -m colo_netdev` is `colo netdev`."""

import sys

from colo_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(["netdev", *sys.argv[1:]]))
