"""One process of the lab: it is started in its namespace, ends with the lab, and its use of CPU and memory is counted.

No signal handler is involved: the end of a process is seen on its pidfd, and `wait4` tells what the process has used.
PR_SET_PDEATHSIG makes the kernel kill the process if the lab is killed.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from colo_lab.observed import Usage
from colo_netdev import netns

PR_SET_PDEATHSIG = 1
TCP_LISTEN, UDP_BOUND = "0A", "07"
"""States of a socket in `/proc/net/tcp` and `/proc/net/udp`."""
TAIL = 5
"""Number of lines of its log that are shown when a process has ended."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Child:
    """A process of the lab. `start` may be called again after it has ended, which makes a new incarnation."""

    role: str
    id: str
    host: str
    """The namespace it runs in."""
    argv: Sequence[str]
    netns_fd: int
    """Of that namespace; -1: it belongs to that host, and runs in the namespace of the lab itself."""
    env: Mapping[str, str] | None = None
    log: str = ""
    """File for standard output and standard error; empty: they are inherited."""
    output: int | None = None
    """Descriptor for standard output when there is no `log`; None: it is inherited."""
    endpoints: dict[str, str] = field(init=False, default_factory=dict)
    """The endpoints of a filter's links by option, for the state file."""
    retired: bool = field(init=False, default=False)
    """It was asked to drain and end."""
    abandoned: bool = field(init=False, default=False)
    """It is not started again when it ends."""
    pid: int = field(init=False, default=0)
    pidfd: int = field(init=False, default=-1)
    status: int | None = field(init=False, default=None)
    """Exit status of the last incarnation (negative: the number of the signal that ended it), None while it runs."""
    starts: int = field(init=False, default=0)
    started: float = field(init=False, default=0.0)
    usage: Usage = field(init=False, default_factory=Usage)
    _process: "subprocess.Popen[bytes] | None" = field(init=False, default=None)

    @property
    def running(self) -> bool:
        """True from `start` until `reap` has seen its end."""
        return self.pidfd >= 0

    @property
    def restarts(self) -> int:
        """How many times it was started again after its first start."""
        return max(0, self.starts - 1)

    def start(self) -> None:
        """Start the process. `OSError` when the program cannot be run."""
        assert not self.running
        out: IO[bytes] | int | None = self.output
        with contextlib.ExitStack() as stack:
            if self.log:
                out = stack.enter_context(open(self.log, "ab"))
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL if self.log else None,
                stdout=out,
                stderr=out if self.log else None,
                env=self.env,
                # Ctrl-C on the terminal is for the lab and the client alone.
                start_new_session=self.role != "client",
                preexec_fn=entering(self.netns_fd),  # noqa: PLW1509 - one thread, and setns has no other place
            )
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)
        self.status = None
        self.starts += 1
        self.started = time.monotonic()

    def signal(self, number: int) -> None:
        """Send a signal. Nothing happens when the process has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def sample(self) -> None:
        """Record its peak memory while it runs (what `wait4` reports also includes the lab's own, from before exec)."""
        if self.running:
            # A process that has ended and was not reaped yet has no memory.
            with contextlib.suppress(OSError, IndexError):
                about = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
                peak = int(about.partition("VmHWM:")[2].split()[0]) * 1024
                self.usage.max_rss_bytes = max(self.usage.max_rss_bytes, peak)

    def cpu_now(self) -> float:
        """CPU seconds of all incarnations up to now."""
        total = self.usage.cpu_seconds
        if self.running:
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
                fields = file.read().rpartition(")")[2].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def reap(self) -> None:
        """Wait until the process has ended, and record its status and what it has used."""
        _, status, used = os.wait4(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        self.usage.cpu_seconds += used.ru_utime + used.ru_stime
        if not self.usage.max_rss_bytes:
            self.usage.max_rss_bytes = used.ru_maxrss * 1024
        os.close(self.pidfd)
        self.pidfd = -1
        if self._process is not None:
            # Otherwise Popen would wait for a child that no longer exists.
            self._process.returncode = self.status

    @property
    def listens(self) -> bool:
        """True when any process in its network namespace listens on TCP or has a UDP port bound."""
        for name, state in (("tcp", TCP_LISTEN), ("tcp6", TCP_LISTEN), ("udp", UDP_BOUND), ("udp6", UDP_BOUND)):
            with contextlib.suppress(OSError), open(f"/proc/{self.pid}/net/{name}", encoding="ascii") as file:
                if any(line.split()[3] == state for line in file):
                    return True
        return False

    def tail(self) -> str:
        """The last lines that it wrote to its log, for an error message."""
        if self.log:
            with contextlib.suppress(OSError), open(self.log, encoding="utf-8", errors="replace") as file:
                return "".join(deque(file, TAIL)).rstrip("\n")
        return ""


def entering(fd: int) -> Callable[[], None]:
    """What a child does between fork and exec: ask to be killed with its parent, and enter the namespace of `fd`
    unless that is -1.
    """
    parent = os.getpid()

    def enter() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before prctl was called
            os._exit(1)
        if fd >= 0:
            netns.enter(fd)

    return enter
