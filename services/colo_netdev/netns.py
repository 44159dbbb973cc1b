"""Network namespaces: naming and entering them, and changing interfaces in them.

A namespace is named by the id of a process in it, by a path (`/proc/PID/ns/net`, `/var/run/netns/NAME`), or held by an
open descriptor. `setns` moves only the calling thread, which is what `inside` is for: a socket made there belongs to
the namespace for good. netdev reaches into a namespace by such sockets (`Namespace`)::

    here      our own namespace
    named     netns=PID|PATH: entered for a moment to make the sockets (needs CAP_SYS_ADMIN)
    offered   netns=@NAME: `colo netns` made the sockets inside and passed them to us

The kernel looks at the process that uses a socket, not at the one that made it: with the sockets alone CAP_NET_ADMIN is
enough to look up, bridge and address interfaces there. That is what the old interface ioctls are for, because netlink
would look at the maker as well.
"""

import ctypes
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from struct import Struct
from typing import Final, Self

from colo_proto.errors import ConfigError

CLONE_NEWNET: Final = 0x40000000
SIOCADDRT: Final = 0x890B
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
SIOCSIFADDR: Final = 0x8916
SIOCSIFNETMASK: Final = 0x891C
SIOCGIFINDEX: Final = 0x8933
SIOCGSKNS: Final = 0x894C
SIOCBRADDBR: Final = 0x89A0
SIOCBRADDIF: Final = 0x89A2

IFF_UP: Final = 0x1
RTF_UP, RTF_GATEWAY = 0x1, 0x2

_INDEX = Struct("=16si20x")
_FLAGS = Struct("=16sH22x")
_ADDRESS = Struct("=16sHH4s16x")
_ADDRESS6 = Struct("=16sIi")
_SOCKADDR = Struct("=HH4s8x")
_ROUTE = Struct("@L16s16s16sHhLPhPLLH")
"""struct rtentry: pad, destination, gateway, mask, flags, pads, metric, device, MTU, window, initial RTT."""
_ROUTE6 = Struct("@16s16s16sIHHILIi")
"""struct in6_rtmsg: destination, source, gateway, type, their prefix lengths, metric, info, flags, index."""

Address = IPv4Interface | IPv6Interface

_libc = ctypes.CDLL(None, use_errno=True)


def open_netns(name: str) -> int:
    """A descriptor of the namespace `name` (process id or path). The caller closes it."""
    path = f"/proc/{name}/ns/net" if name.isdigit() else name
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        what = f"there is no process {name}" if name.isdigit() else f"{path} does not exist"
        raise ConfigError(f"netns={name}: {what}") from None
    except OSError as error:
        raise ConfigError(f"netns={name}: cannot open {path}: {error.strerror}") from None
    # The ioctl NS_GET_NSTYPE would be stricter, but the text of the link is enough.
    kind = os.readlink(f"/proc/self/fd/{fd}")
    if not kind.startswith("net:"):
        os.close(fd)
        raise ConfigError(f"netns={name}: {path} is not a network namespace")
    return fd


def enter(fd: int) -> None:
    """Move this thread into the namespace of `fd`."""
    _check(_libc.setns(fd, CLONE_NEWNET), "setns")


def _present() -> int:
    """A descriptor of the namespace that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside(fd: int | None) -> Iterator[None]:
    """Run the body with this thread in the namespace of `fd`, or in a new one if that is None."""
    before = _present()
    try:
        if fd is None:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
        else:
            enter(fd)
        yield
    finally:
        try:
            enter(before)
        finally:
            os.close(before)


def new() -> int:
    """Make a namespace, and return a descriptor of it. The caller closes it."""
    with inside(None):
        return _present()


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


class Namespace:
    """A namespace that is reached by sockets made in it. It lives as long as one of them is open, so close it."""

    def __init__(self, inet: socket.socket, inet6: socket.socket | None) -> None:
        self._inet = inet
        self._inet6 = inet6

    @classmethod
    def here(cls) -> Self:
        """The namespace that this thread is in."""
        inet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            return cls(inet, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        except OSError:
            return cls(inet, None)  # a kernel without IPv6

    @classmethod
    def named(cls, name: str, fd: int) -> Self:
        """The namespace of a process id or a path, opened as `fd`. `ConfigError` when we may not enter it."""
        try:
            with inside(fd):
                return cls.here()
        except PermissionError:
            raise ConfigError(f"netns={name}: reaching into it needs CAP_SYS_ADMIN") from None

    @classmethod
    def offered(cls, fds: list[int]) -> Self:
        """The namespace of the sockets behind `fds`: an IPv4 and an IPv6 datagram socket, or the first alone. They are
        taken out of the list. `ValueError` when they are something else.
        """
        sockets: list[socket.socket] = []
        try:
            for fd in fds[:2]:
                sockets.append(socket.socket(fileno=fd))  # noqa: PERF401 - those before a wrong one are detached
        except OSError:
            for one in sockets:
                one.detach()
            raise ValueError("sockets expected") from None
        del fds[:2]
        families = [(one.family, one.type & 0xF) for one in sockets]
        wanted = [(socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_DGRAM)]
        if not families or families != wanted[: len(families)]:
            for one in sockets:
                one.close()
            raise ValueError("an IPv4 and an IPv6 datagram socket expected")
        return cls(sockets[0], sockets[1] if len(sockets) > 1 else None)

    def close(self) -> None:
        """Close the sockets. The namespace ends unless something else keeps it."""
        self._inet.close()
        if self._inet6 is not None:
            self._inet6.close()

    def netns_fd(self) -> int:
        """A descriptor of the namespace. The caller closes it."""
        return fcntl.ioctl(self._inet.fileno(), SIOCGSKNS, 0)

    def index(self, name: str) -> int:
        """Index of an interface; 0 when there is none of that name."""
        raw = self._ioctl(SIOCGIFINDEX, _INDEX.pack(name.encode(), 0), harmless=errno.ENODEV)
        return int(_INDEX.unpack(raw)[1]) if raw else 0

    def bridge(self, name: str, uplink: str = "") -> int:
        """Index of the bridge `name`. With an `uplink` it is made where it is missing, and the uplink joins it.
        `LookupError` names the interface that is not there; other errors are the kernel's `OSError`.
        """
        index = self.index(name)
        if not index and not uplink:
            raise LookupError(name)
        if uplink:
            port = self.index(uplink)
            if not port:
                raise LookupError(uplink)
            if not index:
                self._ioctl(SIOCBRADDBR, name.encode().ljust(16, b"\0"))
                index = self.index(name)
            # EBUSY: the uplink is a port of the bridge already.
            self._ioctl(SIOCBRADDIF, _INDEX.pack(name.encode(), port), harmless=errno.EBUSY)
            self.up(uplink)
            self.up(name)
        return index

    def up(self, name: str) -> None:
        """Bring an interface up."""
        flags = _FLAGS.unpack(self._ioctl(SIOCGIFFLAGS, _FLAGS.pack(name.encode(), 0)))[1]
        self._ioctl(SIOCSIFFLAGS, _FLAGS.pack(name.encode(), flags | IFF_UP))

    def address(self, name: str, address: Address) -> None:
        """Give an interface an address, unless it has it already. A second IPv4 address replaces the first."""
        if isinstance(address, IPv4Interface):
            self._ioctl(SIOCSIFADDR, _ADDRESS.pack(name.encode(), socket.AF_INET, 0, address.ip.packed))
            self._ioctl(SIOCSIFNETMASK, _ADDRESS.pack(name.encode(), socket.AF_INET, 0, address.netmask.packed))
            return
        request = _ADDRESS6.pack(address.ip.packed, address.network.prefixlen, self.index(name))
        self._ioctl(SIOCSIFADDR, request, self._need6(), harmless=errno.EEXIST)

    def gateway(self, name: str, gateway: str) -> None:
        """Make a default route through `gateway`, unless it is there already."""
        there = ip_address(gateway)
        if there.version == 4:
            any4 = _SOCKADDR.pack(socket.AF_INET, 0, bytes(4))
            via = _SOCKADDR.pack(socket.AF_INET, 0, there.packed)
            request = _ROUTE.pack(0, any4, via, any4, RTF_UP | RTF_GATEWAY, 0, 0, 0, 1, 0, 0, 0, 0)
            self._ioctl(SIOCADDRT, request, harmless=errno.EEXIST)
            return
        request = _ROUTE6.pack(
            bytes(16), bytes(16), there.packed, 0, 0, 0, 1, 0, RTF_UP | RTF_GATEWAY, self.index(name)
        )
        self._ioctl(SIOCADDRT, request, self._need6(), harmless=errno.EEXIST)

    def _ioctl(self, number: int, request: bytes, sock: socket.socket | None = None, *, harmless: int = 0) -> bytes:
        """The kernel's answer; empty after the error `harmless`. Other errors are raised."""
        try:
            return fcntl.ioctl((sock or self._inet).fileno(), number, request)
        except OSError as error:
            if error.errno != harmless:
                raise
            return b""

    def _need6(self) -> socket.socket:
        if self._inet6 is None:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return self._inet6
