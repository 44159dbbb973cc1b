"""Endpoints: what a filter's port is connected to (`docs/design.md`, "Ports and endpoints").

==========================================  ====================================================
endpoint                                    means
==========================================  ====================================================
`tap://NAME`                                a tap from `netdev` (`?netdev=PATH` of its Unix socket)
`ipc://PATH` `tcp://HOST:PORT`              a ZeroMQ link
`inproc://NAME`                             a ZeroMQ link inside one process (tests)
`chardev+unix://PATH`                       a QEMU chardev byte stream on a Unix socket
`chardev+tcp://HOST:PORT`                   … on TCP
`pcap://FILE`                               frames of a capture, for offline runs
==========================================  ====================================================

Options follow a `?` and are joined by `&`: `server=on` (bind or listen; default connect), `split=on`
(this output is shared out to workers by flow), `vnet_hdr=on` (chardev: `vnet_hdr_support` framing),
`vnet_hdr_len=10` (chardev: header length written), `netdev=PATH` (tap), `reliable=on` (ZeroMQ: the
link numbers frames, replays after a reconnect and reports gaps), `lease=on` (tap: written to only while
the COLO frame of this host permits it, so that there is one writer to the client LAN).
"""

from dataclasses import dataclass
from typing import Final

from colo_proto.errors import ConfigError

ZMQ_SCHEMES: Final = frozenset({"ipc", "tcp", "inproc"})
CHARDEV_SCHEMES: Final = frozenset({"chardev+unix", "chardev+tcp"})
SCHEMES: Final = ZMQ_SCHEMES | CHARDEV_SCHEMES | {"tap", "pcap"}

_OPTIONS: Final = {
    "server": ZMQ_SCHEMES | CHARDEV_SCHEMES,
    "split": ZMQ_SCHEMES,
    "reliable": ZMQ_SCHEMES,
    "vnet_hdr": CHARDEV_SCHEMES,
    "vnet_hdr_len": CHARDEV_SCHEMES,
    "netdev": frozenset({"tap"}),
    "lease": frozenset({"tap"}),
}
_ON = {"on": True, "off": False, "yes": True, "no": False, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A parsed endpoint; `address` is what stands between `://` and `?`."""

    scheme: str
    address: str
    server: bool = False
    split: bool = False
    reliable: bool = False
    vnet_hdr: bool = False
    vnet_hdr_len: int = 10
    netdev: str = ""
    lease: bool = False

    @property
    def is_zmq(self) -> bool:
        """True for a ZeroMQ link."""
        return self.scheme in ZMQ_SCHEMES

    @property
    def is_chardev(self) -> bool:
        """True for QEMU's byte stream."""
        return self.scheme in CHARDEV_SCHEMES

    @property
    def exposed(self) -> bool:
        """True for a ZeroMQ link that others than this machine can reach: TCP, and not to a loopback address."""
        if self.scheme != "tcp":
            return False
        host, _ = self.host_port()
        return not (host in ("localhost", "::1") or host.startswith("127."))

    @property
    def url(self) -> str:
        """`scheme://address`, the form ZeroMQ takes."""
        return f"{self.scheme}://{self.address}"

    def host_port(self) -> tuple[str, int]:
        """Host and port of a TCP endpoint; `[::1]:80` gives `::1`."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)

    def __str__(self) -> str:
        options = [name for name in ("server", "split", "reliable", "vnet_hdr", "lease") if getattr(self, name)]
        text = [f"{name}=on" for name in options]
        if self.vnet_hdr_len != 10:
            text.append(f"vnet_hdr_len={self.vnet_hdr_len}")
        if self.netdev:
            text.append(f"netdev={self.netdev}")
        return self.url + ("?" + "&".join(text) if text else "")


def parse_endpoint(text: str) -> Endpoint:
    """Parse an endpoint; `ConfigError` names the endpoint and what is wrong with it."""
    head, _, query = text.partition("?")
    scheme, sep, address = head.partition("://")
    if not sep or scheme not in SCHEMES:
        raise ConfigError(f"endpoint {text!r}: the scheme must be one of {', '.join(sorted(SCHEMES))}")
    if not address:
        raise ConfigError(f"endpoint {text!r}: nothing stands after {scheme}://")
    if scheme in ("tcp", "chardev+tcp"):
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise ConfigError(f"endpoint {text!r}: HOST:PORT expected, with a port from 1 to 65535")
    if scheme in ("ipc", "chardev+unix") and len(address.encode()) > 107:
        raise ConfigError(f"endpoint {text!r}: a Unix socket's path has at most 107 bytes")
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
    if value not in _ON:
        raise ConfigError(f"endpoint {text!r}: {name} is on or off, not {value!r}")
    return _ON[value]
