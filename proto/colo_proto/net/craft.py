"""The few frames that the proxy itself sends: announcements, neighbour answers, resets, ICMP errors.

Every builder returns a frame (`colo_proto.frame`) without offloads and with correct checksums. Addresses are packed
(4 bytes for IPv4, 16 for IPv6; 6 for Ethernet), and their length decides the family.
"""

from struct import Struct
from typing import Final, NamedTuple

from colo_proto.checksum import internet_checksum, pseudo_sum
from colo_proto.frame import NO_OFFLOAD
from colo_proto.net import packet as p

BROADCAST: Final = b"\xff" * 6
ARP_IPV4: Final = b"\x00\x01\x08\x00\x06\x04"
"""How an ARP packet (RFC 826) for IPv4 over Ethernet begins."""
ARP_REQUEST, ARP_REPLY, RARP_REQUEST = 1, 2, 3
NA_ROUTER, NA_SOLICITED, NA_OVERRIDE = 0x80, 0x40, 0x20
"""Flags of a neighbour advertisement (RFC 4861 §4.4)."""

_U16: Final = Struct("!H")
_IPV4: Final = Struct("!BxHHHBBH4s4s")
_IPV6: Final = Struct("!IHBB16s16s")
_TCP: Final = Struct("!4sIIBBHHH")
_DONT_FRAGMENT: Final = 0x4000
_QUOTED: Final = {4: 548, 16: 1232}
"""Bytes that an ICMP error quotes at most, by the address length: the error fits 576 (RFC 1812) and 1,280 bytes."""


class Ethernet(NamedTuple):
    """The Ethernet header of a frame to build, but for the EtherType."""

    src: bytes
    dst: bytes
    tags: bytes = b""
    """VLAN tags as they stand in a frame, 4 bytes each (`vlan_tags`)."""

    def frame(self, ethertype: int, body: bytes) -> bytes:
        """A frame with this header around `body`."""
        return NO_OFFLOAD + self.dst + self.src + self.tags + _U16.pack(ethertype) + body


def vlan_tags(identifiers: bytes) -> bytes:
    """The tags of VLAN identifiers (2 bytes each, as in flow keys). Two are QinQ, the outer one first."""
    tags = b""
    for at in range(0, len(identifiers), 2):
        outer = not at and len(identifiers) > 2
        tags += _U16.pack(p.ETH_8021AD if outer else p.ETH_8021Q) + identifiers[at : at + 2]
    return tags


def ip(ethernet: Ethernet, src: bytes, dst: bytes, proto: int, body: bytes, ttl: int = 64) -> bytes:
    """An IPv4 or IPv6 packet around `body`."""
    if len(src) == 16:
        header = _IPV6.pack(6 << 28, len(body), proto, ttl, src, dst)
        return ethernet.frame(p.ETH_IPV6, header + body)
    fields = (0x45, 20 + len(body), 0, _DONT_FRAGMENT, ttl, proto)
    checksum = internet_checksum(_IPV4.pack(*fields, 0, src, dst))
    return ethernet.frame(p.ETH_IPV4, _IPV4.pack(*fields, checksum, src, dst) + body)


class Connection(NamedTuple):
    """Who sends a segment to whom: packed addresses, and both ports as the TCP header has them (4 bytes)."""

    ethernet: Ethernet
    src: bytes
    dst: bytes
    ports: bytes

    def tcp(self, seq: int, ack: int, flags: int, window: int = 0, options: bytes = b"") -> bytes:
        """A TCP segment without payload; the length of `options` is a multiple of 4."""
        header = _TCP.pack(self.ports, seq, ack, (5 + len(options) // 4) << 4, flags, window, 0, 0) + options
        checksum = internet_checksum(header, pseudo_sum(self.src, self.dst, p.PROTO_TCP, len(header)))
        header = header[:16] + _U16.pack(checksum) + header[18:]
        return ip(self.ethernet, self.src, self.dst, p.PROTO_TCP, header)


def icmp(ethernet: Ethernet, src: bytes, dst: bytes, kind: int, code: int, body: bytes, ttl: int = 64) -> bytes:
    """An ICMP or ICMPv6 message, by the addresses; `body` follows the checksum."""
    proto, start = p.PROTO_ICMP, 0
    if len(src) == 16:
        proto = p.PROTO_ICMPV6
        start = pseudo_sum(src, dst, proto, 4 + len(body))
    checksum = internet_checksum(bytes((kind, code, 0, 0)) + body, start)
    return ip(ethernet, src, dst, proto, bytes((kind, code)) + _U16.pack(checksum) + body, ttl)


def icmp_error(ethernet: Ethernet, src: bytes, dst: bytes, kind: int, code: int, about: bytes) -> bytes:
    """An ICMP error that quotes the frame `about`: a packet that was sent from `dst`."""
    packet = p.dissect(about)
    return icmp(ethernet, src, dst, kind, code, bytes(4) + about[packet.l3 : packet.end][: _QUOTED[len(src)]])


def arp(
    ethernet: Ethernet, operation: int, sender_mac: bytes, sender: bytes, target_mac: bytes, target: bytes
) -> bytes:
    """An ARP packet (RFC 826), or a RARP request (RFC 903)."""
    ethertype = p.ETH_RARP if operation == RARP_REQUEST else p.ETH_ARP
    body = ARP_IPV4 + _U16.pack(operation) + sender_mac + sender + target_mac + target
    return ethernet.frame(ethertype, body)


def neighbour_advertisement(ethernet: Ethernet, dst: bytes, target: bytes, mac: bytes, flags: int) -> bytes:
    """`target` is at `mac` (RFC 4861 §4.4), said by `target` itself."""
    body = bytes((flags, 0, 0, 0)) + target + b"\2\1" + mac
    return icmp(ethernet, target, dst, 136, 0, body, ttl=255)
