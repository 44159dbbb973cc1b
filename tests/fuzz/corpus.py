"""Well-formed frames of every kind, and nearly valid segments of a few connections."""

from random import Random
from struct import pack, pack_into

from tests import craft
from tests.craft import VnetHdr

from colo_proto.frame import ETH
from colo_proto.net import packet as p

C4, G4, C6, G6 = "10.0.0.9", "10.0.0.2", "fd00::9", "fd00::2"
ENDS = ((C4, G4), (C6, G6))
MASK = 0xFFFFFFFF
TEXT = bytes(range(256)) * 13


def frames() -> list[bytes]:
    """One of each kind."""
    found = [
        craft.arp_request(C4, G4),
        craft.arp_reply(C4, G4),
        craft.rarp_announcement(craft.MAC_A),
        craft.neighbour_solicitation(C6, G6),
        craft.neighbour_advertisement(G6, C6, G6, craft.MAC_A),
        craft.ethernet(0x88CC, b"lldp" * 9),
        craft.ethernet(0x8100, b"\0"),
        craft.ethernet(p.ETH_IPV4, b"", tags=(1, 2)),
    ]
    syn = craft.mss(1460) + craft.sack_permitted() + craft.timestamps(5, 6) + craft.wscale(7)
    for client, guest in ENDS:
        for a, b in ((client, guest), (guest, client)):
            for tags in ((), (5,), (5, 6)):
                segment = craft.tcp(a, b, 80, 5000, 1000, 500, 24, TEXT[:40], tags=tags)
                found += [segment, craft.udp(a, b, 53, 5000, TEXT[:30], tags=tags)]
                found.append(craft.icmp_error(b, a, segment, tags=tags))
            big = craft.tcp(a, b, 80, 5000, 1000, 500, 24, TEXT[:3000], gso=1000)
            found += [
                craft.tcp(a, b, 80, 5000, 999, 0, 2, options=syn),
                craft.tcp(a, b, 80, 5000, 999, 500, 18, options=syn),
                craft.tcp(a, b, 80, 5000, 1000, 500, 16, options=craft.timestamps(1, 2) + craft.sack((1, 2), (3, 4))),
                craft.tcp(a, b, 80, 5000, 1000, 500, 17),
                craft.tcp(a, b, 80, 5000, 1000, 500, 20),
                big,
                craft.udp(a, b, 53, 5000, TEXT[:1200], partial=True),
                craft.icmp_echo(a, b),
                craft.ip(a, b, p.PROTO_SCTP, TEXT[:40]),
                craft.ip(a, b, 47, TEXT[:40]),
                craft.ip(a, b, 51, TEXT[:40]),
                *craft.fragments(craft.udp(a, b, 53, 5000, TEXT[:3000]), 1280),
                *craft.fragments(big, 1280),
            ]
            large = craft.udp(a, b, 53, 5000, TEXT[:3000])
            start = 34 if a in (C4, G4) else 54
            for kind, size in ((3, 1000), (5, 1000)):
                found.append(VnetHdr(1, kind, start + 8, size, start, 6).encode() + large[ETH:])
    extensions = ((p.PROTO_DSTOPTS, b"\1\4\0\0\0\0"), (p.PROTO_ROUTING, b"\0\0\0\0\0\0"))
    found.append(craft.ip(C6, G6, p.PROTO_TCP, TEXT[:40], extensions=extensions))
    found.append(craft.ip(C4, G4, p.PROTO_TCP, TEXT[:40], options=b"\x94\4\0\0"))
    return [bytes(frame) for frame in found]


FRAMES = frames()

_FLAGS = (*[16, 24] * 16, 17, 25, 2, 18, 18, 4, 20, 0, 3, 6, 48, 63)
_OPTIONS = (
    b"", b"", b"", craft.timestamps(7, 9), craft.sack((10, 20)), craft.timestamps(7, 0) + craft.sack((1, 9), (2, 8)),
    craft.mss(1460) + craft.sack_permitted() + craft.wscale(7), craft.mss(536), b"\1\3\3\1", b"\x08\x0b\0\0",
    b"\5\xff\0\0",
)  # fmt: skip
_SIZES = (0, 0, 0, 1, 2, 10, 100, 536, 1448, 2800)
_WINDOWS = (0, 1, 100, 500, 65535)


_CONNECTIONS = [(ends, port, tags) for ends in ENDS for port in (5000, 5001) for tags in ((), (5,))]

_TEMPLATES: dict[tuple[str, int], list[tuple[bytes, int, int]]] = {}


def _templates(side: str, connection: int) -> list[tuple[bytes, int, int]]:
    """Headers with room for a stream's bytes: `(frame up to the payload, offset of the TCP header, room)`."""
    (client, guest), port, tags = _CONNECTIONS[connection]
    a, b = (guest, client) if side == "g" else (client, guest)
    sport, dport = (80, port) if side == "g" else (port, 80)
    made = []
    for options in _OPTIONS:
        for size in _SIZES:
            frame = craft.tcp(a, b, sport, dport, 0, 0, 16, bytes(size), options=options, tags=tags)
            made.append((frame[: len(frame) - size], p.dissect(frame).l4, size))
    return made


class Streams:
    """Two connections, and where their streams are."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.connections = random.sample(range(len(_CONNECTIONS)), 2)
        self.base = random.choice((1000, 0xFFFFFC00))
        self.base_ack = random.choice((500, 0xFFFFFFF0))

    def advance(self) -> None:
        """Let time pass."""
        self.base += int(self.random.random() * 1500)
        self.base_ack += int(self.random.random() * 100)

    def segment(self, side: str) -> bytes:
        """A segment with numbers near the position of the stream, and mostly the bytes of the stream."""
        choice = self.random.random
        connection = self.connections[choice() < 0.2]
        templates = _TEMPLATES.get((side, connection))
        if templates is None:
            templates = _TEMPLATES[side, connection] = _templates(side, connection)
        head, l4, size = templates[int(choice() * len(templates))]
        start = int(choice() * 3000)
        frame = bytearray(head)
        pack_into("!II", frame, l4 + 4, self.base + start & MASK, self.base_ack + int(choice() * 300) & MASK)
        frame[l4 + 13] = _FLAGS[int(choice() * len(_FLAGS))]
        pack_into("!H", frame, l4 + 14, _WINDOWS[int(choice() * len(_WINDOWS))])
        if size:
            place = (self.base + start & MASK) % 256
            frame += TEXT[place : place + size]
            if choice() < 0.01:
                frame[-1] ^= 1
        return bytes(frame)


def datagram(random: Random, side: str) -> bytes:
    """A UDP datagram from a small set of flows and payloads, so that equal ones occur."""
    client, guest = ENDS[random.getrandbits(1)]
    a, b = (guest, client) if side == "g" else (client, guest)
    return craft.udp(a, b, 53, 5000 + random.getrandbits(1), pack("!B", random.getrandbits(3)))


DATAGRAMS = {side: [datagram(Random(n), side) for n in range(64)] for side in "cg"}
