"""What strangers may take of a process: connections that never finish their handshake, and descriptors.

A port between hosts is open to everybody who can reach it. Whoever connects costs a descriptor before he has proved
anything, and libzmq bounds neither their number nor survives their end: `accept` on an `ipc://` listener aborts the
process when no descriptor is left (`ipc_listener.cpp` allows for ENFILE, not for EMFILE; so in every release up to
4.3.5), and so does the first socket of a context. So none of them may run out:

* `raise_limit`: the process takes as many descriptors as the system lets it have, and without `LEAST` it does not
  open such a port;
* libzmq's thread runs at most `MAX_BEHIND` events ahead of our loop;
* `Callers`: of the connections of one listener that are in their handshake at most `MAX_PENDING` stay;
* `crowded`: the last `RESERVE` descriptors are not for connections that others make.

::

    accepted fd --> pending --+-- handshake succeeded --------------------> up
                              +-- one too many: the oldest connection of whoever has most is ended

The kernel gives the lowest free number to a new descriptor. So a number near the limit says that all below are taken.
"""

import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Final

WANTED: Final = 65536
"""Descriptors that a process takes if it may; more than it can ever use."""
LEAST: Final = 1024
"""Descriptors without which no port between hosts is opened: `MAX_PENDING`, `MAX_BEHIND` and what we need ourselves."""
RESERVE: Final = 64
"""Descriptors, or a quarter of all, that are kept for our own files and for connections that we make."""
MAX_PENDING: Final = 128
"""Handshakes of one listener that go on at the same time."""
MAX_PEERS: Final = 512
"""Connections of one listener that have finished theirs."""
HANDSHAKE_MS: Final = 3000
"""Time that a handshake may take. libzmq's own thread looks after it, also while our loop stands still."""
MAX_BEHIND: Final = 600
"""Events of one socket's connections that libzmq reports ahead of our loop. Then its thread waits for the loop, and
accepts nobody: this, and no speed of ours, is what bounds connections. It takes more than the 501 after which libzmq
learns that events were read.
"""
BACKLOG: Final = 511
"""Connections that the kernel keeps until libzmq takes them; a flood must not keep others from asking."""

_CREDENTIALS: Final = Struct("3i")
_RECEIVED: Final = Struct("=128xQ")
"""`tcpi_bytes_received` in `struct tcp_info` (linux/tcp.h)."""


def raise_limit() -> int:
    """Let this process have as many descriptors as it may, and say how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def limit() -> int:
    """How many descriptors there are for this process now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return WANTED if soft == resource.RLIM_INFINITY else soft


def crowded(fd: int) -> bool:
    """Is this descriptor, which was just made, one of the last?"""
    most = limit()
    return fd >= most - min(RESERVE, most // 4)


@dataclass(slots=True)
class Caller:
    """A connection in its handshake."""

    fd: int
    since: float
    who: str
    """What tells callers apart: the address, of IPv6 the first half of it; on a Unix socket the process."""
    inode: int
    """Of the socket: the number of a descriptor may be another's by now."""


class Callers:
    """The connections of one listener that are in their handshake, oldest first."""

    def __init__(self) -> None:
        self._all: dict[int, Caller] = {}
        self._of: dict[str, dict[int, Caller]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, fd: int) -> bool:
        return fd in self._all

    def add(self, fd: int) -> None:
        """Somebody was accepted."""
        self.remove(fd)
        who, inode = _look(fd)
        caller = Caller(fd, time.monotonic(), who, inode)
        self._all[fd] = caller
        self._of.setdefault(who, {})[fd] = caller

    def remove(self, fd: int) -> Caller | None:
        """He is gone, or has finished."""
        caller = self._all.pop(fd, None)
        if caller is not None:
            group = self._of[caller.who]
            del group[fd]
            if not group:
                del self._of[caller.who]
        return caller

    def arrived(self) -> int | None:
        """Take out the one whose handshake has succeeded. libzmq does not say which: it is the one that has sent most
        (a handshake with keys has some five hundred bytes, a greeting sixty-four); of equal ones the youngest.
        """
        if not self._all:
            return None
        fds = list(self._all)
        found = fds[0] if len(fds) == 1 else max(reversed(fds), key=_received)
        self.remove(found)
        return found

    def surplus(self) -> Caller | None:
        """Take out the one to turn away: the oldest of whoever has most. None when all have finished, as far as one
        can tell: libzmq ends handshakes that take too long.
        """
        settled = time.monotonic() - 2 * HANDSHAKE_MS / 1000
        while self._all:
            group = max(self._of.values(), key=len)
            caller = next(iter(group.values()))
            self.remove(caller.fd)
            if caller.since > settled:
                return caller
        return None


def hang_up(fd: int, inode: int | None = None) -> None:
    """End a connection that is libzmq's, who then closes it. Nothing is done when `fd` is another socket's by now."""
    with contextlib.suppress(OSError), _borrowed(fd) as ours:
        if inode is None or os.fstat(ours.fileno()).st_ino == inode:
            ours.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket of libzmq's, by a descriptor of our own, so that it stays the same one while we look at it. Without
    one to spare, by libzmq's.
    """
    try:
        ours = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        ours = socket.socket(fileno=fd)
        try:
            yield ours
        finally:
            ours.detach()
        return
    with ours:
        yield ours


def _look(fd: int) -> tuple[str, int]:
    try:
        with _borrowed(fd) as ours:
            inode = os.fstat(ours.fileno()).st_ino
            if ours.family == socket.AF_UNIX:
                found = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                return f"process {_CREDENTIALS.unpack(found)[0]}", inode
            address = ours.getpeername()[0]
    except OSError:
        # It has ended already.
        return "", 0
    if ":" not in address:
        return str(address), inode
    full = IPv6Address(address.partition("%")[0])
    return str(full.ipv4_mapped or IPv6Address(int(full) >> 64 << 64)), inode


def _received(fd: int) -> int:
    try:
        with _borrowed(fd) as ours:
            return int(_RECEIVED.unpack_from(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192))[0])
    except (OSError, StructError):
        # A Unix socket does not count.
        return 0
