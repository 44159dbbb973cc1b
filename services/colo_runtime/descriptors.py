"""Receiving a packet with file descriptors (SCM_RIGHTS, unix(7)) without leaking any of them."""

import os
import socket
from struct import Struct
from typing import Final

from colo_proto.errors import WireError

MAX_PACKET: Final = 4096
"""Bytes."""
MAX_FDS: Final = 4
"""Descriptors that are accepted with one packet."""
NO_DESCRIPTORS: Final = "descriptors"
"""The reason of the `WireError` when this process has no free descriptor for those that came."""

_INT: Final = Struct("i")


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one packet and its descriptors, which are close-on-exec; the caller has to close them.

    `ConnectionError` at the end of the connection, `WireError` when the packet or its descriptors were too many; in
    both cases no descriptor is left open.
    """
    # Not socket.recv_fds: it ignores its flags argument.
    space = socket.CMSG_SPACE(MAX_FDS * _INT.size)
    data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, space, socket.MSG_CMSG_CLOEXEC)
    fds = [
        fd
        for level, kind, body in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for (fd,) in _INT.iter_unpack(body[: len(body) - len(body) % _INT.size])
    ]
    if not data and not fds:
        raise ConnectionError("the other side has closed the socket")
    if flags & socket.MSG_TRUNC:
        close_all(fds)
        raise WireError("oversized", f"more than {MAX_PACKET} bytes")
    if flags & socket.MSG_CTRUNC and len(fds) < MAX_FDS:
        # The kernel has dropped those for which this process had no free descriptor.
        close_all(fds)
        raise WireError(NO_DESCRIPTORS, "this process had none left for those that came")
    return data, fds


def close_all(fds: list[int]) -> None:
    """Close descriptors that are not needed."""
    for fd in fds:
        os.close(fd)
