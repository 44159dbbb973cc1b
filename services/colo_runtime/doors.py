"""Bounds on what strangers can take from a process: connections that never finish their handshake, and descriptors.

A port between hosts is open to everybody who can reach it. Each connection costs a descriptor before the peer has
proved anything. libzmq neither bounds their number nor survives when there is no descriptor left: `accept` on an
`ipc://` listener aborts the process (`ipc_listener.cpp` allows for ENFILE, not for EMFILE; so in every release up to
4.3.5), and so does the first socket of a context. Therefore descriptors must never run out:

* `raise_limit`: the process takes as many descriptors as the system allows, and with fewer than `LEAST` it does not
  open such a port;
* the thread of libzmq runs at most `MAX_BEHIND` events ahead of our loop;
* `Callers`: at most `MAX_PENDING` connections of one listener may be in their handshake;
* `crowded`: the last `RESERVE` descriptors are not for connections that others make.

::

    accepted fd --> pending --+-- handshake succeeded --------------------> up
                              +-- one too many: the oldest connection of the caller that has most is ended

The kernel gives the lowest free number to a new descriptor. A number close to the limit therefore means that all
numbers below it are in use.
"""

import contextlib
import errno
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Final

WANTED: Final = 65536
"""Descriptors that a process takes if it may; more than it can ever use."""
LEAST: Final = 1024
"""Descriptors without which no port between hosts is opened: `MAX_PENDING`, `MAX_BEHIND` and our own."""
RESERVE: Final = 64
"""Descriptors (at most a quarter of all) that are kept for our own files and for connections that we make."""
MAX_PENDING: Final = 128
"""Handshakes of one listener at the same time."""
MAX_PEERS: Final = 512
"""Connections of one listener that have finished their handshake."""
HANDSHAKE_MS: Final = 3000
"""Time that a handshake may take. The thread of libzmq enforces it, also while our loop stands still."""
MAX_BEHIND: Final = 600
"""Events about the connections of one socket that libzmq may report ahead of our loop. Then its thread waits for the
loop and accepts no connections: this bound, and not the speed of our loop, limits their number. It has to be more than
501, the number of events that must be read before libzmq notices it.
"""
BACKLOG: Final = 511
"""Connections that the kernel keeps until libzmq accepts them; a flood must not prevent others from connecting."""

_CREDENTIALS: Final = Struct("3i")
_RECEIVED: Final = Struct("=128xQ")
"""`tcpi_bytes_received` in `struct tcp_info` (linux/tcp.h)."""


def raise_limit() -> int:
    """Let this process have as many descriptors as it may, and return their number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return limit()


def limit() -> int:
    """The number of descriptors that this process may have now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return WANTED if soft == resource.RLIM_INFINITY else soft


def crowded(fd: int) -> bool:
    """True when this descriptor, which was just made, is one of the last."""
    most = limit()
    return fd >= most - min(RESERVE, most // 4)


@dataclass(slots=True)
class Caller:
    """A connection in its handshake."""

    fd: int
    since: float
    who: str
    """Identifies the peer: its address (of IPv6 the first half), or on a Unix socket its process."""
    inode: int
    """Of the socket: the number of the descriptor may belong to another socket later."""


class Callers:
    """The connections of one listener that are in their handshake, the oldest first."""

    def __init__(self) -> None:
        self._all: dict[int, Caller] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, fd: int) -> None:
        """A connection was accepted, or made by us."""
        self.remove(fd)
        self._all[fd] = Caller(fd, time.monotonic(), *_identify(fd))

    def remove(self, fd: int) -> Caller | None:
        """The connection has ended, or has finished its handshake."""
        return self._all.pop(fd, None)

    def arrived(self) -> int | None:
        """Remove the connection whose handshake has succeeded, and return its descriptor.

        libzmq does not say which one it is. It is the one that has sent most (a handshake with keys has some five
        hundred bytes, a greeting sixty-four); of those that have sent equally much, the youngest.
        """
        if not self._all:
            return None
        found = max(reversed(self._all), key=_received)
        self.remove(found)
        return found

    def surplus(self) -> Caller | None:
        """Remove and return the connection to be ended: the oldest one of the caller that has most of them.

        None when all of them have probably finished, because they are so old that libzmq would have ended a handshake.
        """
        finished = time.monotonic() - 2 * HANDSHAKE_MS / 1000
        while self._all:
            ((busiest, _),) = Counter(one.who for one in self._all.values()).most_common(1)
            caller = next(one for one in self._all.values() if one.who == busiest)
            self.remove(caller.fd)
            if caller.since > finished:
                return caller
        return None


def hang_up(fd: int, inode: int | None = None) -> None:
    """End a connection of libzmq, which then closes it. Does nothing when `fd` belongs to another socket by now."""
    with contextlib.suppress(OSError), _borrowed(fd) as ours:
        if inode is None or os.fstat(ours.fileno()).st_ino == inode:
            ours.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _borrowed(fd: int) -> Iterator[socket.socket]:
    """A socket of libzmq through a descriptor of our own, so that it stays the same socket while we use it. When there
    is no descriptor left, through libzmq's.
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


def _identify(fd: int) -> tuple[str, int]:
    """`Caller.who` and `Caller.inode`."""
    try:
        with _borrowed(fd) as ours:
            inode = os.fstat(ours.fileno()).st_ino
            if ours.family == socket.AF_UNIX:
                found = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                return f"process {_CREDENTIALS.unpack(found)[0]}", inode
            address = ours.getpeername()[0]
    except OSError:
        # The connection has ended already.
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
        # A Unix socket has no such number.
        return 0
