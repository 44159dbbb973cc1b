"""Flow keys: their reverse, text for people, and the hash that shares flows out."""

from hashlib import blake2b
from ipaddress import ip_address
from typing import Final

from colo_proto.net import packet as p

_NAMES: Final = {
    p.PROTO_TCP: "tcp", p.PROTO_UDP: "udp", p.PROTO_ICMP: "icmp", p.PROTO_ICMPV6: "icmpv6",
    p.PROTO_SCTP: "sctp", p.PROTO_IGMP: "igmp", p.PROTO_DCCP: "dccp", p.PROTO_UDPLITE: "udplite",
}  # fmt: skip

SLOTS: Final = 1024
"""Slots that flows hash into; the worker table maps slots to workers (`docs/design.md`, "Sharing out to workers")."""


def _width(key: bytes) -> int:
    return 4 if len(key) < 37 else 16


def reverse(key: bytes) -> bytes:
    """The key of the opposite direction of the same flow."""
    w = _width(key)
    src, dst, ports, tags = key[1 : 1 + w], key[1 + w : 1 + 2 * w], key[1 + 2 * w : 5 + 2 * w], key[5 + 2 * w :]
    return b"%c%b%b%b%b%b" % (key[0], dst, src, ports[2:], ports[:2], tags)


def error_key(key: bytes, quoted: bytes) -> bytes:
    """The key of the flow of an ICMP error: the `key` of the error itself, followed by the reverse of the `quoted` one.

    Both have the same family and tags, so such a key can be recognised by its length.
    """
    return key + reverse(quoted)


def about(key: bytes) -> bytes:
    """The key of the flow that an ICMP error is about, in the direction of the error's sender; else an empty one."""
    size = len(key)
    return key[size // 2 :] if 17 < size < 37 or size > 41 else b""


def parts(key: bytes) -> tuple[int, bytes, bytes, int, int, tuple[int, ...]]:
    """The parts of a key: protocol, source, destination, both ports, VLAN identifiers. Of an ICMP error, its own."""
    w = _width(key)
    key = key.removesuffix(about(key))
    ports, tags = key[1 + 2 * w : 5 + 2 * w], key[5 + 2 * w :]
    vlans = tuple(int.from_bytes(tags[at : at + 2], "big") for at in range(0, len(tags), 2))
    source, target = key[1 : 1 + w], key[1 + w : 1 + 2 * w]
    return key[0], source, target, int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big"), vlans


def tags_of(key: bytes) -> bytes:
    """The VLAN identifiers of a key, 2 bytes each (not for the key of an ICMP error)."""
    return key[5 + 2 * _width(key) :]


def describe(key: bytes) -> str:
    """`tcp 10.0.0.2:80 > 10.0.0.9:5000`, with `vlan N` in front of tagged flows, `about …` behind an ICMP error."""
    inner = about(key)
    if inner:
        return f"{describe(key.removesuffix(inner))} about {describe(inner)}"
    proto, source, target, sport, dport, tags = parts(key)
    src, dst = ip_address(source), ip_address(target)
    vlan = "".join(f"vlan {tag} " for tag in tags)
    name = _NAMES.get(proto, f"proto-{proto}")
    if proto not in p.WITH_PORTS:
        return f"{vlan}{name} {src} > {dst}"
    if src.version == 6:
        return f"{vlan}{name} [{src}]:{sport} > [{dst}]:{dport}"
    return f"{vlan}{name} {src}:{sport} > {dst}:{dport}"


def slot(key: bytes, seed: bytes = b"") -> int:
    """Slot of a flow, 0 to 1023: keyed 64-bit BLAKE2b of the smaller key of both directions, so that they agree."""
    digest = blake2b(min(key, reverse(key)), digest_size=8, key=seed).digest()
    return int.from_bytes(digest, "big") % SLOTS
