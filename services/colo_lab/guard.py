"""Clears up after a lab that was killed: run as a script, it waits on a pipe.

`guard.py DIRECTORY INODE…` with the pipe as standard input. The lab holds the other end and says a
byte when it has cleared up itself; an end without that byte means that it was killed. Then every
process in its namespaces is ended and its directory removed. Only the standard library, and no site
packages (`python -I -S`): it must be there quickly and cost nothing.
"""

import contextlib
import os
import shutil
import signal
import sys
import time


def _sweep(inodes: set[int]) -> bool:
    found = False
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(int(name))
            try:
                if os.stat(f"/proc/{name}/ns/net").st_ino in inodes:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    found = True
            finally:
                os.close(pidfd)
    return found


def main(directory: str, inodes: set[int]) -> None:
    """Wait for the lab's end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(0, 1):
        return
    # A process that was just forking may be missed once; look until there is nobody.
    deadline = time.monotonic() + 5
    while _sweep(inodes) and time.monotonic() < deadline:
        time.sleep(0.02)
    if directory:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], {int(inode) for inode in sys.argv[2:]})
