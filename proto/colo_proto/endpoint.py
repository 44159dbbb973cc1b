"""Endpoints: what a port of a filter is connected to (`docs/design.md`, "Ports and endpoints").

==========================================  ====================================================
endpoint                                    means
==========================================  ====================================================
`tap://NAME`                                a tap from `netdev` (`?netdev=PATH` of its Unix socket)
`ipc://PATH` `tcp://HOST:PORT`              a ZeroMQ link
`inproc://NAME`                             a ZeroMQ link inside one process (for tests)
`chardev+unix://PATH`                       the byte stream of a QEMU chardev on a Unix socket
`chardev+tcp://HOST:PORT`                   the same over TCP
`pcap://FILE`                               frames of a capture, for offline runs
==========================================  ====================================================

Options follow a `?` and are joined by `&`: `server=on` (bind or listen; the default is to connect), `split=on`
(this output distributes its frames over workers, by flow), `vnet_hdr=on` (chardev: framing as with
`vnet_hdr_support`), `vnet_hdr_len=10` (chardev: length of the header that is written), `netdev=PATH` (tap),
`reliable=on` (ZeroMQ: the link numbers frames, replays them after a reconnect and reports gaps), `lease=on` (tap: it is
written to only while the COLO frame of this host permits it, so that only one host writes to the client LAN).
"""

from dataclasses import dataclass, fields
from typing import Final

from colo_proto.errors import ConfigError

ZMQ_SCHEMES: Final = frozenset({"ipc", "tcp", "inproc"})
CHARDEV_SCHEMES: Final = frozenset({"chardev+unix", "chardev+tcp"})
SCHEMES: Final = ZMQ_SCHEMES | CHARDEV_SCHEMES | {"tap", "pcap"}
UNIX_PATH_MAX: Final = 107
"""Longest path of a Unix socket in bytes (unix(7): 108 with the closing zero byte)."""

_OPTIONS: Final = {
    "server": ZMQ_SCHEMES | CHARDEV_SCHEMES,
    "split": ZMQ_SCHEMES,
    "reliable": ZMQ_SCHEMES,
    "vnet_hdr": CHARDEV_SCHEMES,
    "vnet_hdr_len": CHARDEV_SCHEMES,
    "netdev": frozenset({"tap"}),
    "lease": frozenset({"tap"}),
}
SWITCH: Final = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
"""The words for an option that is on or off."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed endpoint; `address` is the text between `://` and `?`."""

    scheme: str
    address: str
    server: bool = False
    split: bool = False
    reliable: bool = False
    vnet_hdr: bool = False
    lease: bool = False
    vnet_hdr_len: int = 10
    netdev: str = ""

    @property
    def is_zmq(self) -> bool:
        """True for a ZeroMQ link."""
        return self.scheme in ZMQ_SCHEMES

    @property
    def is_chardev(self) -> bool:
        """True for the byte stream of a QEMU chardev."""
        return self.scheme in CHARDEV_SCHEMES

    @property
    def exposed(self) -> bool:
        """True for a ZeroMQ link that other machines can reach: TCP, and not on a loopback address."""
        if self.scheme != "tcp":
            return False
        host, _ = self.host_port()
        return not (host in ("localhost", "::1") or host.startswith("127."))

    @property
    def url(self) -> str:
        """`scheme://address`, the form that ZeroMQ takes."""
        return f"{self.scheme}://{self.address}"

    def host_port(self) -> tuple[str, int]:
        """Host and port of a TCP endpoint; for `[::1]:80` the host is `::1`."""
        found = split_host_port(self.address)
        assert found is not None, "parse_endpoint has checked the address"
        return found

    def __str__(self) -> str:
        given = (
            (one.name, getattr(self, one.name)) for one in fields(self)[2:] if getattr(self, one.name) != one.default
        )
        options = "&".join(f"{name}={'on' if value is True else value}" for name, value in given)
        return f"{self.url}?{options}" if options else self.url


def split_host_port(text: str) -> tuple[str, int] | None:
    """Host and port of `HOST:PORT`, the host without the brackets of IPv6; None when the text has another form."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        return None
    return host.strip("[]"), int(port)


def parse_endpoint(text: str) -> Endpoint:
    """Parse an endpoint. `ConfigError` quotes the endpoint and says what is wrong with it."""
    head, _, query = text.partition("?")
    scheme, sep, address = head.partition("://")
    if not sep or scheme not in SCHEMES:
        raise ConfigError(f"endpoint {text!r}: the scheme must be one of {', '.join(sorted(SCHEMES))}")
    if not address:
        raise ConfigError(f"endpoint {text!r}: there is no address after {scheme}://")
    if scheme in ("tcp", "chardev+tcp"):
        found = split_host_port(address)
        if found is None or not address.rpartition(":")[0] or not found[1]:
            raise ConfigError(f"endpoint {text!r}: HOST:PORT expected, with a port from 1 to 65535")
    if scheme in ("ipc", "chardev+unix") and len(address.encode()) > UNIX_PATH_MAX:
        raise ConfigError(f"endpoint {text!r}: the path of a Unix socket has at most {UNIX_PATH_MAX} bytes")
    if scheme == "tap" and len(address.encode()) > 15:
        raise ConfigError(f"endpoint {text!r}: an interface name has at most 15 bytes")
    given: dict[str, bool | int | str] = {}
    for pair in filter(None, query.split("&")):
        name, _, value = pair.partition("=")
        name = name.replace("-", "_")
        if name not in _OPTIONS:
            raise ConfigError(f"endpoint {text!r}: unknown option {name!r}")
        if scheme not in _OPTIONS[name]:
            raise ConfigError(f"endpoint {text!r}: option {name!r} does not go with {scheme}://")
        given[name] = _value(text, name, value)
    return Endpoint(scheme, address, **given)  # type: ignore[arg-type]


def _value(text: str, name: str, value: str) -> bool | int | str:
    if name == "netdev":
        return value
    if name == "vnet_hdr_len":
        if value not in ("0", "10", "12", "20"):
            raise ConfigError(f"endpoint {text!r}: vnet_hdr_len is 0, 10, 12 or 20, not {value!r}")
        return int(value)
    if value not in SWITCH:
        raise ConfigError(f"endpoint {text!r}: {name} is on or off, not {value!r}")
    return SWITCH[value]
