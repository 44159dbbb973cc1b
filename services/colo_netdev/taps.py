"""Taps: opening one, placing it, and recognising one that comes back.

The whole placement is one netlink message: namespace, name, address, MTU, queue length, bridge and up. The kernel moves
the interface first and applies the rest inside its new namespace, so nothing that is lost by moving (address, up) has
to be set a second time, and only CAP_NET_ADMIN is needed. Bridges and addresses belong to the namespace (`netns`).
"""

import errno
import fcntl
import os
import socket
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import ip_interface
from struct import Struct
from typing import Any, Final

from colo_netdev.config import TapSpec
from colo_netdev.netns import Namespace, open_netns
from colo_proto.errors import ConfigError
from colo_proto.frame import VNET_HDR_LEN

TUNGETIFF: Final = 0x800454D2
TUNSETOFFLOAD: Final = 0x400454D0
TUNSETVNETHDRSZ: Final = 0x400454D8
SIOCGIFHWADDR: Final = 0x8927

IFF_TAP: Final = 0x0002
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000

OFFLOADS: Final = 0x01 | 0x02 | 0x04 | 0x08
"""TUN_F_CSUM, TSO4, TSO6, TSO_ECN: what `colo_proto.frame` can carry."""

_IFREQ = Struct("16sH22x")
_INT = Struct("i")


class TapExistsError(Exception):
    """The interface is already there: perhaps filters hold it and will return it."""


@dataclass(slots=True)
class Tap:
    """An open tap: the descriptor and what a filter must know about it."""

    spec: TapSpec
    fd: int
    mac: str
    adopted: bool = False

    @property
    def alive(self) -> bool:
        """False when the interface is gone: it was deleted, or its namespace ended."""
        try:
            describe(self.fd)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close this copy of the descriptor; the interface stays as long as a filter holds another."""
        os.close(self.fd)


def open_tap(spec: TapSpec, tun: str = "/dev/net/tun", offered: Namespace | None = None) -> Tap:
    """Create, configure and place the tap; `offered` is the namespace of a `netns=@NAME`.
    `TapExistsError` when it is there already.
    """
    with ExitStack() as stack, ExitStack() as undo:
        target = offered.netns_fd() if offered is not None else open_netns(spec.netns) if spec.netns else -1
        if target >= 0:
            stack.callback(os.close, target)
        namespace = offered
        if namespace is None and (spec.bridge or spec.address or spec.gateway):
            found = Namespace.named(spec.netns, target) if spec.netns else Namespace.here()
            namespace = stack.enter_context(closing(found))
        bridge = _bridge(spec, namespace) if spec.bridge and namespace is not None else 0
        fd = _create(spec, tun)
        undo.callback(os.close, fd)
        _set_offloads(fd, spec)
        mac = _place(spec, target, bridge)
        if namespace is not None:
            _set_addresses(spec, namespace)
        undo.pop_all()
    return Tap(spec, fd, mac)


def adopt_tap(spec: TapSpec, fd: int) -> Tap:
    """Take over a descriptor that a filter returns; `ValueError` says why it does not belong to this tap.

    The interface has its place already. Offloads are set again: whoever holds the descriptor can change them, and the
    filter relies on what the reply promises.
    """
    try:
        name, flags = describe(fd)
    except OSError as error:
        raise ValueError(f"not a tap: {error.strerror}") from None
    if name != spec.kernel_name:
        raise ValueError(f"it is {name!r}, not {spec.kernel_name!r}")
    if not flags & IFF_TAP or bool(flags & IFF_VNET_HDR) != spec.vnet_hdr:
        raise ValueError("it was opened with other flags")
    os.set_blocking(fd, False)
    _set_offloads(fd, spec)
    # tun answers this on its own descriptor, in whatever namespace the interface is.
    mac = fcntl.ioctl(fd, SIOCGIFHWADDR, bytes(_IFREQ.size))[18:24].hex(":")
    return Tap(spec, fd, mac, adopted=True)


def describe(fd: int) -> tuple[str, int]:
    """Name and flags of the interface behind a tun descriptor; `OSError` when it is none, or the interface is gone."""
    name, flags = _IFREQ.unpack(fcntl.ioctl(fd, TUNGETIFF, bytes(_IFREQ.size)))
    return name.rstrip(b"\0").decode(), flags


def _create(spec: TapSpec, tun: str) -> int:
    # Not every kernel answers EBUSY for a name in use (it may attach to a persistent tap), so look first.
    if any(name == spec.name for _, name in socket.if_nameindex()):
        raise TapExistsError(spec.name)
    if not os.path.exists(tun):
        raise ConfigError(f"tap {spec.name}: {tun} does not exist (load the tun module, or pass the device in)")
    import pytun  # noqa: PLC0415 - a native module; tests of the rest run without it

    flags = pytun.IFF_TAP | pytun.IFF_NO_PI | (pytun.IFF_VNET_HDR if spec.vnet_hdr else 0)
    try:
        device = pytun.TunTapDevice(name=spec.name, flags=flags)
    except (OSError, pytun.Error) as error:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        raise _explained(spec, tun, code, str(error.args[-1] if error.args else error)) from None
    # The device object closes its descriptor when it is collected, so keep a copy.
    fd = fcntl.fcntl(device.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
    device.close()
    os.set_blocking(fd, False)
    return fd


def _explained(spec: TapSpec, tun: str, code: int, text: str) -> Exception:
    if code in (errno.EBUSY, errno.EEXIST):
        return TapExistsError(spec.name)
    why = {
        errno.EPERM: "not permitted: CAP_NET_ADMIN is needed",
        errno.EACCES: f"no permission to open {tun}",
        errno.ENODEV: f"{tun} has no driver behind it (load the tun module)",
        errno.ENOENT: f"{tun} does not exist",
        errno.EINVAL: "an interface of that name exists and is not a tap with these flags",
    }.get(code, text)
    return ConfigError(f"tap {spec.name}: {why}")


def _set_offloads(fd: int, spec: TapSpec) -> None:
    if spec.vnet_hdr:
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, _INT.pack(VNET_HDR_LEN))
        fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)


def _bridge(spec: TapSpec, namespace: Namespace) -> int:
    where = f" in netns {spec.netns}" if spec.netns else ""
    try:
        return namespace.bridge(spec.bridge, spec.uplink)
    except LookupError as error:
        what = "bridge" if error.args[0] == spec.bridge else "uplink"
        raise ConfigError(f"tap {spec.name}: there is no {what} {error.args[0]}{where}") from None
    except OSError as error:
        raise ConfigError(f"tap {spec.name}: bridge {spec.bridge}{where}: {error.strerror}") from None


def _set_addresses(spec: TapSpec, namespace: Namespace) -> None:
    try:
        for address in spec.address:
            namespace.address(spec.kernel_name, ip_interface(address))
        if spec.gateway:
            namespace.gateway(spec.kernel_name, spec.gateway)
    except OSError as error:
        raise ConfigError(f"tap {spec.name}: cannot give it its addresses: {error.strerror}") from None


def _place(spec: TapSpec, target: int, bridge: int) -> str:
    """Configure the kernel side where it shall be and bring it up. Returns its hardware address."""
    from pyroute2 import IPRoute  # noqa: PLC0415 - a quarter of a second; only needed when taps are made
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    request: dict[str, Any] = {"mtu": spec.mtu, "txqlen": spec.queue, "state": "up"}
    request |= {
        key: value for key, value in (("address", spec.mac), ("master", bridge), ("ifname", spec.ifname)) if value
    }
    if target >= 0:
        request["net_ns_fd"] = target
    index = socket.if_nametoindex(spec.name)
    with IPRoute() as ip:
        mac = spec.mac or str(ip.get_links(index)[0].get_attr("IFLA_ADDRESS"))
        try:
            ip.link("set", index=index, **request)
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                raise TapExistsError(spec.kernel_name) from None
            why = {
                errno.EPERM: "not permitted: CAP_NET_ADMIN is needed, in the target namespace too",
                errno.EOPNOTSUPP: f"{spec.bridge} is not a bridge",
                errno.EINVAL: "the kernel refuses mac, mtu or bridge",
            }.get(error.code, os.strerror(error.code))
            raise ConfigError(f"tap {spec.name}: cannot place it: {why}") from None
    return mac
