"""Clears up after a lab that was killed. It is run as a script and waits on a pipe.

`cleanup.py DIRECTORY INODE…` reads the pipe as standard input. The lab holds the other end, and writes a line when it
replaces a namespace (`OLD NEW`, their inodes) and when it has cleared up itself (`done`). If the pipe ends without the
latter, the lab was killed. Then every process in its namespaces is killed and its directory is removed. This file uses
only the standard library and no site packages (`python -I -S`), because it must start quickly and need little memory.
"""

import contextlib
import os
import shutil
import signal
import sys
import time


def kill_inhabitants(inodes: set[int], spare: set[int]) -> int:
    """Send SIGKILL to every process whose network namespace is one of these, except for the process ids in `spare`.
    Returns the number of processes found.

    This also finds what the command of a guest or client has left in the background, whatever its parent is now.
    """
    found = 0
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in spare:
            continue
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(int(name))
            try:
                if os.stat(f"/proc/{name}/ns/net").st_ino in inodes:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    found += 1
            finally:
                os.close(pidfd)
    return found


def main(directory: str, inodes: set[int]) -> None:
    """Wait for the end of the lab, and clear up if it was killed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin:
        if line == "done\n":
            return
        old, _, new = line.partition(" ")
        inodes = (inodes - {int(old)}) | {int(new)}
    # The child of a process that is just forking may be missed, so repeat this until no process is found.
    deadline = time.monotonic() + 5
    while kill_inhabitants(inodes, {os.getpid()}) and time.monotonic() < deadline:
        time.sleep(0.02)
    if directory:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], {int(inode) for inode in sys.argv[2:]})
