"""Answers the secondary guest's ARP and IPv6 neighbour requests.

The frames of the secondary guest never reach the LAN, so nobody would answer it. If its neighbour cache ran out while
the primary's did not, it could no longer send, and the replicas would diverge. So the rewriter learns from the mirrored
frames who has which address, and answers the guest's requests for these addresses.

A rewriter that was restarted has missed how the hosts introduced themselves: hosts in a conversation do not ask for
each other again for a long time. So it also notes from which stations the mirrored frames come. It answers with the
first of these that it knows:

1. what a host has said of itself (ARP, neighbour discovery);
2. the station to which the guest sends its request as unicast, in order to know whether it is still there;
3. the station from which frames with this source address came (of those with TCP, the ones that open a connection, and
   a few others);
4. a router that has not introduced itself: a station from which frames with several source addresses come. The address
   that the guest asks for is taken for its own.

None of the guest's frames reaches the LAN before a failover, and after it the guest hears its neighbours itself. So 2
to 4 need not be certain: they only keep the guest sending.

A guest that has joined just now knows nobody, and asks for neighbours that have not introduced themselves for hours,
because the primary guest knows them. So what 1 to 3 cannot answer is also asked on the LAN, by the primary's mirror
(`LanAsk`). Both guests have the same addresses, so the answer is right for both, and is mirrored like every frame.

Sources: RFC 826 (ARP), RFC 5227 (probes), RFC 4861 (neighbour discovery), RFC 4862 (duplicate address
detection). Probes that ask whether an address is free are never answered.
"""

from collections import Counter, OrderedDict
from typing import Final, NamedTuple

from colo_proto.frame import ETH, Buffer
from colo_proto.net import craft
from colo_proto.net.discovery import SOLICITATION, introduction, is_arp, is_discovery
from colo_proto.net.packet import Kind, Packet, dissect

MAX_NEIGHBOURS: Final = 4096
MAX_OWN: Final = 256
"""Bounds of the learned addresses and of the guest's own. The least recently used one is forgotten first."""

MAX_GUESSED: Final = 4
"""Addresses that are taken for those of a router that has not introduced itself."""

_LINK_LOCAL: Final = b"\xfe\x80"


class _Neighbour(NamedTuple):
    mac: bytes
    router: bool | None
    """IPv6: does it say it is a router? None when it has not said."""
    station: bytes
    """VLAN tags, family and MAC: whose address it is."""


class _Stations:
    """Who has which address, by VLAN tags and address. At most `limit`; the least recently used is forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_address: OrderedDict[bytes, _Neighbour] = OrderedDict()
        self.addresses: Counter[bytes] = Counter()
        """How many addresses each station has."""

    def __len__(self) -> int:
        return len(self._by_address)

    def get(self, key: bytes) -> _Neighbour | None:
        found = self._by_address.get(key)
        if found is not None:
            self._by_address.move_to_end(key)
        return found

    def put(self, key: bytes, one: _Neighbour) -> None:
        self.drop(key)
        self._by_address[key] = one
        self.addresses[one.station] += 1
        if len(self._by_address) > self._limit:
            self.drop(next(iter(self._by_address)))

    def drop(self, key: bytes) -> None:
        old = self._by_address.pop(key, None)
        if old is not None:
            self.addresses[old.station] -= 1
            if not self.addresses[old.station]:
                del self.addresses[old.station]


class Neighbours:
    """Addresses on the LAN, per VLAN. `learn` and `answer` are for frames that are not TCP, `notice` is for all."""

    def __init__(self, limit: int = MAX_NEIGHBOURS) -> None:
        self._known = _Stations(limit)
        """What hosts have said about themselves."""
        self._seen = _Stations(limit)
        """From which stations frames came."""
        self._guessed = _Stations(MAX_GUESSED)
        self._own: OrderedDict[bytes, None] = OrderedDict()
        self._familiar: dict[bytes, bytes] = {}
        """Addresses that `notice` has seen, with their stations: most frames come from one of these."""
        self.unknown = False
        """The neighbour that the guest asked for last is not known, or guessed: somebody has to ask the LAN."""

    def __len__(self) -> int:
        return len(self._known)

    def notice(self, frame: Buffer) -> None:
        """Note from which station a mirrored frame of any kind came."""
        start = bytes(frame[ETH + 6 : ETH + 46])
        # Without tags: the ends of the EtherType, and where each family has the address of the sender.
        family = start[6:8]
        source = start[20:24] if family == b"\x08\0" else start[16:32] if family == b"\x86\xdd" else b""
        if source and self._familiar.get(source) == start[:6]:
            return
        packet = dissect(frame)
        if packet.kind not in (Kind.IP, Kind.FRAGMENT):
            return
        mac, key = start[:6], packet.tags + packet.src
        if source:
            if len(self._familiar) >= MAX_NEIGHBOURS:
                self._familiar.clear()
            self._familiar[source] = mac
        if not _is_address(packet.src) or not _is_station(mac) or key in self._own:
            return
        old = self._seen.get(key)
        if old is None or old.mac != mac:
            self._seen.put(key, _Neighbour(mac, None, _station(packet.tags, packet.src, mac)))

    def learn(self, packet: Packet) -> None:
        """Note what a mirrored frame of the LAN says about its sender."""
        said = introduction(packet)
        if said is None:
            return
        address, mac, router = said
        key = packet.tags + address
        if not _is_address(address) or not _is_station(mac) or key in self._own:
            return
        old = self._known.get(key)
        if router is None and old is not None and old.mac == mac:
            router = old.router
        self._known.put(key, _Neighbour(mac, router, _station(packet.tags, address, mac)))

    def answer(self, packet: Packet) -> bytes | None:
        """The reply to a request of the guest in `packet`, or None when there is nothing to say."""
        self.unknown = False
        if is_arp(packet):
            return self._answer_arp(packet)
        if is_discovery(packet) and packet.frame[packet.l4] == SOLICITATION:
            return self._answer_solicitation(packet)
        return None

    def _answer_arp(self, packet: Packet) -> bytes | None:
        frame, at = packet.frame, packet.l3
        asker_mac, asker, target = (bytes(frame[at + a : at + b]) for a, b in ((8, 14), (14, 18), (24, 28)))
        if frame[at + 6 : at + 8] != b"\0\1" or not any(asker) or not _is_station(asker_mac):
            return None  # RFC 5227: a probe asks whether an address is free. Only its owner may answer.
        neighbour = self._look_up(packet, asker, target, asker_mac)
        if neighbour is None:
            return None
        return craft.arp(_back(packet, neighbour.mac), craft.ARP_REPLY, neighbour.mac, target, asker_mac, asker)

    def _answer_solicitation(self, packet: Packet) -> bytes | None:
        frame, l4 = packet.frame, packet.l4
        asker_mac = bytes(frame[ETH + 6 : ETH + 12])
        if not any(packet.src) or not _is_station(asker_mac):
            return None  # RFC 4862: duplicate address detection uses the unspecified address.
        target = bytes(frame[l4 + 8 : l4 + 24])
        neighbour = self._look_up(packet, packet.src, target, asker_mac)
        if neighbour is None:
            return None
        # If a router's answer lacked the flag, the guest would drop its default route (RFC 4861 §7.2.5). The flag on
        # a host's answer does no harm: nobody takes it for a router. Only link-local addresses matter.
        router = neighbour.router if neighbour.router is not None else target[:2] == _LINK_LOCAL
        flags = craft.NA_SOLICITED | craft.NA_OVERRIDE | (craft.NA_ROUTER if router else 0)
        return craft.neighbour_advertisement(_back(packet, neighbour.mac), packet.src, target, neighbour.mac, flags)

    def _look_up(self, packet: Packet, asker: bytes, target: bytes, asker_mac: bytes) -> _Neighbour | None:
        tags = packet.tags
        own = tags + asker
        self._own[own] = None
        self._own.move_to_end(own)
        if len(self._own) > MAX_OWN:
            self._own.popitem(last=False)
        for stations in (self._known, self._seen):
            stations.drop(own)
        key = tags + target
        if key in self._own or not _is_address(target):
            return None
        # A request as unicast goes to the station that had the address before (RFC 1122 §2.3.2.1, RFC 4861 §7.3.3).
        mac = bytes(packet.frame[ETH : ETH + 6])
        asked = _Neighbour(mac, None, _station(tags, target, mac)) if _is_station(mac) else None
        neighbour = self._known.get(key) or asked or self._seen.get(key)
        if neighbour is None:
            self.unknown = True
            neighbour = self._guessed.get(key) or self._router(tags, key, target)
        return neighbour if neighbour is not None and neighbour.mac != asker_mac else None

    def _router(self, tags: bytes, key: bytes, target: bytes) -> _Neighbour | None:
        """The station that forwards, for an address of which nothing is known."""
        family = _station(tags, target, b"")
        for station, addresses in self._seen.addresses.items():
            strange = addresses > 1 and not self._known.addresses[station]
            if strange and station.startswith(family) and len(station) == len(family) + 6:
                if self._guessed.addresses[station] >= MAX_GUESSED:
                    return None
                found = _Neighbour(station[-6:], True, station)
                self._guessed.put(key, found)
                return found
        return None


def _is_address(address: bytes) -> bool:
    """Can one host have it? Not if it is unspecified, multicast (IPv4: 224 to 239, IPv6: ff00::/8) or broadcast."""
    return any(address) and (address[0] < 224 if len(address) == 4 else address[0] != 0xFF)


def _station(tags: bytes, address: bytes, mac: bytes) -> bytes:
    return tags + bytes((len(address),)) + mac


def _is_station(mac: bytes) -> bool:
    return len(mac) == 6 and not mac[0] & 1 and any(mac)


def _back(packet: Packet, source: bytes) -> craft.Ethernet:
    """The Ethernet header of a reply to `packet`: back to its sender, with its VLAN tags."""
    frame = packet.frame
    return craft.Ethernet(source, bytes(frame[ETH + 6 : ETH + 12]), bytes(frame[ETH + 12 : packet.l3 - 2]))
