"""What `colo netdev` is told: where to listen, and which taps to make."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_interface
from typing import Any, Final

from colo_proto.config import DAY_S, option, shown
from colo_proto.errors import ConfigError
from colo_proto.topology import TAP_QUEUE

IFNAMSIZ: Final = 15
"""Longest interface name (Linux), in bytes."""
MAX_SOCKET_PATH: Final = 107
"""Longest path of a Unix socket (Linux), in bytes."""
MIN_MTU, MAX_MTU = 68, 65521
MAX_QUEUE: Final = 100_000
MAX_USER: Final = (1 << 32) - 2
"""The number above it is the kernel's "none"."""
_MODE = re.compile(r"(0o)?0*[0-7]{1,3}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class TapSpec:
    """One `--tap`. `name` is what filters ask for (`tap://name`)."""

    name: str
    netns: str = ""
    """Where the kernel side goes: a process id, a path to a namespace, or @NAME, the one that `colo netns` offers
    by that name. Empty: it stays in netdev's namespace.
    """
    bridge: str = ""
    """Bridge to join, in the namespace where the kernel side ends up."""
    uplink: str = ""
    """Interface that joins the bridge as well; the bridge is made where it is missing."""
    ifname: str = ""
    """Name of the kernel side, when it is not `name`."""
    mac: str = ""
    """Address of the kernel side; empty: the kernel makes one up."""
    address: tuple[str, ...] = ()
    """Addresses with prefix lengths for the kernel side (a container guest cannot set them itself)."""
    gateway: str = ""
    """Default route through this address, in the namespace of the kernel side."""
    vnet_hdr: bool = True
    """IFF_VNET_HDR with checksum and TCP segmentation offload: frames of up to 64 KiB stay whole."""
    mtu: int = 1500
    queue: int = TAP_QUEUE
    """Frames that the kernel keeps while nobody reads."""

    @property
    def offer(self) -> str:
        """The name under which its namespace is offered; empty when it needs no offer."""
        return self.netns[1:] if self.netns.startswith("@") else ""

    @property
    def kernel_name(self) -> str:
        """What the interface is called once it is placed."""
        return self.ifname or self.name


@dataclass(frozen=True, slots=True)
class Grant:
    """One `--allow`."""

    user: int
    taps: tuple[str, ...] = ()
    lease: bool = False
    """Those taps with `lease=on` only."""
    netns: tuple[str, ...] = ()
    """Namespaces that it may offer."""


@dataclass(frozen=True, slots=True)
class NetdevConfig:
    """Options of `colo netdev`."""

    listen: str = option(kind="path", help="Unix socket on which descriptors are handed out")
    tap: tuple[str, ...] = option(
        help="NAME[,netns=PID|PATH|@NAME][,bridge=NAME[,uplink=NAME]][,ifname=NAME][,mac=..][,address=CIDR[+CIDR]]"
        "[,gateway=IP][,vnet_hdr=on|off][,mtu=N][,queue=N]"
    )
    allow: tuple[str, ...] = option(
        (),
        help="user=UID,tap=NAME[+NAME][,lease=on] or user=UID,netns=NAME[+NAME]: who may have which taps, and offer"
        " which namespaces; without any, whoever may connect",
    )
    adopt_timeout: float = option(
        5.0, unit="s", least=0, most=DAY_S, help="how long to wait for filters to return a tap that exists already"
    )
    socket_mode: str = option("0660", unit="octal", help="permissions of the socket")
    owner: str = option("", help="give the socket to UID or UID:GID (numbers)")
    id: str = option("netdev", kind="hidden", help="name of this process")

    def __post_init__(self) -> None:
        if not self.listen:
            raise ConfigError("--listen: the path of a Unix socket is required")
        if len(self.listen.encode()) > MAX_SOCKET_PATH:
            raise ConfigError(f"--listen {self.listen}: a Unix socket's path has at most {MAX_SOCKET_PATH} bytes")
        if not self.tap:
            raise ConfigError("--tap: at least one tap is required")
        names = [tap.name for tap in self.taps()]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"--tap {name}: given twice")
        for grant in self.grants():
            for tap in grant.taps:
                if tap not in names:
                    raise ConfigError(f"--allow user={grant.user},tap={tap}: there is no tap {tap!r}")
        self.mode_bits()
        self.owner_ids()

    def taps(self) -> tuple[TapSpec, ...]:
        """The taps, parsed."""
        return tuple(parse_tap(text) for text in self.tap)

    def grants(self) -> tuple[Grant, ...]:
        """Who may have which taps, parsed."""
        return tuple(parse_allow(text) for text in self.allow)

    def mode_bits(self) -> int:
        """`socket_mode` as a number."""
        if not _MODE.fullmatch(self.socket_mode):
            raise ConfigError(f"--socket-mode {self.socket_mode}: octal permissions expected, as in 0660")
        return int(self.socket_mode, 8)

    def owner_ids(self) -> tuple[int, int] | None:
        """Numeric (uid, gid) of `owner`; a gid that is not given is left alone (-1)."""
        if not self.owner:
            return None
        uid, _, gid = self.owner.partition(":")
        try:
            return _user(uid), _user(gid) if gid else -1
        except ValueError:
            raise ConfigError(f"--owner {self.owner[:40]}: UID or UID:GID expected, as numbers") from None


def parse_tap(text: str) -> TapSpec:
    """Parse `NAME[,key=value]...`; the keys are the fields of `TapSpec`."""
    what = f"--tap {text[:200]}"
    name, *pairs = text.split(",")
    given = _parse_pairs(what, [f"name={name}"], {"name": _interface}) | _parse_pairs(what, pairs, _TAP_KEYS)
    if "uplink" in given and "bridge" not in given:
        raise ConfigError(f"{what}: uplink goes with bridge")
    return TapSpec(**given)


def parse_allow(text: str) -> Grant:
    """Parse `user=UID,tap=NAME[+NAME][,lease=on]` or `user=UID,netns=NAME[+NAME]`."""
    what = f"--allow {text[:80]}"
    given = _parse_pairs(what, text.split(","), _ALLOW_KEYS)
    if "user" not in given or not given.keys() & {"tap", "netns"}:
        raise ConfigError(f"{what}: a user, and names of taps (tap=) or of namespaces (netns=) expected")
    if "lease" in given and "tap" not in given:
        raise ConfigError(f"{what}: lease goes with tap")
    return Grant(given["user"], given.get("tap", ()), given.get("lease", False), given.get("netns", ()))


_Parser = Callable[[str], Any]
"""Returns what a value means, or raises a `ValueError` that goes on after the key."""


def _parse_pairs(what: str, pairs: Iterable[str], keys: Mapping[str, _Parser]) -> dict[str, Any]:
    """What is given, by key. The `ConfigError` for a mistake begins with `what`."""
    given: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if key not in keys:
            raise ConfigError(f"{what}: unknown key {key!r}; one of {', '.join(keys)}")
        if not value:
            raise ConfigError(f"{what}: {key} needs a value")
        if key in given:
            raise ConfigError(f"{what}: {key} is given twice")
        try:
            given[key] = keys[key](value)
        except ValueError as error:
            raise ConfigError(f"{what}: {key} {error}") from None
    return given


# What a key's value must be (`_Parser`).


def _number(least: int, most: int, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not least <= int(text) <= most:
        raise ValueError(f"is a number from {least} to {most}, not {shown(text)}")
    return int(text)


def _user(text: str) -> int:
    return _number(0, MAX_USER, text)


def _on_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(f"is on or off, not {text!r}")
    return text == "on"


def _names(text: str) -> tuple[str, ...]:
    found = tuple(text.split("+"))
    if not all(found):
        raise ValueError(f"is one name or several with + between them, not {shown(text)}")
    return found


def _netns(value: str) -> str:
    if value == "@":
        raise ValueError("@ needs a name")
    return value


def _interface(value: str) -> str:
    bad = "/" in value or any(c.isspace() for c in value) or value in (".", "..")
    if bad or not 0 < len(value.encode()) <= IFNAMSIZ:
        raise ValueError(f"{value!r} is not an interface name (1 to {IFNAMSIZ} bytes, no / or space)")
    if "%" in value:
        raise ValueError(f"{value!r} would be a pattern to the kernel; give the name itself")
    return value


def _mac(value: str) -> str:
    mac = value.lower()
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise ValueError(f"{mac} is not a unicast Ethernet address")
    return mac


def _addresses(value: str) -> tuple[str, ...]:
    found = []
    for one in filter(None, value.split("+")):
        address = str(ip_interface(one))
        if "/" not in one:
            raise ValueError(f"{one} needs a prefix length, as in {one}/24")
        found.append(address)
    if sum("." in one for one in found) > 1:
        raise ValueError("takes at most one IPv4 address")
    return tuple(found)


_TAP_KEYS: Final[dict[str, _Parser]] = {
    "netns": _netns,
    "bridge": _interface,
    "uplink": _interface,
    "ifname": _interface,
    "mac": _mac,
    "address": _addresses,
    "gateway": lambda value: str(ip_address(value)),
    "vnet_hdr": _on_off,
    "mtu": partial(_number, MIN_MTU, MAX_MTU),
    "queue": partial(_number, 1, MAX_QUEUE),
}
"""The keys of `--tap`."""
_ALLOW_KEYS: Final[dict[str, _Parser]] = {"user": _user, "tap": _names, "netns": _names, "lease": _on_off}
"""The keys of `--allow`."""
