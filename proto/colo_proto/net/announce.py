"""Announces a guest at its new place after a failover: which frames are sent, and how often.

The guest keeps its addresses, so neighbours need not learn anything. But switches must, or they would go on sending the
guest's frames to the port of the dead host. For each MAC from which the guest has sent, a RARP request is sent, as
hypervisors do. For each address that the guest has claimed in ARP or IPv6 neighbour discovery, a gratuitous ARP request
(RFC 5227 §3) or an unsolicited neighbour advertisement (RFC 4861 §7.2.6) is sent. The addresses in IP headers do not
count: the guest may only forward those packets.
"""

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from colo_proto.frame import ETH, Buffer
from colo_proto.net import craft
from colo_proto.net.discovery import introduction
from colo_proto.net.packet import dissect

ANNOUNCE_AT: Final[Sequence[float]] = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Seconds after the failover at which everything is announced, several times because frames may be lost."""
MAX_STATIONS: Final = 64
MAX_ADDRESSES: Final = 256
"""Bounds of what is remembered; the oldest entries are forgotten first."""

_TAGGED: Final = frozenset({b"\x81\x00", b"\x88\xa8"})
_ALL_NODES: Final = b"\xff\x02" + bytes(13) + b"\x01"
_ALL_NODES_MAC: Final = b"\x33\x33\x00\x00\x00\x01"
_MIN_FRAME: Final = ETH + 60
"""The shortest Ethernet frame, without its check sequence."""


class Announcer:
    """Learns from every frame of the guest. `start` begins the announcements."""

    def __init__(self) -> None:
        self._stations: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        self._addresses: OrderedDict[tuple[bytes, bytes], tuple[bytes, bool]] = OrderedDict()
        self._seen: set[bytes] = set()
        self._due: list[float] = []

    def learn(self, frames: Sequence[Buffer]) -> None:
        """Note from which addresses the guest sends. This is cheap for addresses that are known already."""
        seen = self._seen
        for frame in frames:
            kind = frame[22:24]
            if kind in _TAGGED:
                head = bytes(frame[16:26]) + bytes(frame[26:36])
                if head[:14] in seen and not _is_arp_or_icmpv6(frame):
                    continue
                self._look(frame, head[:14])
            elif frame[16:24] not in seen or kind == b"\x08\x06" or (kind == b"\x86\xdd" and frame[30:31] == b"\x3a"):
                self._look(frame, bytes(frame[16:24]))

    def _look(self, frame: Buffer, head: bytes) -> None:
        if len(self._seen) >= 4 * MAX_STATIONS:
            self._seen.clear()
        self._seen.add(head)
        if len(frame) < ETH + 14 or frame[ETH + 6] & 1 or not any(frame[ETH + 6 : ETH + 12]):
            return
        packet = dissect(frame)
        mac = bytes(frame[ETH + 6 : ETH + 12])
        self._stations[packet.tags, mac] = None
        if len(self._stations) > MAX_STATIONS:
            self._stations.popitem(last=False)
        said = introduction(packet)
        if said is not None:
            key = packet.tags, said.address
            before = self._addresses.get(key)
            known = before is not None and before[1]
            self._addresses[key] = (mac, known if said.router is None else said.router)
            if len(self._addresses) > MAX_ADDRESSES:
                self._addresses.popitem(last=False)

    def start(self, now: float) -> None:
        """Announce everything that is known, several times from now on."""
        self._due = [now + after for after in ANNOUNCE_AT]

    def stop(self) -> None:
        """End the announcements."""
        self._due = []

    def deadline(self) -> float | None:
        """When `due` has something."""
        return self._due[0] if self._due else None

    def due(self, now: float) -> list[bytes]:
        """The announcements that are due."""
        if not self._due or now < self._due[0]:
            return []
        self._due = [when for when in self._due if when > now]
        return self.frames()

    def frames(self) -> list[bytes]:
        """One announcement of everything. MACs come first, because a switch needs nothing else."""
        found = []
        for tags, mac in self._stations:
            ethernet = craft.Ethernet(mac, craft.BROADCAST, craft.vlan_tags(tags))
            found.append(craft.arp(ethernet, craft.RARP_REQUEST, mac, bytes(4), mac, bytes(4)))
        for (tags, address), (mac, router) in self._addresses.items():
            vlans = craft.vlan_tags(tags)
            if len(address) == 4:
                ethernet = craft.Ethernet(mac, craft.BROADCAST, vlans)
                found.append(craft.arp(ethernet, craft.ARP_REQUEST, mac, address, bytes(6), address))
            else:
                flags = craft.NA_OVERRIDE | (craft.NA_ROUTER if router else 0)
                ethernet = craft.Ethernet(mac, _ALL_NODES_MAC, vlans)
                found.append(craft.neighbour_advertisement(ethernet, _ALL_NODES, address, mac, flags))
        return [frame.ljust(_MIN_FRAME, b"\0") for frame in found]

    def status(self) -> dict[str, list[str]]:
        """Stations and addresses as text, for `colo status`."""
        return {
            "stations": [mac.hex(":") for _, mac in self._stations],
            "addresses": [str(ip_address(address)) for _, address in self._addresses],
        }


def _is_arp_or_icmpv6(frame: Buffer) -> bool:
    """Is it a tagged frame of ARP or ICMPv6?"""
    at = ETH + 12
    while frame[at : at + 2] in _TAGGED:
        at += 4
    kind = frame[at : at + 2]
    return kind == b"\x08\x06" or (kind == b"\x86\xdd" and frame[at + 8 : at + 9] == b"\x3a")
