"""What the kernel dropped because nobody read a tap in time: the statistics of its kernel side.

Only the interface's own counter (`tx_dropped`) knows of these frames: neither who sent them nor the filter does. The
interface may be in any namespace. Its descriptor tells which (TUNGETDEVNETNS), and netlink answers for another
namespace by its number (IFLA_TARGET_NETNSID), so that CAP_NET_ADMIN is enough and nothing is entered.
"""

import fcntl
import os
import socket
from struct import Struct
from typing import Final

from colo_netdev.taps import describe

TUNGETDEVNETNS: Final = 0x54E3

_MESSAGE = Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
_ATTRIBUTE = Struct("=HH")
_LINK = Struct("=BxHiII")
"""struct ifinfomsg: family, type, index, flags, change."""
_NUMBER = Struct("=i")
_LONG = Struct("=Q")

NLMSG_ERROR: Final = 2
NLM_F_REQUEST: Final = 1
RTM_NEWLINK, RTM_GETLINK, RTM_NEWNSID, RTM_GETNSID = 16, 18, 88, 90
NETNSA_NSID, NETNSA_FD = 1, 3
IFLA_IFNAME, IFLA_STATS64, IFLA_TARGET_NETNSID = 3, 23, 46
_TX_DROPPED: Final = 7
"""Its place in struct rtnl_link_stats64: two times packets, bytes, errors, dropped."""


def overflowed(fd: int) -> int:
    """Frames that the kernel has dropped at the tap with this descriptor; `OSError` when it does not say."""
    name, _ = describe(fd)
    space = fcntl.ioctl(fd, TUNGETDEVNETNS)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            netlink.settimeout(1)
            link = _link(netlink, name, _number(netlink, space))
    finally:
        os.close(space)
    return int(_LONG.unpack_from(link[IFLA_STATS64], _TX_DROPPED * _LONG.size)[0])


def _number(netlink: socket.socket, space: int) -> int:
    """The number by which our namespace knows that one; it gets one if it has none."""
    number = _NUMBER.unpack(_numbered(netlink, RTM_GETNSID, space)[NETNSA_NSID])[0]
    if number < 0:
        _numbered(netlink, RTM_NEWNSID, space)
        number = _NUMBER.unpack(_numbered(netlink, RTM_GETNSID, space)[NETNSA_NSID])[0]
    return int(number)


def _numbered(netlink: socket.socket, kind: int, space: int) -> dict[int, bytes]:
    # struct rtgenmsg is one byte, and padded to four.
    words = bytes(4) + _attribute(NETNSA_FD, _NUMBER.pack(space))
    if kind == RTM_NEWNSID:
        words += _attribute(NETNSA_NSID, _NUMBER.pack(-1))
    return _ask(netlink, kind, words, 4)


def _link(netlink: socket.socket, name: str, number: int) -> dict[int, bytes]:
    words = _LINK.pack(0, 0, 0, 0, 0) + _attribute(IFLA_TARGET_NETNSID, _NUMBER.pack(number))
    return _ask(netlink, RTM_GETLINK, words + _attribute(IFLA_IFNAME, name.encode() + b"\0"), _LINK.size)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(netlink: socket.socket, kind: int, words: bytes, skip: int) -> dict[int, bytes]:
    """Attributes of the answer, behind `skip` bytes of its own header; none where it is an acknowledgement."""
    netlink.send(_MESSAGE.pack(_MESSAGE.size + len(words), kind, NLM_F_REQUEST | _acknowledged(kind), 0, 0) + words)
    answer = netlink.recv(65536)
    if _MESSAGE.unpack_from(answer)[1] == NLMSG_ERROR:
        error = -_NUMBER.unpack_from(answer, _MESSAGE.size)[0]
        if error:
            raise OSError(error, os.strerror(error))
        return {}
    found: dict[int, bytes] = {}
    at = _MESSAGE.size + skip
    while at + _ATTRIBUTE.size <= len(answer):
        size, number = _ATTRIBUTE.unpack_from(answer, at)
        if size < _ATTRIBUTE.size:
            break
        found[number] = answer[at + _ATTRIBUTE.size : at + size]
        at += size + -size % 4
    return found


def _acknowledged(kind: int) -> int:
    """NLM_F_ACK for what has no answer of its own."""
    return 4 if kind == RTM_NEWNSID else 0
