"""The way of each frame through the rewriter, with the fast path.

`glance` finds the common case: IPv4 without options or IPv6 without extension headers, TCP, an open connection, neither
SYN, FIN nor RST. Such a segment is shifted or passed at once. Every other one goes through `dissect` and the `Tracker`.
Frames that are not TCP pass untouched.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from colo_proto.frame import MIN_FRAME, Buffer
from colo_proto.messages import MAX_ASK
from colo_proto.net.packet import ETH_ARP, PROTO_ICMPV6, PROTO_TCP, Kind, Packet, dissect, glance
from colo_proto.net.tcp import ACK, FLAGS_AT, OFFSET_AT, SYN, segment
from colo_proto.seq import MASK
from colo_rewriter.flow import PACED, PLAIN, SLOW, Arrival, Flow
from colo_rewriter.neighbour import Neighbours
from colo_rewriter.segments import guest_scale
from colo_rewriter.shift import toward_client, toward_guest
from colo_rewriter.tracker import Tracker

# sequence and acknowledgement number, data offset, flags, window
_FIELDS: Final[Callable[[bytes, int], tuple[int, int, int, int, int]]] = Struct("!IIBBH").unpack_from
TOUCH: Final = 1.0
"""Seconds. The fast path notes the use of a connection at most this often."""


class Passage:
    """See the module. What leaves goes to the outbox of the tracker."""

    def __init__(self, tracker: Tracker, neighbours: Neighbours | None, counters: Counter[str]) -> None:
        self.table = tracker.table
        self.tracker = tracker
        self.out = tracker.out
        self.neighbours = neighbours
        """None while the guest hears its neighbours itself, or if `answer_neighbours` is off."""
        self.counters = counters
        self.asks: list[bytes] = []
        """Requests of the guest that somebody has to ask on the LAN. The rewriter takes them."""

    def take(self, frames: Sequence[Buffer], now: float, *, outward: bool) -> None:
        """Handle frames of the guest (`outward`), or of the clients."""
        find = self.table.by_guest.get if outward else self.table.by_client.get
        touch = self.table.touch
        append = self.out.to_client.append if outward else self.out.to_guest.append
        if not outward and frames and self.neighbours is not None:
            # One frame of each batch is enough: every station that goes on sending is the last one sometimes.
            self.neighbours.notice(frames[-1])
        promoted = self.table.promoted
        stale = now - TOUCH
        rewritten = untracked = 0
        progressed: dict[Flow, None] = {}
        for frame in frames:
            if type(frame) is not bytes:
                frame = bytes(frame)  # noqa: PLW2901  keys are slices and must hash
            proto, l4, end, key = glance(frame, len(frame))
            if proto == PROTO_TCP:
                # Neither SYN, FIN nor RST, and a whole header.
                if l4 and l4 + 20 <= end and not frame[l4 + FLAGS_AT] & 7 and frame[l4 + OFFSET_AT] >= 0x50:
                    data = l4 + (frame[l4 + OFFSET_AT] >> 2 & 0x3C)
                    if data <= end:
                        flow = find(key)
                        if flow is None:
                            untracked += 1
                            append(frame)
                            continue
                        if flow.fast != SLOW:
                            if flow.seen < stale:
                                touch(flow, now)
                            if flow.fast == PACED:
                                if self._paced(flow, frame, l4, data, end, progressed, outward):
                                    continue
                                self._slow(frame, now, outward=outward)
                                continue
                            plain = flow.fast == PLAIN
                            if outward:
                                flow.last_guest = (frame[:data], l4, end - data)
                            elif plain:
                                flow.last_client = (frame[:data], l4)
                            if plain:
                                append(frame)
                                continue
                            rewritten += 1
                            if outward:
                                append(toward_client(frame, l4, data, flow, promoted))
                            else:
                                append(toward_guest(frame, l4, data, frame[l4 + FLAGS_AT], flow))
                            continue
            elif proto >= 0 and proto != PROTO_ICMPV6:
                if not outward and self.neighbours is not None:
                    self.neighbours.notice(frame)
                append(frame)
                continue
            self._slow(frame, now, outward=outward)
        for flow in progressed:
            self.tracker.established.proceed(flow, now)
        if rewritten:
            self.counters["rewritten"] += rewritten
        if untracked:
            self.counters["frames_untracked"] += untracked

    def _paced(
        self, flow: Flow, frame: bytes, l4: int, data: int, end: int, progressed: dict[Flow, None], outward: bool
    ) -> bool:
        """Handle a segment of an open connection that is paced. False: a client's segment that has to wait."""
        pace = self.tracker.pacing.of(flow)
        seq, ack, _, flags, window = _FIELDS(frame, l4 + 4)
        shift = bool(flow.offset or flow.ts_offset)
        if outward:
            flow.last_guest = (frame[:data], l4, end - data)
            pace.heard(seq, (seq + end - data) & MASK, ack, window << guest_scale(flow), bool(flags & ACK))
            if pace.queue or pace.owed is not None or pace.dropped_at >= 0:
                progressed[flow] = None
            self.out.to_client.append(toward_client(frame, l4, data, flow, False) if shift else frame)
        else:
            if not flags & ACK or not pace.may_pass(seq, (ack + flow.offset) & MASK, (seq + end - data) & MASK):
                return False
            if not shift:
                flow.last_client = (frame[:data], l4)
            self.out.to_guest.append(toward_guest(frame, l4, data, flags, flow) if shift else frame)
        if shift:
            self.counters["rewritten"] += 1
        return True

    def _slow(self, frame: bytes, now: float, *, outward: bool) -> None:
        """Handle any frame, by dissection."""
        if len(frame) < MIN_FRAME:
            self.counters["dropped.runt"] += 1
            return
        packet = dissect(frame)
        if packet.proto == PROTO_TCP and packet.kind in (Kind.IP, Kind.FRAGMENT):
            if self._has_tcp_header(packet):
                seg = segment(frame, packet.l4, packet.end)
                if seg is not None:
                    arrival = Arrival(frame, packet.key[1:], packet.l4, seg, packet.kind == Kind.IP)
                    if outward:
                        self.tracker.from_guest(arrival, now)
                    else:
                        if seg.flags & SYN and self.neighbours is not None:
                            # The guest's answer to it is waited for.
                            self.neighbours.notice(frame)
                        self.tracker.from_client(arrival, now)
                    return
                self.counters["malformed"] += 1
        elif self.neighbours is not None and (packet.ethertype == ETH_ARP or packet.proto == PROTO_ICMPV6):
            if not outward:
                self.neighbours.learn(packet)
            else:
                if (reply := self.neighbours.answer(packet)) is not None:
                    self.counters["neighbour_answers"] += 1
                    self.out.to_guest.append(reply)
                if self.neighbours.unknown and len(frame) <= MAX_ASK:
                    self.asks.append(frame)
        elif packet.kind == Kind.MALFORMED:
            self.counters["malformed"] += 1
        (self.out.to_client if outward else self.out.to_guest).append(frame)

    def _has_tcp_header(self, packet: Packet) -> bool:
        """Does this packet hold a whole TCP header?

        The first fragment of a segment does. All changes are in the header, and the checksum is updated by the changes
        alone, so rewriting that fragment makes the reassembled segment right. Later fragments have no header, and a
        first one that is too short for it passes untouched.
        """
        if packet.kind == Kind.IP:
            return True
        self.counters["fragments"] += 1
        size = packet.end - packet.l4
        return not packet.frag_offset and size >= 20 and size >= (packet.frame[packet.l4 + 12] >> 4) * 4
