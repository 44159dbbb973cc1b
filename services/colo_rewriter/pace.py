"""A client that the secondary guest can believe, while the primary's frames do not wait for it (shadow mode).

Where every frame of the primary leaves at once, the client is ahead of the secondary: it acknowledges bytes that the
secondary has not sent yet, and sends what follows from them. A TCP drops a segment whose acknowledgement is of the
future, with its payload (RFC 9293 §3.10.7.4), and nobody sends it again. So the client's segments wait here::

    client  --->  [ held, in order ]  --->  guest    when it has sent what they acknowledge, and offers the window
                         |
                         +-- until then an ACK of what the guest has sent so far, for each piece that it sends

A guest that sends nothing more for `PATIENCE`, or for which too much waits, gets what waits with its acknowledgement
lowered to what it has sent: the payload gets through, and to hear of the rest is its own doing.
"""

from collections import Counter, OrderedDict
from struct import Struct
from typing import Final

from colo_proto.checksum import update16, update32
from colo_proto.frame import F_NEEDS_CSUM
from colo_proto.net.shorten import shorten
from colo_proto.net.tcp import ACK, ACK_AT, CSUM_AT, FIN, FLAGS_AT, PSH, RST, SEQ_AT, SYN, WINDOW_AT, Segment
from colo_proto.net.window import window_update
from colo_proto.seq import HALF, MASK
from colo_rewriter.flow import Arrival, Flow, Pace, State
from colo_rewriter.shift import toward_client

_U16: Final = Struct("!H")
_U32: Final = Struct("!I")

PATIENCE: Final = 3.0
"""Seconds without a byte from the guest after which it is taken for another one: compare's default timeout."""
FLOW_FRAMES: Final = 1024
FLOW_BYTES: Final = 4 << 20
MAX_BYTES: Final = 64 << 20
"""Bounds of what waits, for a connection and for all."""


def ahead(a: int, b: int) -> int:
    """By how much `a` is ahead of `b`, negative when it is behind."""
    return ((a - b + HALF) & MASK) - HALF


class Pacing:
    """What waits, of all connections."""

    def __init__(self, counters: Counter[str]) -> None:
        self.counters = counters
        self.on = False
        self.frames = self.bytes = 0
        self._since: OrderedDict[Flow, float] = OrderedDict()
        """Connections for which something waits, and since when the guest has sent nothing more."""

    # -- the client's segments --------------------------------------------------------------------

    def admit(self, flow: Flow, arrival: Arrival, now: float) -> list[Arrival]:
        """What may go to the guest now that this segment of the client has come, in order."""
        pace = self.of(flow)
        if not pace.queue and _fits(flow, pace, arrival):
            return [arrival]
        if pace.lax and not pace.queue:
            return [self._lower(flow, pace, arrival)]
        size = len(arrival.frame)
        if self._merge(pace, arrival):
            return []
        over = len(pace.queue) >= FLOW_FRAMES or pace.bytes + size > FLOW_BYTES or self.bytes + size > MAX_BYTES
        if not pace.queue:
            self._since[flow] = now
        pace.queue.append(arrival)
        pace.bytes += size
        self.frames += 1
        self.bytes += size
        self.counters["held_ahead"] += 1
        if over:
            self.counters["hold_overflows"] += 1
            return self._all(flow, pace)
        return self.ready(flow, now)

    def _merge(self, pace: Pace, arrival: Arrival) -> bool:
        """Of pure ACKs that wait one behind the other, the last is enough."""
        if not pace.queue or not _pure(arrival):
            return False
        last = pace.queue[-1]
        if not _pure(last) or last.segment.seq != arrival.segment.seq:
            return False
        if ahead(arrival.segment.ack, last.segment.ack) >= 0:
            pace.queue[-1] = arrival
            pace.bytes += len(arrival.frame) - len(last.frame)
            self.bytes += len(arrival.frame) - len(last.frame)
        self.counters["dropped.merged_ack"] += 1
        return True

    # -- the guest's progress ---------------------------------------------------------------------

    def of(self, flow: Flow) -> Pace:
        """The flow's pace, begun where its guest's last segment ended."""
        pace = flow.pace
        if pace is None:
            sent = una = edge = 0
            if flow.last is not None:
                header, l4, length = flow.last
                flags = header[l4 + FLAGS_AT]
                sent = _U32.unpack_from(header, l4 + SEQ_AT)[0] + length + (flags & FIN) + (flags >> 1 & 1)
                window = _U16.unpack_from(header, l4 + WINDOW_AT)[0]
                una = _U32.unpack_from(header, l4 + ACK_AT)[0] if flags & ACK else (flow.client_isn or 0) + 1
                edge = una + (window if flags & SYN else window << scale(flow))
            flow.pace = pace = Pace(sent & MASK, una & MASK, edge & MASK)
        return pace

    def free(self, flow: Flow) -> Pace:
        """The pace of a guest that became the primary's copy: nothing waits for it any more."""
        flow.pace = None
        pace = self.of(flow)
        far = 1 << 30
        return Pace((pace.sent + far) & MASK, pace.una, (pace.edge + far) & MASK)

    def heard(self, flow: Flow, seg: Segment) -> None:
        """A segment of the guest has passed."""
        if seg.flags & RST:
            return
        window = seg.window if seg.flags & SYN else seg.window << scale(flow)
        self.of(flow).heard(seg.seq, (seg.seq + seg.length) & MASK, seg.ack, window, bool(seg.flags & ACK))

    def ready(self, flow: Flow, now: float) -> list[Arrival]:
        """What may go to the guest now that it has sent more, in order."""
        pace = flow.pace
        if pace is None:
            return []
        found: list[Arrival] = []
        queue = pace.queue
        while queue and _fits(flow, pace, queue[0]):
            found.append(self._pop(pace))
        if queue:
            self._bring_forward(pace)
            if _fits(flow, pace, queue[0]):
                found.append(self._pop(pace))
            elif (room := _room(flow, pace, queue[0])) > 0:
                found.append(self._piece(pace, room))
        rest = queue[0] if queue else pace.rest
        if rest is not None:
            away = ahead((rest.segment.ack + flow.offset) & MASK, pace.sent)
            if not queue and away <= 0:
                found.append(self._made(flow, rest, rest.segment.ack, rest.segment.seq))
                pace.rest, pace.lax = None, False
            elif rest.segment.flags & ACK and away > 0 and (pace.lost or ahead(pace.sent, pace.acked) > 0):
                found.append(self._made(flow, rest, (pace.sent - flow.offset) & MASK, rest.segment.seq))
            pace.lost = False
        if found:
            last = found[-1].segment
            if last.flags & ACK:
                pace.acked = (last.ack + flow.offset) & MASK
        if not queue:
            self._since.pop(flow, None)
        elif found:
            self._since[flow] = now
            self._since.move_to_end(flow)
        return found

    def parting(self, flow: Flow) -> list[bytearray]:
        """What tells compare that the client has reset the connection: a segment of the guest with FIN and RST, as no
        guest sends it. What the one guest had sent by then and the other not, is no difference.
        """
        if flow.last is None or flow.state is State.CLOSED:
            return []
        header, l4, _ = flow.last
        pace = self.of(flow)
        frame = bytearray(window_update(header, l4, len(header), pace.sent, pace.una, 0))
        frame[l4 + FLAGS_AT] = FIN | RST | ACK
        csum = update16(_U16.unpack_from(frame, l4 + CSUM_AT)[0], ACK, FIN | RST | ACK)
        _U16.pack_into(frame, l4 + CSUM_AT, csum)
        self.counters["resets_told"] += 1
        return [toward_client(bytes(frame), l4, len(frame), flow, False)]

    # -- what waits too long ----------------------------------------------------------------------

    def overdue(self, now: float) -> list[Flow]:
        """Connections whose guest has sent nothing more for too long."""
        late = []
        for flow, since in self._since.items():
            if since + PATIENCE > now:
                break
            late.append(flow)
        return late

    def deadline(self) -> float | None:
        """When the first one is overdue."""
        if not self._since:
            return None
        return next(iter(self._since.values())) + PATIENCE

    def busy(self) -> list[Flow]:
        """All connections for which something waits."""
        return list(self._since)

    def flush(self, flow: Flow) -> list[Arrival]:
        """All that waits, its acknowledgements lowered to what the guest has sent."""
        pace = flow.pace
        return [] if pace is None or not pace.queue else self._all(flow, pace)

    def _all(self, flow: Flow, pace: Pace) -> list[Arrival]:
        self._since.pop(flow, None)
        pace.lax = True
        found = []
        while pace.queue:
            arrival = self._pop(pace)
            found.append(self._lower(flow, pace, arrival))
        if pace.rest is None:
            pace.lax = False
        self.counters["held_passed"] += len(found)
        return found

    def _pop(self, pace: Pace) -> Arrival:
        arrival = pace.queue.popleft()
        pace.bytes -= len(arrival.frame)
        self.frames -= 1
        self.bytes -= len(arrival.frame)
        return arrival

    # -- frames -----------------------------------------------------------------------------------

    def _lower(self, flow: Flow, pace: Pace, arrival: Arrival) -> Arrival:
        """The segment with its acknowledgement lowered to what the guest has sent; the rest is kept in mind."""
        frame, l4, seg = arrival.frame, arrival.l4, arrival.segment
        ack = (pace.sent - flow.offset) & MASK
        if not seg.flags & ACK or ahead(seg.ack, ack) <= 0:
            return arrival
        if not seg.flags & RST:
            after = seg._replace(seq=(seg.seq + seg.length) & MASK)
            pace.rest = Arrival(frame[: seg.data], arrival.key, l4, after, True)
        pace.acked = pace.sent
        self.counters["acks_lowered"] += 1
        return _lowered(arrival, ack, _raised(flow, seg, ack))

    def _bring_forward(self, pace: Pace) -> None:
        """A retransmission of the next byte that the guest expects goes before what lies behind that byte."""
        head = pace.queue[0].segment
        if head.data == head.end or ahead(head.seq, pace.una) <= 0:
            return
        for at, one in enumerate(pace.queue):
            seg = one.segment
            size = seg.end - seg.data
            if size and one.whole and ahead(seg.seq, pace.una) <= 0 < ahead((seg.seq + size) & MASK, pace.una):
                del pace.queue[at]
                # The client had sent these bytes before it knew what it acknowledges with them now.
                if ahead(seg.ack, head.ack) > 0:
                    one = _lowered(one, head.ack, seg.window)  # noqa: PLW2901
                pace.queue.appendleft(one)
                return

    def _piece(self, pace: Pace, room: int) -> Arrival:
        """The first bytes of what waits longest, for which the guest has room."""
        head = pace.queue[0]
        frame, l4, seg = head.frame, head.l4, head.segment
        first = shorten(frame, l4, seg.data, seg.end, room)
        rest = shorten(frame, l4, seg.data, seg.end, seg.end - seg.data, room)
        after = seg._replace(seq=(seg.seq + room) & MASK, end=seg.end - room)
        pace.queue[0] = Arrival(rest, head.key, l4, after, True)
        pace.bytes += len(rest) - len(frame)
        self.bytes += len(rest) - len(frame)
        self.counters["pieces_made"] += 1
        flags = seg.flags & ~(FIN | PSH)
        return Arrival(first, head.key, l4, seg._replace(flags=flags, end=seg.data + room), True)

    def _made(self, flow: Flow, head: Arrival, ack: int, seq: int) -> Arrival:
        """A pure ACK of `ack`, in the words of a segment that waits."""
        seg = head.segment
        window = _raised(flow, seg, ack)
        blocks = _blocks(flow) if flow.pace is not None and flow.pace.gaps else b""
        frame = window_update(head.frame, head.l4, seg.data, seq, ack, window, blocks)
        self.counters["acks_made"] += 1
        return Arrival(frame, head.key, head.l4, Segment(seq, ack, ACK, window, len(frame), len(frame)), True)


def scale(flow: Flow) -> int:
    """By how much the guest's windows are shifted."""
    return max(flow.guest_scale, 0) if flow.client_scale >= 0 else 0


def _raised(flow: Flow, seg: Segment, ack: int) -> int:
    """The window field that, with the smaller `ack`, has the right edge of the segment's own."""
    shift = max(flow.client_scale, 0) if flow.guest_scale >= 0 else 0
    away = max(ahead(seg.ack, ack), 0)
    if seg.flags & RST:
        return min(0xFFFF, (away >> shift) + 1)
    return min(0xFFFF, seg.window + (away >> shift))


def _lowered(arrival: Arrival, ack: int, window: int) -> Arrival:
    """The segment with another acknowledgement and window."""
    l4, seg = arrival.l4, arrival.segment
    out = bytearray(arrival.frame)
    _U32.pack_into(out, l4 + ACK_AT, ack)
    _U16.pack_into(out, l4 + WINDOW_AT, window)
    if not out[0] & F_NEEDS_CSUM:
        csum: int = _U16.unpack_from(out, l4 + CSUM_AT)[0]
        _U16.pack_into(out, l4 + CSUM_AT, update16(update32(csum, seg.ack, ack), seg.window, window))
    return Arrival(bytes(out), arrival.key, l4, seg._replace(ack=ack, window=window), arrival.whole)


def _blocks(flow: Flow) -> bytes:
    """SACK blocks (RFC 2018) for what the guest sent behind a hole, the newest first: it fills the hole at once."""
    pace = flow.pace
    if pace is None or not flow.sacks:
        return b""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(pace.gaps, key=lambda gap: ahead(gap[0], pace.sent)):
        if merged and ahead(start, merged[-1][1]) <= 0:
            merged[-1] = (merged[-1][0], stop if ahead(stop, merged[-1][1]) > 0 else merged[-1][1])
        else:
            merged.append((start, stop))
    last = pace.gaps[-1][0]
    merged.sort(key=lambda gap: not ahead(gap[0], last) <= 0 < ahead(gap[1], last))
    edges = [(edge - flow.offset) & MASK for gap in merged[:3] for edge in gap]
    return bytes((1, 1, 5, 2 + 4 * len(edges))) + b"".join(edge.to_bytes(4, "big") for edge in edges)


def _pure(arrival: Arrival) -> bool:
    seg = arrival.segment
    return seg.flags & (ACK | SYN | FIN | RST) == ACK and seg.data == seg.end


def _fits(flow: Flow, pace: Pace, arrival: Arrival) -> bool:
    """Would the guest believe this segment, and has it room for it?"""
    seg = arrival.segment
    if seg.flags & ACK and ahead((seg.ack + flow.offset) & MASK, pace.sent) > 0:
        return False
    size = seg.end - seg.data
    return not size or not arrival.whole or ahead((seg.seq + size) & MASK, pace.edge) <= 0


def _room(flow: Flow, pace: Pace, arrival: Arrival) -> int:
    """For how many of the segment's bytes the guest has room, when it has acknowledged all before them."""
    seg = arrival.segment
    if seg.seq != pace.una or (seg.flags & ACK and ahead((seg.ack + flow.offset) & MASK, pace.sent) > 0):
        return 0
    return min(max(ahead(pace.edge, seg.seq), 0), seg.end - seg.data - 1)
