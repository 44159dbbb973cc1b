"""Frames that the kernel dropped because nobody read a tap in time: the statistics of the tap's kernel side.

Only the interface's own counter (`tx_dropped`) knows of these frames: neither their sender nor the filter does. The
interface may be in any namespace. Its descriptor tells which (TUNGETDEVNETNS), and netlink answers for another
namespace by the number that ours has for it (IFLA_TARGET_NETNSID). So CAP_NET_ADMIN is enough, and no namespace is
entered. pyroute2 is not used here: some of its releases cannot give a namespace a number.
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
"""struct nlattr: length, type."""
_LINK: Final = bytes(16)
"""struct ifinfomsg, all zero: any family, type and index."""
_NETNS: Final = bytes(4)
"""struct rtgenmsg, padded: any family."""
_NUMBER = Struct("=i")
_COUNTER = Struct("=Q")

NLMSG_ERROR: Final = 2
NLM_F_REQUEST, NLM_F_ACK = 1, 4
RTM_GETLINK, RTM_NEWNSID, RTM_GETNSID = 18, 88, 90
NETNSA_NSID, NETNSA_FD = 1, 3
IFLA_IFNAME, IFLA_STATS64, IFLA_TARGET_NETNSID = 3, 23, 46
_TX_DROPPED: Final = 7
"""Its place in struct rtnl_link_stats64: two times packets, bytes, errors, dropped."""


def overflowed(fd: int) -> int:
    """Frames that the kernel has dropped at the tap with this descriptor; `OSError` when it does not say."""
    name, _ = describe(fd)
    namespace = fcntl.ioctl(fd, TUNGETDEVNETNS)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            netlink.settimeout(1)
            which = {IFLA_TARGET_NETNSID: _number(netlink, namespace), IFLA_IFNAME: name.encode() + b"\0"}
            link = _ask(netlink, RTM_GETLINK, _LINK, which)
    finally:
        os.close(namespace)
    return int(_COUNTER.unpack_from(link[IFLA_STATS64], _TX_DROPPED * _COUNTER.size)[0])


def _number(netlink: socket.socket, namespace: int) -> bytes:
    """The number that our namespace has for that one, as an attribute. It is given one if it has none."""
    which, none = {NETNSA_FD: _NUMBER.pack(namespace)}, _NUMBER.pack(-1)
    number = _ask(netlink, RTM_GETNSID, _NETNS, which)[NETNSA_NSID]
    if number == none:
        _ask(netlink, RTM_NEWNSID, _NETNS, {**which, NETNSA_NSID: none})
        number = _ask(netlink, RTM_GETNSID, _NETNS, which)[NETNSA_NSID]
    return number


def _ask(netlink: socket.socket, kind: int, header: bytes, attributes: dict[int, bytes]) -> dict[int, bytes]:
    """Send a request. Returns the attributes of the answer, which has a header of the same length; none when the answer
    is an acknowledgement. `OSError` when the kernel refuses.
    """
    body = header
    for key, value in attributes.items():
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), key) + value + bytes(-len(value) % 4)
    # Only RTM_NEWNSID has no answer of its own.
    flags = NLM_F_REQUEST | (NLM_F_ACK if kind == RTM_NEWNSID else 0)
    netlink.send(_MESSAGE.pack(_MESSAGE.size + len(body), kind, flags, 0, 0) + body)
    answer = netlink.recv(65536)
    found: dict[int, bytes] = {}
    if _MESSAGE.unpack_from(answer)[1] == NLMSG_ERROR:
        error = -_NUMBER.unpack_from(answer, _MESSAGE.size)[0]
        if error:
            raise OSError(error, os.strerror(error))
        return found
    at = _MESSAGE.size + len(header)
    while at + _ATTRIBUTE.size <= len(answer):
        size, key = _ATTRIBUTE.unpack_from(answer, at)
        if size < _ATTRIBUTE.size:
            break
        found[key] = answer[at + _ATTRIBUTE.size : at + size]
        at += size + -size % 4
    return found
