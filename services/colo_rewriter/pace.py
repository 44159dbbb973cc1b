"""A client that the secondary guest can believe, while the primary's frames do not wait for it (shadow mode).

Where every frame of the primary leaves at once, the client is ahead of the secondary: it acknowledges bytes that the
secondary has not sent yet, and sends what follows from them. A TCP drops a segment whose acknowledgement is of the
future, with its payload (RFC 9293 §3.10.7.4), and nobody sends it again. So the client's segments wait here::

    client  --->  [ held, in order ]  --->  guest    when it has sent what they acknowledge, and offers the window
                         |
                         +-- until then an ACK of what the guest has sent so far, for each piece that it sends

A guest that sends nothing more for `PATIENCE`, or for which too much waits, gets what waits with its acknowledgement
lowered to what it has sent, as far as it has room: the payload gets through, and to hear of the rest is its own doing.
Where too much waits for room, what comes next is dropped. The client has its acknowledgement from the primary and sends
it to nobody again, so when the guest has come that far, compare is told that this connection can be judged no more.
"""

from collections import Counter, OrderedDict
from struct import Struct
from typing import Final

from colo_proto.checksum import update
from colo_proto.net.shorten import shorten
from colo_proto.net.stamp import tsval
from colo_proto.net.tcp import ACK, ACK_AT, CSUM_AT, FIN, FLAGS_AT, PSH, RST, SEQ_AT, SYN, WINDOW_AT, Segment
from colo_proto.net.window import window_update
from colo_proto.seq import MASK, diff
from colo_rewriter.believable import blocks, lowered, pure, raised, restamped, scale
from colo_rewriter.flow import Arrival, Flow, Pace, State
from colo_rewriter.shift import toward_client

_U16: Final = Struct("!H")
_U32: Final = Struct("!I")

PATIENCE: Final = 3.0
"""Seconds without a byte from the guest after which it is taken for another one: compare's default timeout."""
FLOW_FRAMES: Final = 4096
FLOW_BYTES: Final = 32 << 20
MAX_BYTES: Final = 64 << 20
"""Bounds of what waits, for a connection and for all."""


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
        if pace.told or (pace.lax and not pace.queue and _roomy(pace, arrival)):
            return [self._lower(flow, pace, arrival)]
        size = len(arrival.frame)
        if self._merge(pace, arrival):
            return []
        if pace.hole >= 0 and _beyond(pace, arrival):
            self.counters["dropped.overrun"] += 1
            return []
        over = len(pace.queue) >= FLOW_FRAMES or pace.bytes + size > FLOW_BYTES or self.bytes + size > MAX_BYTES
        if not pace.queue:
            self._since[flow] = now
        self._put(pace, arrival)
        self.counters["held_ahead"] += 1
        return self._overflow(flow, pace) if over else self.ready(flow, now)

    def _overflow(self, flow: Flow, pace: Pace) -> list[Arrival]:
        """Too much waits: what the guest has room for goes; where that is nothing, the newest segment is dropped."""
        self.counters["hold_overflows"] += 1
        found = self._lowered_all(flow, pace)
        if not found:
            lost = self._take(pace, -1)
            if lost.segment.flags & RST and pace.queue:
                # A guest that does not hear of it would go on alone.
                reset, lost = lost, self._take(pace, -1)
                self._put(pace, reset)
            if not pure(lost) and not any(_covers(one, lost.segment.seq) for one in pace.queue):
                pace.hole = lost.segment.seq
            self.counters["dropped.overrun"] += 1
        if not pace.queue:
            self._since.pop(flow, None)
            pace.lax = pace.rest is not None
        return found

    def _merge(self, pace: Pace, arrival: Arrival) -> bool:
        """Of pure ACKs that wait one behind the other, the last is enough."""
        if not pace.queue or not pure(arrival):
            return False
        last = pace.queue[-1]
        if not pure(last) or last.segment.seq != arrival.segment.seq:
            return False
        if diff(arrival.segment.ack, last.segment.ack) >= 0:
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
        while queue and self._may_go(flow, pace, queue[0]):
            found.append(self._lower(flow, pace, self._take(pace)))
        if queue:
            self._bring_forward(pace)
            if self._may_go(flow, pace, queue[0]):
                found.append(self._lower(flow, pace, self._take(pace)))
            elif (room := _room(flow, pace, queue[0])) > 0:
                found.append(self._lower(flow, pace, self._piece(pace, room)))
        rest = queue[0] if queue else pace.rest
        if rest is not None:
            away = diff((rest.segment.ack + flow.offset) & MASK, pace.sent)
            if not queue and away <= 0:
                found.append(self._made(flow, rest, rest.segment.ack, rest.segment.seq))
                pace.rest, pace.lax = None, False
            elif rest.segment.flags & ACK and away > 0 and (pace.lost or diff(pace.sent, pace.acked) > 0):
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
        if flow.state is State.CLOSED:
            return []
        return self._note(flow, FIN | RST | ACK, "resets_told")

    def overrun(self, flow: Flow) -> list[bytearray]:
        """What tells compare that the guest cannot follow any more, for not all of its client got through to it: the
        same with PSH.
        """
        return self._note(flow, FIN | RST | PSH | ACK, "overruns_told")

    def _note(self, flow: Flow, flags: int, counter: str) -> list[bytearray]:
        if flow.last is None:
            return []
        header, l4, _ = flow.last
        pace = self.of(flow)
        frame = bytearray(window_update(header, l4, len(header), pace.sent, pace.una, 0))
        frame[l4 + FLAGS_AT] = flags
        _U16.pack_into(frame, l4 + CSUM_AT, update(_U16.unpack_from(frame, l4 + CSUM_AT)[0], flags - ACK))
        self.counters[counter] += 1
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

    def relent(self, flow: Flow, now: float) -> list[Arrival]:
        """What the guest has room for, of what has waited for too long; from now on nothing waits but for room."""
        pace = flow.pace
        if pace is None or not pace.queue:
            self._since.pop(flow, None)
            return []
        pace.lax = True
        found = self._lowered_all(flow, pace)
        if pace.queue:
            self._since[flow] = now
            self._since.move_to_end(flow)
        else:
            self._since.pop(flow, None)
            pace.lax = pace.rest is not None
        return found

    def _lowered_all(self, flow: Flow, pace: Pace) -> list[Arrival]:
        """What the guest has room for, in order, with acknowledgements that it can believe."""
        found = []
        while pace.queue and _roomy(pace, pace.queue[0]):
            found.append(self._lower(flow, pace, self._take(pace)))
        self.counters["held_passed"] += len(found)
        return found

    def flush(self, flow: Flow) -> list[Arrival]:
        """All that waits, its acknowledgements lowered to what the guest has sent."""
        pace = flow.pace
        return [] if pace is None or not pace.queue else self._all(flow, pace)

    def _all(self, flow: Flow, pace: Pace) -> list[Arrival]:
        self._since.pop(flow, None)
        pace.lax = True
        found = []
        while pace.queue:
            found.append(self._lower(flow, pace, self._take(pace)))
        if pace.rest is None:
            pace.lax = False
        self.counters["held_passed"] += len(found)
        return found

    @staticmethod
    def _may_go(flow: Flow, pace: Pace, arrival: Arrival) -> bool:
        return _fits(flow, pace, arrival) or (pace.lax and _roomy(pace, arrival))

    def _put(self, pace: Pace, arrival: Arrival) -> None:
        pace.queue.append(arrival)
        size = len(arrival.frame)
        pace.bytes += size
        self.frames += 1
        self.bytes += size

    def _take(self, pace: Pace, at: int = 0) -> Arrival:
        """The first of what waits, or the last (-1)."""
        arrival = pace.queue.pop() if at else pace.queue.popleft()
        pace.bytes -= len(arrival.frame)
        self.frames -= 1
        self.bytes -= len(arrival.frame)
        return arrival

    # -- frames -----------------------------------------------------------------------------------

    def _lower(self, flow: Flow, pace: Pace, arrival: Arrival) -> Arrival:
        """The segment with its acknowledgement lowered to what the guest has sent; the rest is kept in mind."""
        frame, l4, seg = arrival.frame, arrival.l4, arrival.segment
        ack = (pace.sent - flow.offset) & MASK
        if not seg.flags & ACK or diff(seg.ack, ack) <= 0:
            return arrival
        if not seg.flags & RST:
            after = seg._replace(seq=(seg.seq + seg.length) & MASK)
            pace.rest = Arrival(frame[: seg.data], arrival.key, l4, after, True)
        pace.acked = pace.sent
        self.counters["acks_lowered"] += 1
        return lowered(arrival, ack, raised(flow, seg, ack))

    def _bring_forward(self, pace: Pace) -> None:
        """A retransmission of the next byte that the guest expects goes before what lies behind that byte.

        What it overtakes was sent before it: its timestamps must not be older, or the guest would drop it (PAWS, RFC
        7323 §5).
        """
        head = pace.queue[0].segment
        if head.data == head.end or diff(head.seq, pace.una) <= 0:
            return
        for at, one in enumerate(pace.queue):
            seg = one.segment
            if one.whole and _covers(one, pace.una):
                stamp = tsval(one.frame, one.l4, seg.data)
                before = [pace.queue.popleft() for _ in range(at)]
                del pace.queue[0]
                pace.queue.extendleft(restamped(other, stamp) for other in reversed(before))
                # The client had sent these bytes before it knew what it acknowledges with them now.
                if diff(seg.ack, head.ack) > 0:
                    one = lowered(one, head.ack, seg.window)  # noqa: PLW2901
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
        window = raised(flow, seg, ack)
        sacks = blocks(flow) if flow.pace is not None and flow.pace.gaps else b""
        frame = window_update(head.frame, head.l4, seg.data, seq, ack, window, sacks)
        self.counters["acks_made"] += 1
        return Arrival(frame, head.key, head.l4, Segment(seq, ack, ACK, window, len(frame), len(frame)), True)


def _fits(flow: Flow, pace: Pace, arrival: Arrival) -> bool:
    """Would the guest believe this segment, and has it room for it?"""
    seg = arrival.segment
    if seg.flags & ACK and diff((seg.ack + flow.offset) & MASK, pace.sent) > 0:
        return False
    return _roomy(pace, arrival)


def _roomy(pace: Pace, arrival: Arrival) -> bool:
    """Does the guest have room for this segment?"""
    seg = arrival.segment
    size = seg.end - seg.data
    return not size or not arrival.whole or diff((seg.seq + size) & MASK, pace.edge) <= 0


def _covers(arrival: Arrival, seq: int) -> bool:
    """Has this segment the byte at `seq`?"""
    seg = arrival.segment
    return diff(seg.seq, seq) <= 0 < diff((seg.seq + seg.end - seg.data) & MASK, seq)


def _beyond(pace: Pace, arrival: Arrival) -> bool:
    """Is this segment of no use to a guest that does not get what was dropped?"""
    seg = arrival.segment
    return not (seg.flags & RST or pure(arrival)) and diff(seg.seq, pace.hole) > 0


def _room(flow: Flow, pace: Pace, arrival: Arrival) -> int:
    """For how many of the segment's bytes the guest has room, when it has acknowledged all before them."""
    seg = arrival.segment
    early = seg.flags & ACK and diff((seg.ack + flow.offset) & MASK, pace.sent) > 0
    if seg.seq != pace.una or (early and not pace.lax):
        return 0
    return min(max(diff(pace.edge, seg.seq), 0), seg.end - seg.data - 1)
