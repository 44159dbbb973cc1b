"""Dissection: finds the offsets of a frame's layers.

::

    0         10        24 (+4 per tag)     l4                payload          end        len(frame)
    | vnet    | Ethernet | IPv4 / IPv6 (+ext) | TCP/UDP/ICMP… | bytes …        | padding…  |

`end` comes from the length in the IP header, never from that of the frame, so Ethernet padding is not taken for payload
(QEMU's compare counts it, and then releases that many bytes of data uncompared).
"""

from enum import IntEnum
from struct import Struct
from typing import Final

from colo_proto.checksum import internet_checksum
from colo_proto.frame import ETH, Buffer

ETH_IPV4: Final = 0x0800
ETH_ARP: Final = 0x0806
ETH_RARP: Final = 0x8035
ETH_IPV6: Final = 0x86DD
ETH_8021Q: Final = 0x8100
ETH_8021AD: Final = 0x88A8

PROTO_HOPOPTS: Final = 0
PROTO_ICMP: Final = 1
PROTO_IGMP: Final = 2
PROTO_TCP: Final = 6
PROTO_UDP: Final = 17
PROTO_ROUTING: Final = 43
PROTO_FRAGMENT: Final = 44
PROTO_ICMPV6: Final = 58
PROTO_DSTOPTS: Final = 60
PROTO_DCCP: Final = 33
PROTO_SCTP: Final = 132
PROTO_UDPLITE: Final = 136
PROTO_MOBILITY: Final = 135

WITH_PORTS: Final = frozenset({PROTO_TCP, PROTO_UDP, PROTO_DCCP, PROTO_SCTP, PROTO_UDPLITE})
_EXTENSION: Final = frozenset({PROTO_HOPOPTS, PROTO_ROUTING, PROTO_DSTOPTS, PROTO_MOBILITY})

_ERRORS: Final = frozenset({3, 4, 5, 11, 12})
"""ICMP types that quote a packet: unreachable, source quench, redirect, time exceeded, parameter problem."""

GLANCE: Final = ETH + 18 + 40 + 4
"""Bytes of a frame that `glance` looks at, at most."""
_LEAST: Final = ETH + 18 + 20

MAX_TAGS: Final = 2
MAX_EXTENSIONS: Final = 8
"""IPv6 extension headers that are followed. A packet with more is taken for malformed."""

_V4: Final = Struct("!BBHHHBBH4s4s")
_V6: Final = Struct("!IHBB16s16s")
_U16: Final = Struct("!H")
_FRAG6: Final = Struct("!BBHI")


class Kind(IntEnum):
    """What a frame turned out to be."""

    OTHER = 0
    """Not IP: ARP, LLDP, unknown EtherType."""
    IP = 1
    """IPv4 or IPv6, whole; `l4` and `end` are valid."""
    FRAGMENT = 2
    """One IP fragment; `frag_offset`, `more` and `ident` are valid, ports only if the offset is 0."""
    MALFORMED = 3
    """Too short for what it claims to be, or inconsistent."""


class Packet:
    """Offsets and addresses of one frame. `key` is the flow in this packet's own direction."""

    __slots__ = (
        "dst", "end", "ethertype", "frag_offset", "frame", "ident", "key", "kind", "l3", "l4", "more",
        "proto", "src", "tags", "version", "why",
    )  # fmt: skip

    def __init__(self, frame: Buffer) -> None:
        self.frame = frame
        self.kind = Kind.OTHER
        self.why = ""
        self.ethertype = 0
        self.tags = b""
        self.l3 = 0
        self.version = 0
        self.src = b""
        self.dst = b""
        self.proto = 0
        self.l4 = 0
        self.end = 0
        self.frag_offset = 0
        self.more = False
        self.ident = 0
        self.key = b""

    def payload(self) -> bytes:
        """Bytes from the L4 header to the end of the IP packet."""
        return bytes(self.frame[self.l4 : self.end])


def flow_key(proto: int, src: bytes, dst: bytes, ports: bytes, tags: bytes) -> bytes:
    """The key of a flow in one direction: `proto | src | dst | ports(4) | tags`.

    The addresses' length tells the family, and tags add 2 bytes each, so no two flows share a key.
    """
    return b"%c%b%b%b%b" % (proto, src, dst, ports, tags)


def glance(frame: bytes, size: int) -> tuple[int, int, int, bytes]:
    """Where TCP or UDP is in a frame of the commonest shapes: protocol, offset, end of the packet, addresses and ports.

    These shapes are IPv4 without options that is no fragment, and IPv6 without extension headers, with at most one
    802.1Q tag. For them this is much cheaper than `dissect`, and protocol and the last value together are the same key;
    the ports in it mean something for TCP and UDP alone. For other shapes the offset is 0, and the protocol is known of
    IPv4 alone; else it is -1.

    `frame` may be cut short behind its first `GLANCE` bytes; `size` is how long it is.
    """
    if size < _LEAST:
        return -1, 0, 0, b""
    at, tag = ETH + 12, b""
    if frame[at] == 0x81 and not frame[at + 1]:
        tag = bytes((frame[at + 2] & 0x0F, frame[at + 3]))
        at += 4
    first = frame[at + 2]
    if frame[at] == 0x08 and not frame[at + 1]:
        l4, end = at + 22, at + 2 + (frame[at + 4] << 8 | frame[at + 5])
        if first == 0x45 and not frame[at + 8] & 0x3F and not frame[at + 9] and l4 + 4 <= end <= size:
            return frame[at + 11], l4, end, frame[at + 14 : at + 26] + tag if tag else frame[at + 14 : at + 26]
        return frame[at + 11], 0, 0, b""
    if frame[at] == 0x86 and frame[at + 1] == 0xDD and first >> 4 == 6 and size >= at + 46:
        proto, l4, end = frame[at + 8], at + 42, at + 42 + (frame[at + 6] << 8 | frame[at + 7])
        if proto in (PROTO_TCP, PROTO_UDP) and l4 + 4 <= end <= size:
            return proto, l4, end, frame[at + 10 : at + 46] + tag if tag else frame[at + 10 : at + 46]
    return -1, 0, 0, b""


def dissect(frame: Buffer) -> Packet:
    """Find the layers of `frame` (with its virtio_net_hdr). Never raises."""
    packet = Packet(frame)
    size = len(frame)
    if size < ETH + 14:
        return _malformed(packet, "runt")
    at = ETH + 12
    ethertype = (frame[at] << 8) | frame[at + 1]
    at += 2
    while ethertype in (ETH_8021Q, ETH_8021AD):
        if len(packet.tags) == 2 * MAX_TAGS:
            packet.ethertype = ethertype
            packet.l3 = at
            return packet
        if size < at + 4:
            return _malformed(packet, "tag_truncated")
        # The VLAN identifier names the flow; priority and drop bits do not.
        packet.tags += bytes((frame[at] & 0x0F, frame[at + 1]))
        ethertype = (frame[at + 2] << 8) | frame[at + 3]
        at += 4
    packet.ethertype = ethertype
    packet.l3 = at
    if ethertype == ETH_IPV4:
        return _ipv4(packet, frame, at, size)
    if ethertype == ETH_IPV6:
        return _ipv6(packet, frame, at, size)
    return packet


def dissect_quoted(frame: Buffer, at: int, end: int, ethertype: int, tags: bytes) -> Packet:
    """The IP packet that an ICMP error quotes at `at`. It is usually cut short, so it is read only up to `end`.

    `key` is set when addresses and ports are there; `l4` and `end` say where the quoted L4 header is.
    """
    packet = Packet(frame)
    packet.ethertype, packet.l3, packet.tags = ethertype, at, tags
    if ethertype == ETH_IPV4 and at + 20 <= end and frame[at] >> 4 == 4 and frame[at] & 15 >= 5:
        packet.version = 4
        packet.src, packet.dst = bytes(frame[at + 12 : at + 16]), bytes(frame[at + 16 : at + 20])
        packet.proto = frame[at + 9]
        packet.l4 = at + (frame[at] & 15) * 4
        if frame[at + 7] or frame[at + 6] & 0x1F:
            # A later fragment: payload stands where the ports would be.
            return _malformed(packet, "quote_fragment")
    elif ethertype == ETH_IPV6 and at + 40 <= end and frame[at] >> 4 == 6:
        packet.version = 6
        packet.src, packet.dst = bytes(frame[at + 8 : at + 24]), bytes(frame[at + 24 : at + 40])
        packet.proto = frame[at + 6]
        packet.l4 = at + 40
    else:
        return _malformed(packet, "quote_truncated")
    packet.end = end
    ports = bytes(frame[packet.l4 : packet.l4 + 4]) if packet.proto in WITH_PORTS else b"\0\0\0\0"
    if packet.l4 + len(ports) > end or len(ports) < 4:
        return _malformed(packet, "quote_truncated")
    packet.key = flow_key(packet.proto, packet.src, packet.dst, ports, packet.tags)
    packet.kind = Kind.IP
    return packet


def is_error(frame: Buffer, l4: int, end: int, proto: int) -> bool:
    """Is this an ICMP error? RFC 792 lists them, RFC 4443 §2.1 gives ICMPv6's the types below 128."""
    if proto == PROTO_ICMP:
        return l4 < end and frame[l4] in _ERRORS
    return proto == PROTO_ICMPV6 and l4 < end and frame[l4] < 128


def error_quote(frame: Buffer, l4: int, end: int, proto: int, tags: bytes) -> Packet | None:
    """The packet that the ICMP error at `l4` quotes (RFC 792, RFC 4443 §3); None if it is no error, or too short."""
    if l4 + 8 >= end:
        return None
    if proto == PROTO_ICMP and frame[l4] in _ERRORS:
        ethertype = ETH_IPV4
    elif proto == PROTO_ICMPV6 and 0 < frame[l4] < 5:
        ethertype = ETH_IPV6
    else:
        return None
    quoted = dissect_quoted(frame, l4 + 8, end, ethertype, tags)
    return quoted if quoted.key else None


def network_at(frame: Buffer) -> int:
    """Offset of the IP header of a frame that is known to hold an IP packet."""
    l3 = ETH + 14
    while (frame[l3 - 2] << 8 | frame[l3 - 1]) in (ETH_8021Q, ETH_8021AD):
        l3 += 4
    return l3


def set_length(buf: bytearray, l3: int, l4: int, end: int) -> None:
    """The IP packet at `l3` of `buf` ends at `end` now: set its length, and of IPv4 the header checksum as well."""
    if buf[l3] >> 4 == 4:
        _U16.pack_into(buf, l3 + 2, end - l3)
        _U16.pack_into(buf, l3 + 10, 0)
        _U16.pack_into(buf, l3 + 10, internet_checksum(buf[l3:l4]))
    else:
        _U16.pack_into(buf, l3 + 4, end - l3 - 40)


def _malformed(packet: Packet, why: str) -> Packet:
    packet.kind = Kind.MALFORMED
    packet.why = why
    return packet


def _ipv4(packet: Packet, frame: Buffer, at: int, size: int) -> Packet:
    if size < at + 20:
        return _malformed(packet, "ipv4_truncated")
    ver_ihl, _, total, ident, frag, _, proto, _, src, dst = _V4.unpack_from(frame, at)
    header = (ver_ihl & 15) * 4
    if ver_ihl >> 4 != 4 or header < 20 or total < header or at + total > size:
        return _malformed(packet, "ipv4_header")
    packet.version = 4
    packet.src, packet.dst, packet.proto = src, dst, proto
    packet.l4 = at + header
    packet.end = at + total
    packet.ident = ident
    packet.more = bool(frag & 0x2000)
    packet.frag_offset = (frag & 0x1FFF) * 8
    return _transport(packet, frame)


def _ipv6(packet: Packet, frame: Buffer, at: int, size: int) -> Packet:
    if size < at + 40:
        return _malformed(packet, "ipv6_truncated")
    first, length, proto, _, src, dst = _V6.unpack_from(frame, at)
    if first >> 28 != 6 or at + 40 + length > size:
        return _malformed(packet, "ipv6_header")
    packet.version = 6
    packet.src, packet.dst = src, dst
    packet.end = end = at + 40 + length
    l4 = at + 40
    fragment = False
    for _ in range(MAX_EXTENSIONS):
        if proto in _EXTENSION:
            if l4 + 8 > end:
                return _malformed(packet, "ipv6_extension")
            proto, l4 = frame[l4], l4 + 8 + frame[l4 + 1] * 8
        elif proto == PROTO_FRAGMENT and not fragment:
            if l4 + 8 > end:
                return _malformed(packet, "ipv6_extension")
            proto, _, offset, packet.ident = _FRAG6.unpack_from(frame, l4)
            packet.frag_offset = offset & 0xFFF8
            packet.more = bool(offset & 1)
            l4 += 8
            # An atomic fragment (RFC 6946) is a whole datagram.
            fragment = packet.more or packet.frag_offset > 0
            if packet.frag_offset:
                break
        else:
            break
    else:
        return _malformed(packet, "ipv6_extension")
    if l4 > end:
        return _malformed(packet, "ipv6_extension")
    packet.proto = proto
    packet.l4 = l4
    return _transport(packet, frame)


def _transport(packet: Packet, frame: Buffer) -> Packet:
    l4, end = packet.l4, packet.end
    fragment = packet.more or packet.frag_offset > 0
    ports = b"\0\0\0\0"
    if not packet.frag_offset and packet.proto in WITH_PORTS:
        if l4 + 4 <= end:
            ports = bytes(frame[l4 : l4 + 4])
        elif not fragment:
            return _malformed(packet, "ports_truncated")
    packet.key = flow_key(packet.proto, packet.src, packet.dst, ports, packet.tags)
    packet.kind = Kind.FRAGMENT if fragment else Kind.IP
    return packet
