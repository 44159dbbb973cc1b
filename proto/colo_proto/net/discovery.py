"""What a station says about its own addresses in ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861)."""

from typing import Final, NamedTuple

from colo_proto.net.craft import ARP_IPV4, ARP_REQUEST
from colo_proto.net.packet import ETH_ARP, PROTO_ICMPV6, Kind, Packet

ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT, SOLICITATION, ADVERTISEMENT = range(133, 137)
_SOURCE_LINK, _TARGET_LINK = 1, 2
_LEAST_SIZE: Final = {ROUTER_SOLICITATION: 8, ROUTER_ADVERTISEMENT: 16, SOLICITATION: 24, ADVERTISEMENT: 24}
"""Bytes of each message in front of its options."""


class Introduction(NamedTuple):
    """An address that the sender of a packet says is its own."""

    address: bytes
    mac: bytes
    """The link-layer address that goes with it; empty when the packet names none."""
    router: bool | None
    """Does it say that it is a router? None when it says nothing about that."""


def is_arp(packet: Packet) -> bool:
    """Is it an ARP packet for IPv4 over Ethernet?"""
    frame, at = packet.frame, packet.l3
    return packet.ethertype == ETH_ARP and len(frame) >= at + 28 and frame[at : at + 6] == ARP_IPV4


def is_discovery(packet: Packet) -> bool:
    """Is it a well-formed neighbour discovery message: never forwarded (hop limit 255), code 0?"""
    if packet.kind != Kind.IP or packet.version != 6 or packet.proto != PROTO_ICMPV6:
        return False
    frame, l4 = packet.frame, packet.l4
    size = packet.end - l4
    if size < 8 or frame[packet.l3 + 7] != 255 or frame[l4 + 1] != 0:
        return False
    return size >= _LEAST_SIZE.get(frame[l4], 1 << 16)


def is_request(packet: Packet) -> bool:
    """Does a station that has an address ask for a neighbour? No, if it asks whether an address is free."""
    frame = packet.frame
    if is_arp(packet):
        return frame[packet.l3 + 7] == ARP_REQUEST and any(frame[packet.l3 + 14 : packet.l3 + 18])
    return is_discovery(packet) and frame[packet.l4] == SOLICITATION and any(packet.src)


def introduction(packet: Packet) -> Introduction | None:
    """What the sender of `packet` says about itself, or None.

    A probe whether an address is free (RFC 5227, RFC 4862) introduces nobody: its sender has no address yet.
    """
    frame, l4 = packet.frame, packet.l4
    if is_arp(packet):
        at = packet.l3
        address = bytes(frame[at + 14 : at + 18])
        return Introduction(address, bytes(frame[at + 8 : at + 14]), None) if any(address) else None
    if not is_discovery(packet) or not any(packet.src):
        return None
    kind = frame[l4]
    option = _TARGET_LINK if kind == ADVERTISEMENT else _SOURCE_LINK
    mac = _link_address(packet, option, _LEAST_SIZE[kind])
    if kind == ADVERTISEMENT:
        return Introduction(bytes(frame[l4 + 8 : l4 + 24]), mac, bool(frame[l4 + 4] & 0x80))
    router = None if kind == SOLICITATION else kind == ROUTER_ADVERTISEMENT
    return Introduction(packet.src, mac, router)


def _link_address(packet: Packet, wanted: int, start: int) -> bytes:
    """The link-layer address option of kind `wanted` behind the first `start` bytes of the message, or empty."""
    frame, at = packet.frame, packet.l4 + start
    while at + 8 <= packet.end:
        kind, length = frame[at], frame[at + 1] * 8
        if length == 0:
            break
        if kind == wanted and length == 8:
            return bytes(frame[at + 2 : at + 8])
        at += length
    return b""
