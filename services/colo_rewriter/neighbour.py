"""Answering the secondary guest's ARP and IPv6 neighbour requests.

What the secondary guest sends never reaches the LAN, so nobody would answer it. Where its neighbour
cache runs out while the primary's does not, it could no longer send, and the replicas would diverge.
So the rewriter learns who has which address from what the LAN says in the mirrored frames, and
answers the guest's requests for addresses that it knows.

Sources: RFC 826 (ARP), RFC 5227 (probes), RFC 4861 (neighbour discovery), RFC 4862 (duplicate address
detection). Probes that ask whether an address is free are never answered.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from colo_proto.checksum import internet_checksum, pseudo_sum
from colo_proto.frame import ETH, NO_OFFLOAD
from colo_proto.net.packet import ETH_ARP, PROTO_ICMPV6, Kind, Packet

MAX_NEIGHBOURS: Final = 4096
MAX_OWN: Final = 256
"""Bounds on learned addresses and on the guest's own; the least recently used makes room."""

_ARP_IPV4: Final = b"\x00\x01\x08\x00\x06\x04"
_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT, _SOLICITATION, _ADVERTISEMENT = range(133, 137)
_SOURCE_LINK, _TARGET_LINK = 1, 2
_LINK_LOCAL: Final = b"\xfe\x80"


class _Neighbour(NamedTuple):
    mac: bytes
    router: bool | None
    """IPv6: does it say it is a router? None when it has not said."""


class Neighbours:
    """Addresses on the LAN, per VLAN. `learn` and `answer` take frames that are not TCP."""

    def __init__(self, limit: int = MAX_NEIGHBOURS) -> None:
        self._limit = limit
        self._known: OrderedDict[bytes, _Neighbour] = OrderedDict()
        self._own: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, packet: Packet) -> None:
        """Take in what a mirrored frame of the LAN says about its sender."""
        frame = packet.frame
        if packet.ethertype == ETH_ARP:
            at = packet.l3
            if len(frame) >= at + 28 and frame[at : at + 6] == _ARP_IPV4:
                self._know(packet.tags, bytes(frame[at + 14 : at + 18]), bytes(frame[at + 8 : at + 14]), None)
        elif _is_discovery(packet):
            kind = frame[packet.l4]
            if kind == _ADVERTISEMENT:
                mac = _link_option(packet, _TARGET_LINK, 24)
                router = bool(frame[packet.l4 + 4] & 0x80)
                self._know(packet.tags, bytes(frame[packet.l4 + 8 : packet.l4 + 24]), mac, router)
            elif kind == _SOLICITATION:
                self._know(packet.tags, packet.src, _link_option(packet, _SOURCE_LINK, 24), None)
            elif kind == _ROUTER_ADVERTISEMENT:
                self._know(packet.tags, packet.src, _link_option(packet, _SOURCE_LINK, 16), True)
            else:
                self._know(packet.tags, packet.src, _link_option(packet, _SOURCE_LINK, 8), False)

    def _know(self, tags: bytes, address: bytes, mac: bytes, router: bool | None) -> None:
        key = tags + address
        if not any(address) or address[0] == 0xFF or not _is_station(mac) or key in self._own:
            return
        old = self._known.get(key)
        if router is None and old is not None and old.mac == mac:
            router = old.router
        self._known[key] = _Neighbour(mac, router)
        self._known.move_to_end(key)
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def answer(self, packet: Packet) -> bytes | None:
        """The reply to a request of the guest in `packet`, or None when there is nothing to say."""
        if packet.ethertype == ETH_ARP:
            return self._answer_arp(packet)
        if _is_discovery(packet) and packet.frame[packet.l4] == _SOLICITATION:
            return self._answer_solicitation(packet)
        return None

    def _answer_arp(self, packet: Packet) -> bytes | None:
        frame, at = packet.frame, packet.l3
        if len(frame) < at + 28 or frame[at : at + 8] != _ARP_IPV4 + b"\x00\x01":
            return None
        asker_mac, asker, target = (bytes(frame[at + a : at + b]) for a, b in ((8, 14), (14, 18), (24, 28)))
        if not any(asker) or not _is_station(asker_mac):
            return None  # RFC 5227: is the address free? Only its owner may answer.
        neighbour = self._look_up(packet.tags, asker, target, asker_mac)
        if neighbour is None:
            return None
        reply = _ARP_IPV4 + b"\x00\x02" + neighbour.mac + target + asker_mac + asker
        return _ethernet(packet, neighbour.mac) + reply

    def _answer_solicitation(self, packet: Packet) -> bytes | None:
        frame, l4 = packet.frame, packet.l4
        asker_mac = bytes(frame[ETH + 6 : ETH + 12])
        if not any(packet.src) or not _is_station(asker_mac):
            return None  # RFC 4862: duplicate address detection asks from the unspecified address.
        target = bytes(frame[l4 + 8 : l4 + 24])
        neighbour = self._look_up(packet.tags, packet.src, target, asker_mac)
        if neighbour is None:
            return None
        # Were a router's answer to lack the flag, the guest would drop its default route (RFC 4861
        # §7.2.5); the flag on a host's answer makes nobody use it as one. Only link-local ones matter.
        router = neighbour.router if neighbour.router is not None else target[:2] == _LINK_LOCAL
        body = bytes((_ADVERTISEMENT, 0, 0, 0, 0xE0 if router else 0x60, 0, 0, 0)) + target
        body += bytes((_TARGET_LINK, 1)) + neighbour.mac
        checksum = internet_checksum(body, pseudo_sum(target, packet.src, PROTO_ICMPV6, len(body)))
        body = body[:2] + checksum.to_bytes(2, "big") + body[4:]
        header = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((PROTO_ICMPV6, 255)) + target + packet.src
        return _ethernet(packet, neighbour.mac) + header + body

    def _look_up(self, tags: bytes, asker: bytes, target: bytes, asker_mac: bytes) -> _Neighbour | None:
        own = tags + asker
        self._own[own] = None
        self._own.move_to_end(own)
        if len(self._own) > MAX_OWN:
            self._own.popitem(last=False)
        self._known.pop(own, None)
        key = tags + target
        neighbour = self._known.get(key)
        if neighbour is None or key in self._own or neighbour.mac == asker_mac:
            return None
        self._known.move_to_end(key)
        return neighbour


def _is_station(mac: bytes) -> bool:
    return len(mac) == 6 and not mac[0] & 1 and any(mac)


def _is_discovery(packet: Packet) -> bool:
    """A well-formed neighbour discovery message: never forwarded (hop limit 255), code 0."""
    if packet.kind != Kind.IP or packet.version != 6 or packet.proto != PROTO_ICMPV6:
        return False
    frame, l4 = packet.frame, packet.l4
    size = packet.end - l4
    if size < 8 or frame[packet.l3 + 7] != 255 or frame[l4 + 1] != 0:
        return False
    kind = frame[l4]
    return kind == _ROUTER_SOLICITATION or (
        (kind in (_SOLICITATION, _ADVERTISEMENT) and size >= 24) or (kind == _ROUTER_ADVERTISEMENT and size >= 16)
    )


def _link_option(packet: Packet, wanted: int, start: int) -> bytes:
    """The link-layer address option of kind `wanted` after the fixed part, or empty."""
    frame, at = packet.frame, packet.l4 + start
    while at + 8 <= packet.end:
        kind, length = frame[at], frame[at + 1] * 8
        if length == 0:
            break
        if kind == wanted and length == 8:
            return bytes(frame[at + 2 : at + 8])
        at += length
    return b""


def _ethernet(packet: Packet, source: bytes) -> bytes:
    """The header of a reply to `packet`: back to its sender, with its VLAN tags."""
    frame = packet.frame
    return NO_OFFLOAD + bytes(frame[ETH + 6 : ETH + 12]) + source + bytes(frame[ETH + 12 : packet.l3])
