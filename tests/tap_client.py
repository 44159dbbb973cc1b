"""A client of netdev's socket that waits for its answers, for tests of both sides. It imports nothing of the tests, so
that a test can run its source in a container.
"""

import socket

from colo_proto.errors import WireError
from colo_proto.netdev import RefusedError, Request, TapInfo, decode_reply, encode_request
from colo_runtime.descriptors import close_all, receive


def fetch_tap(sock: socket.socket, tap: str, who: str, *, lease: bool = False) -> tuple[TapInfo, int]:
    """Ask for a tap on a connected socket. Returns its description and its descriptor (close-on-exec)."""
    sock.send(encode_request(Request("get", tap, who, lease)))
    data, fds = receive(sock)
    try:
        info = decode_reply(data)
    except (RefusedError, WireError):
        close_all(fds)
        raise
    if not fds:
        raise WireError("malformed", "netdev sent no descriptor")
    close_all(fds[1:])
    return info, fds[0]


def return_tap(sock: socket.socket, tap: str, fd: int, who: str) -> TapInfo:
    """Give netdev a copy of a tap's descriptor after netdev was restarted."""
    socket.send_fds(sock, [encode_request(Request("return", tap, who))], [fd])
    data, fds = receive(sock)
    close_all(fds)
    return decode_reply(data)
