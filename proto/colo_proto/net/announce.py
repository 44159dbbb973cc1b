"""Announcing a guest where it now is: what is said, and how often, after a failover.

The guest keeps its addresses, so neighbours need not learn anything; switches must, or they would go on
sending its frames to the port of the dead host. For each MAC the guest has sent from: a RARP request, as
hypervisors send it. For each address that the guest has claimed in ARP or IPv6 neighbour discovery: a
gratuitous ARP request (RFC 5227 §3), an unsolicited neighbour advertisement (RFC 4861 §7.2.6). Addresses
of packets it merely forwards are not its own, so IP headers teach nothing.
"""

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from colo_proto.frame import ETH, Buffer
from colo_proto.net import craft
from colo_proto.net.discovery import introduction
from colo_proto.net.packet import dissect

AT: Final[Sequence[float]] = (0.0, 0.1, 0.3, 0.6, 1.0)
"""Seconds after the failover at which everything is said: any of them may be lost."""
MAX_STATIONS: Final = 64
MAX_ADDRESSES: Final = 256
"""Bounds on what is remembered; the first to come make room."""

_TAGGED: Final = frozenset({b"\x81\x00", b"\x88\xa8"})
_ALL_NODES: Final = b"\xff\x02" + bytes(13) + b"\x01"
_ALL_NODES_MAC: Final = b"\x33\x33\x00\x00\x00\x01"
_MIN_FRAME: Final = ETH + 60
"""The shortest Ethernet frame, without its check sequence."""


class Announcer:
    """Learns from every frame of the guest; `start` begins the announcements."""

    def __init__(self) -> None:
        self._stations: OrderedDict[tuple[bytes, bytes], None] = OrderedDict()
        self._addresses: OrderedDict[tuple[bytes, bytes], tuple[bytes, bool]] = OrderedDict()
        self._seen: set[bytes] = set()
        self._due: list[float] = []

    def learn(self, frames: Sequence[Buffer]) -> None:
        """Take in who sends. Cheap for what is known already."""
        seen = self._seen
        for frame in frames:
            kind = frame[22:24]
            if kind in _TAGGED:
                head = bytes(frame[16:26]) + bytes(frame[26:36])
                if head[:14] in seen and not _speaks_of_itself(frame):
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
        """Everything known is to be announced from now on, several times."""
        self._due = [now + after for after in AT]

    def stop(self) -> None:
        """Say no more."""
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
        """One announcement of everything: stations first, since a switch needs no more."""
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
        """For `colo status`."""
        return {
            "stations": [mac.hex(":") for _, mac in self._stations],
            "addresses": [str(ip_address(address)) for _, address in self._addresses],
        }


def _speaks_of_itself(frame: Buffer) -> bool:
    """A tagged frame of ARP or ICMPv6."""
    at = ETH + 12
    while frame[at : at + 2] in _TAGGED:
        at += 4
    kind = frame[at : at + 2]
    return kind == b"\x08\x06" or (kind == b"\x86\xdd" and frame[at + 8 : at + 9] == b"\x3a")
