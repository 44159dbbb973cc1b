"""What filters and netdev say to each other on netdev's socket (Unix, SOCK_SEQPACKET), as bytes and values.

One packet each way, a msgpack map::

    {"v": 1, "get": NAME, "id": WHO}             reply + descriptor by SCM_RIGHTS; "lease": true promises to keep one
    {"v": 1, "return": NAME, "id": WHO} + fd     reply
    {"v": 1, "netns": NAME, "id": WHO} + fds     {"ok": true}; two datagram sockets, IPv4 and IPv6, made in a namespace
    {"ok": true, "tap": NAME, "vnet_hdr": bool, "mac": "..", "mtu": 1500}
    {"ok": false, "error": "…", "retry": bool}   `retry`: the same request may succeed a moment later

A client keeps the connection open. When it ends (EOF), netdev is gone: the client then connects again and sends
`return` with its descriptor, so that a restarted netdev gets its taps back. `colo_runtime.descriptors` receives the
descriptors.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

import msgpack

from colo_proto.errors import WireError

VERSION: Final = 1
VERBS: Final = ("get", "return", "netns")


@dataclass(frozen=True, slots=True)
class Request:
    """A decoded request."""

    verb: str
    """`get`, `return` or `netns`."""
    tap: str
    """Name of the tap, or of the namespace."""
    id: str = ""
    lease: bool = False
    """The tap will be written to only while the COLO frame permits it."""


@dataclass(frozen=True, slots=True)
class TapInfo:
    """What a filter learns about the tap it was given."""

    tap: str
    vnet_hdr: bool
    mac: str
    mtu: int


class RefusedError(Exception):
    """netdev has refused a request. `retry`: the same request may succeed a moment later."""

    def __init__(self, error: str, *, retry: bool = False) -> None:
        super().__init__(error)
        self.retry = retry


def encode_request(request: Request) -> bytes:
    """The packet of a request."""
    body: dict[str, Any] = {"v": VERSION, request.verb: request.tap, "id": request.id}
    if request.lease:
        body["lease"] = True
    return bytes(msgpack.packb(body))


def decode_request(data: bytes) -> Request:
    """The request in a packet; `WireError` when it is none."""
    body = _map(data)
    if type(body.get("v")) is not int or body["v"] != VERSION:
        raise WireError("version", f"{str(body.get('v'))[:20]!r}, this side speaks {VERSION}")
    who = body.get("id", "")
    if type(who) is not str or len(who) > 64:
        raise WireError("malformed", "id")
    lease = body.get("lease", False)
    if type(lease) is not bool:
        raise WireError("malformed", "lease")
    verbs = [verb for verb in VERBS if verb in body]
    if len(verbs) != 1 or type(body[verbs[0]]) is not str:
        raise WireError("malformed", f"exactly one of {', '.join(VERBS)} expected")
    return Request(verbs[0], body[verbs[0]], who, lease)


def encode_reply(info: TapInfo) -> bytes:
    """The packet that goes with a descriptor."""
    return bytes(msgpack.packb({"ok": True, **asdict(info)}))


def encode_ok() -> bytes:
    """The packet that accepts an offer."""
    return bytes(msgpack.packb({"ok": True}))


def encode_error(error: str, *, retry: bool = False) -> bytes:
    """The packet that refuses a request."""
    return bytes(msgpack.packb({"ok": False, "error": error, "retry": retry}))


def decode_reply(data: bytes) -> TapInfo:
    """What netdev answers to `get` and `return`; `RefusedError` when it refuses, `WireError` when it is not netdev."""
    body = decode_ok(data)
    tap, vnet_hdr, mac, mtu = (body.get(key) for key in ("tap", "vnet_hdr", "mac", "mtu"))
    if type(tap) is not str or type(vnet_hdr) is not bool or type(mac) is not str or type(mtu) is not int:
        raise WireError("malformed", "not a reply of netdev")
    return TapInfo(tap, vnet_hdr, mac, mtu)


def decode_ok(data: bytes) -> dict[str, Any]:
    """The map in an answer that accepts; `RefusedError` when netdev refuses, `WireError` when it is not netdev."""
    body = _map(data)
    if body.get("ok") is False:
        raise RefusedError(str(body.get("error", "refused")), retry=body.get("retry") is True)
    if body.get("ok") is not True:
        raise WireError("malformed", "not a reply of netdev")
    return body


def _map(data: bytes) -> dict[str, Any]:
    try:
        body = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise WireError("undecodable", str(error)[:120]) from None
    if type(body) is not dict:
        raise WireError("malformed", "not a map")
    return body
