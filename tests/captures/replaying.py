"""A capture as traffic of a guest: which side is the guest, what it sent, and what a filter makes of it."""

from collections import defaultdict
from dataclasses import dataclass, field
from struct import pack_into, unpack_from

from checksums import l4_checksum_ok
from colo_compare.config import CompareConfig
from colo_proto.checksum import internet_checksum, pseudo_sum
from colo_proto.errors import WireError
from colo_proto.frame import ETH, MAX_FRAME, MIN_FRAME, plain
from colo_proto.messages import Reason
from colo_proto.net import packet as p
from colo_proto.net.offload import to_plain
from colo_proto.net.tcp import ACK, RST, SYN, options, segment
from colo_proto.seq import MASK
from colo_runtime.capture import read_capture
from craft import VnetHdr
from playbook import Play


def load(path):
    """The Ethernet frames of a file; none when it has another link type or is truncated."""
    frames = []
    try:
        with path.open("rb") as file:
            for one in read_capture(file):
                frame = plain(one)
                if MIN_FRAME <= len(frame) <= MAX_FRAME:
                    frames.append(frame)
    except WireError:
        pass
    return frames


@dataclass
class Conversation:
    """A parsed capture. In each pair of addresses, `guest` is the side that answered, or the only one that sent."""

    frames: list
    packets: list = field(init=False)

    def __post_init__(self):
        self.packets = [p.dissect(frame) for frame in self.frames]
        guests = {}
        spoke = {}
        for packet in self.packets:
            if packet.kind not in (p.Kind.IP, p.Kind.FRAGMENT):
                continue
            pair = frozenset((packet.src, packet.dst))
            seg = segment_of(packet)
            if seg is not None and seg.flags & SYN and not seg.flags & ACK:
                guests.setdefault(pair, packet.dst)
            first = spoke.setdefault(pair, packet.src)
            if packet.src != first:
                guests.setdefault(pair, packet.src)
        self.guests = {pair: guests.get(pair, first) for pair, first in spoke.items()}
        self.both = len(guests)

    def of_guest(self, packet):
        """True for what the guest sent, and for what has no address."""
        if packet.kind not in (p.Kind.IP, p.Kind.FRAGMENT):
            return True
        return self.guests[frozenset((packet.src, packet.dst))] == packet.src

    def guest_packets(self):
        """What the guest sent, without incomplete streams, which a compare holds back rightly."""
        mine = [packet for packet in self.packets if self.of_guest(packet)]
        out = torn(mine)
        return [packet for packet in mine if packet.key not in out]


def segment_of(packet):
    if packet.kind != p.Kind.IP or packet.proto != p.PROTO_TCP:
        return None
    return segment(packet.frame, packet.l4, packet.end)


def torn(packets):
    """Keys of connections that are not complete streams in the capture: with a hole that nothing fills, or two
    versions of the same bytes (files made to break parsers).
    """
    found = set()
    seen = defaultdict(list)
    zero = {}
    for packet in packets:
        seg = segment_of(packet)
        if seg is None or seg.flags & RST:
            continue
        start = (seg.seq - zero.setdefault(packet.key, seg.seq) + 0x80000000 & MASK) - 0x80000000
        body = b"\0" * (seg.flags >> 1 & 1) + bytes(packet.frame[seg.data : seg.end]) + b"\0" * (seg.flags & 1)
        for other_start, other in seen[packet.key]:
            lead = start - other_start
            mine, its = (body, other[lead:]) if lead >= 0 else (body[-lead:], other)
            size = min(len(mine), len(its))
            if mine[:size] != its[:size] and len(body) != 1:
                found.add(packet.key)
        seen[packet.key].append((start, body))
    for key, pieces in seen.items():
        top = 0
        for start, body in sorted(pieces):
            if start > top:
                found.add(key)
            top = max(top, start + len(body))
    return found


# -- compare -------------------------------------------------------------------------------------------


def recut(packet, size):
    """The frames that another stack might have sent instead: a TCP segment in pieces of `size` bytes."""
    seg = segment_of(packet)
    if seg is None or seg.end - seg.data <= size or seg.flags & (SYN | RST):
        return [packet.frame]
    start = packet.l4 - ETH
    kind = 1 if packet.version == 4 else 4
    header = VnetHdr(1, kind, seg.data - ETH, size, start, 16).encode()
    return [plain(one) for one in to_plain(header + packet.frame[ETH:])]


def interleaved(mine, its, lag):
    """Frames of both sides, the secondary's `lag` frames behind (or, negative, ahead): `(port, frame)`.

    However far ahead, no guest sends on a connection before the primary's SYN has left, because the client would not
    have known of it.
    """
    opened = {}
    for at, frame in enumerate(mine):
        packet = p.dissect(frame)
        seg = segment_of(packet)
        if seg is not None and seg.flags & SYN:
            opened[packet.key] = at
    due = [(at, 0, frame) for at, frame in enumerate(mine)]
    due += [(max(at + lag, opened.get(p.dissect(frame).key, lag + at)), 1, frame) for at, frame in enumerate(its)]
    for _, side, frame in sorted(due, key=lambda one: one[:2]):
        yield ("primary_in", "secondary_in")[side], frame


def without_window(frame):
    """A frame without its TCP window, which a compare may lower, and without the checksum."""
    packet = p.dissect(frame)
    if segment_of(packet) is None:
        return bytes(frame)
    return bytes(frame[: packet.l4 + 14]) + bytes(4) + bytes(frame[packet.l4 + 18 :])


def compared(mine, its, lag=0):
    """A compare that has seen both sides, and enough time."""
    play = Play(CompareConfig(max_queue_size=4096))
    for port, frame in interleaved(mine, its, lag):
        play.give(port, frame)
        play.now += 0.0005
    return play.at(10)


@dataclass(frozen=True)
class Flip:
    """One payload byte that may be changed: in which frame, where, and where a compare must find it."""

    index: int
    at: int
    key: bytes
    offset: int
    byte: int
    tcp: bool


def flips(packets):
    """Every place where one changed byte must be found: bytes that are sent for the first time, datagrams of which
    there is no second.
    """
    found = []
    bodies = defaultdict(list)
    streams = defaultdict(_Stream)
    for packet in packets:
        if _datagram(packet):
            bodies[packet.key].append(_body(packet))
    counts = defaultdict(int)
    for index, packet in enumerate(packets):
        seg = segment_of(packet)
        if seg is not None:
            place = streams[packet.key].place(seg)
            if place is not None:
                skip, offset = place
                at = (seg.data + skip + seg.end) // 2
                found.append(Flip(index, at, packet.key, offset + at - seg.data - skip, 0, tcp=True))
        elif _datagram(packet):
            number = counts[packet.key]
            counts[packet.key] += 1
            body = _body(packet)
            if len(body) > 4 and bodies[packet.key].count(body) == 1:
                byte = len(body) - 1
                found.append(Flip(index, packet.end - 1, packet.key, number, byte, tcp=False))
    return found


def _datagram(packet):
    """UDP, or a ping: errors of ICMP belong to the flow that they are about."""
    if packet.kind != p.Kind.IP or packet.end - packet.l4 < 8:
        return False
    return packet.proto == p.PROTO_UDP or (packet.proto == p.PROTO_ICMP and packet.frame[packet.l4] in (0, 8))


def _body(packet):
    start = packet.l4 + (8 if packet.proto == p.PROTO_UDP else 4)
    head = b"" if packet.proto == p.PROTO_UDP else packet.frame[packet.l4 : packet.l4 + 2]
    return bytes(head) + bytes(packet.frame[start : packet.end])


class _Stream:
    """The progress of a guest's stream, computed without compare's code."""

    def __init__(self):
        self.zero = None
        """Sequence number of stream offset 0."""
        self.top = 0
        self.over = False

    def place(self, seg):
        """`(bytes that were sent before, stream offset of the first new one)`, or None when there is no new one."""
        if seg.flags & SYN:
            if self.zero is not None and self.zero != seg.seq + 1 & MASK:
                self.over = True
            self.zero = seg.seq + 1 & MASK
            return None
        if self.zero is None:
            self.zero = seg.seq
        if seg.flags & RST:
            self.over = True
        start = (seg.seq - self.zero + 0x80000000 & MASK) - 0x80000000
        stop = start + seg.end - seg.data
        new = max(start, self.top)
        self.top = max(self.top, stop)
        if self.over or stop <= new or start < 0:
            return None
        return new - start, new


def flipped(packets, flip):
    """The first request of a compare when this byte of the secondary differs."""
    mine = [packet.frame for packet in packets if packet.key == flip.key]
    its = list(mine)
    at = sum(packet.key == flip.key for packet in packets[: flip.index])
    changed = bytearray(its[at])
    changed[flip.at] ^= 0x20
    its[at] = bytes(changed)
    play = compared(mine, its)
    return play.wanted[0] if play.wanted else None


def right(flip, want):
    """True if the request names that place."""
    if want is None:
        return False
    if flip.tcp:
        return (want.reason, want.offset) == (Reason.PAYLOAD, flip.offset)
    # When later ones were matched meanwhile, an unequal datagram is found by the timeout, as the packet that it is.
    if want.reason == Reason.DATAGRAM and want.detail.get("byte") != flip.byte:
        return False
    return want.reason in (Reason.DATAGRAM, Reason.TIMEOUT) and want.offset == flip.offset


# -- rewriter ------------------------------------------------------------------------------------------


def shifted(packet, *, seq=0, ack=0, tsval=0, tsecr=0):
    """A segment with other numbers and an adjusted checksum (right, or as wrong as before)."""
    seg = segment_of(packet)
    frame = bytearray(packet.frame)
    pack_into("!I", frame, packet.l4 + 4, seg.seq + seq & MASK)
    if seg.flags & ACK:
        pack_into("!I", frame, packet.l4 + 8, seg.ack + ack & MASK)
    for kind, at, length in options(packet.frame, packet.l4, seg.data):
        if kind == 8 and length == 10:
            value, echo = unpack_from("!II", frame, at + 2)
            echo = echo + tsecr & MASK if echo and seg.flags & ACK else echo
            pack_into("!II", frame, at + 2, value + tsval & MASK, echo)
        elif kind == 5 and (length - 2) % 8 == 0 and seg.flags & ACK:
            for edge in range(at + 2, at + length, 4):
                pack_into("!I", frame, edge, unpack_from("!I", frame, edge)[0] + ack & MASK)
    if l4_checksum_ok(packet.frame):
        frame[packet.l4 + 16 : packet.l4 + 18] = b"\0\0"
        body = bytes(frame[packet.l4 : packet.end])
        start = pseudo_sum(packet.src, packet.dst, p.PROTO_TCP, len(body))
        pack_into("!H", frame, packet.l4 + 16, internet_checksum(body, start))
    return bytes(frame)


def same(a, b, packet):
    """True if equal, except for a checksum that was wrong in the capture (offloads)."""
    if l4_checksum_ok(packet.frame):
        return a == b
    at = packet.l4 + 16
    return a[:at] + a[at + 2 :] == b[:at] + b[at + 2 :]
