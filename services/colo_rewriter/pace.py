"""Holds a client's segments until the secondary guest can accept them, in shadow mode.

Where the primary's frames leave at once, the client is ahead of the secondary: it acknowledges bytes that the secondary
has not sent yet, and sends what follows from them. A TCP drops a segment whose acknowledgement lies in the future, with
its payload (RFC 9293 §3.10.7.4), and nobody sends it again. So the client's segments wait here::

    client  --->  [ held, in order ]  --->  guest    when it has sent what they acknowledge, and its window allows it
                         |
                         +-- until then an ACK of what the guest has sent so far, for each piece that it sends

If the guest sends nothing more for `PROGRESS_TIMEOUT`, or if too much waits for it, then the held segments go with
their acknowledgement lowered to what the guest has sent, as far as its window allows. So it gets the payload, and a
guest that has stopped is its own problem. If its window allows nothing, the segment that comes next is dropped. The
client has its acknowledgement from the primary and never sends that segment again. When the guest has come that far,
compare is told that this connection can be judged no more.
"""

from collections import Counter
from typing import Final

from colo_proto.net.shorten import shorten
from colo_proto.net.stamp import tsval
from colo_proto.net.tcp import ACK, FIN, PSH, RST, Segment
from colo_proto.net.window import window_update
from colo_proto.seq import MASK, diff
from colo_rewriter import segments
from colo_rewriter.flow import Arrival, Flow, Frames, Pace, State
from colo_rewriter.shift import toward_client
from colo_rewriter.timer import Timer

PROGRESS_TIMEOUT: Final = 3.0
"""Seconds without a byte from the guest after which nothing waits for it any more: compare's default timeout."""
FLOW_FRAMES: Final = 4096
FLOW_BYTES: Final = 32 << 20
MAX_BYTES: Final = 64 << 20
"""Bounds of what waits, for a connection and for all."""
FAR: Final = 1 << 30
"""Further than any window: what is this far ahead of the client holds nothing up."""


class Pacing:
    """What waits, of all connections."""

    def __init__(self, counters: Counter[str]) -> None:
        self.counters = counters
        self.on = False
        self.frames = self.bytes = 0
        self.timer = Timer(PROGRESS_TIMEOUT)
        """Connections for which something waits, and since when the guest has sent nothing more."""

    # -- the client's segments --------------------------------------------------------------------

    def admit(self, flow: Flow, arrival: Arrival, now: float) -> list[Arrival]:
        """What may go to the guest now that this segment of the client has come, in order."""
        pace = self.of(flow)
        queue = pace.queue
        if not queue and not _acks_too_much(flow, pace, arrival.segment) and _in_window(pace, arrival):
            return [arrival]
        if pace.overrun_noted or (pace.lowering and not queue and _in_window(pace, arrival)):
            return [self._lower(flow, pace, arrival)]
        if queue and (kept := segments.merged_ack(queue[-1], arrival)) is not None:
            self._take(pace, -1)
            self._put(pace, kept)
            self.counters["dropped.merged_ack"] += 1
            return []
        if pace.dropped_at >= 0 and _behind_drop(pace, arrival):
            self.counters["dropped.overrun"] += 1
            return []
        size = len(arrival.frame)
        full = len(queue) >= FLOW_FRAMES or pace.bytes + size > FLOW_BYTES or self.bytes + size > MAX_BYTES
        if not queue:
            self.timer.start(flow, now)
        self._put(pace, arrival)
        self.counters["held_ahead"] += 1
        return self._overflow(flow, pace) if full else self.ready(flow, now)

    def _overflow(self, flow: Flow, pace: Pace) -> list[Arrival]:
        """Too much waits: what the guest's window allows goes; if that is nothing, the newest segment is dropped."""
        self.counters["hold_overflows"] += 1
        found = self._lower_in_window(flow, pace)
        if not found:
            dropped = self._take(pace, -1)
            if dropped.segment.flags & RST and pace.queue:
                # A guest that does not hear of the reset would go on alone.
                reset, dropped = dropped, self._take(pace, -1)
                self._put(pace, reset)
            if not segments.is_pure_ack(dropped) and not any(_covers(one, dropped.segment.seq) for one in pace.queue):
                pace.dropped_at = dropped.segment.seq
            self.counters["dropped.overrun"] += 1
        if not pace.queue:
            self._emptied(flow, pace)
        return found

    def _emptied(self, flow: Flow, pace: Pace) -> None:
        self.timer.stop(flow)
        pace.lowering = pace.owed is not None

    # -- the guest's progress ---------------------------------------------------------------------

    def of(self, flow: Flow) -> Pace:
        """The flow's pace; a new one begins where its guest's last segment ended."""
        pace = flow.pace
        if pace is None:
            snd_nxt = rcv_nxt = edge = 0
            last = flow.last_segment()
            if last is not None:
                snd_nxt = last.seq + last.length
                rcv_nxt = last.ack if last.flags & ACK else (flow.client_isn or 0) + 1
                edge = rcv_nxt + segments.offered_window(flow, last)
            flow.pace = pace = Pace(snd_nxt & MASK, rcv_nxt & MASK, edge & MASK)
        return pace

    def caught_up(self, flow: Flow) -> Pace:
        """The pace of a guest that became the primary's copy: nothing waits for it any more."""
        flow.pace = None
        pace = self.of(flow)
        return Pace((pace.snd_nxt + FAR) & MASK, pace.rcv_nxt, (pace.rcv_edge + FAR) & MASK)

    def heard(self, flow: Flow, seg: Segment) -> None:
        """Note that a segment of the guest has passed."""
        if not seg.flags & RST:
            after, window = (seg.seq + seg.length) & MASK, segments.offered_window(flow, seg)
            self.of(flow).heard(seg.seq, after, seg.ack, window, bool(seg.flags & ACK))

    def ready(self, flow: Flow, now: float) -> list[Arrival]:
        """What may go to the guest now that it has sent more, in order."""
        pace = flow.pace
        if pace is None:
            return []
        found: list[Arrival] = []
        queue = pace.queue
        while queue and _may_go(flow, pace, queue[0]):
            found.append(self._lower(flow, pace, self._take(pace)))
        if queue:
            self._bring_forward(pace)
            if _may_go(flow, pace, queue[0]):
                found.append(self._lower(flow, pace, self._take(pace)))
            elif (allowed := _bytes_in_window(flow, pace, queue[0])) > 0:
                found.append(self._lower(flow, pace, self._cut(pace, allowed)))
        found += self._acks_due(flow, pace)
        if found and found[-1].segment.flags & ACK:
            pace.snd_una = (found[-1].segment.ack + flow.offset) & MASK
        if not queue:
            self.timer.stop(flow)
        elif found:
            self.timer.start(flow, now)
        return found

    def _acks_due(self, flow: Flow, pace: Pace) -> list[Arrival]:
        """An ACK that the guest needs in order to go on, while the client's own waits or was lowered."""
        source = pace.queue[0] if pace.queue else pace.owed
        if source is None:
            return []
        found = []
        seg = source.segment
        missing = diff(seg.ack + flow.offset, pace.snd_nxt)
        if not pace.queue and missing <= 0:
            found.append(self._make_ack(flow, source, seg.ack))
            pace.owed, pace.lowering = None, False
        elif seg.flags & ACK and missing > 0 and (pace.gap_grew or diff(pace.snd_nxt, pace.snd_una) > 0):
            found.append(self._make_ack(flow, source, (pace.snd_nxt - flow.offset) & MASK))
        pace.gap_grew = False
        return found

    # -- notes to compare -------------------------------------------------------------------------

    def reset_note(self, flow: Flow) -> Frames:
        """What tells compare that the client has reset the connection: a segment of the guest with FIN and RST, as no
        guest sends it. That one guest had sent more by then than the other is no difference.
        """
        return [] if flow.state is State.CLOSED else self._note(flow, FIN | RST | ACK, "resets_told")

    def overrun_note(self, flow: Flow) -> Frames:
        """What tells compare that the guest cannot follow any more, because not everything of its client got through:
        the same with PSH.
        """
        return self._note(flow, FIN | RST | PSH | ACK, "overruns_told")

    def _note(self, flow: Flow, flags: int, counter: str) -> Frames:
        if flow.last_guest is None:
            return []
        header, l4, _ = flow.last_guest
        pace = self.of(flow)
        frame = window_update(header, l4, len(header), pace.snd_nxt, pace.rcv_nxt, 0, flags=flags)
        self.counters[counter] += 1
        return [toward_client(frame, l4, len(frame), flow, False)]

    # -- what waits too long ----------------------------------------------------------------------

    def lower_overdue(self, flow: Flow, now: float) -> list[Arrival]:
        """What the guest's window allows of what has waited too long. From now on only the window is waited for."""
        pace = flow.pace
        if pace is None or not pace.queue:
            self.timer.stop(flow)
            return []
        pace.lowering = True
        found = self._lower_in_window(flow, pace)
        if pace.queue:
            self.timer.start(flow, now)
        else:
            self._emptied(flow, pace)
        return found

    def _lower_in_window(self, flow: Flow, pace: Pace) -> list[Arrival]:
        """What the guest's window allows, in order, with acknowledgements that it can accept."""
        found = []
        while pace.queue and _in_window(pace, pace.queue[0]):
            found.append(self._lower(flow, pace, self._take(pace)))
        self.counters["held_passed"] += len(found)
        return found

    def flush(self, flow: Flow) -> list[Arrival]:
        """Everything that waits, its acknowledgements lowered to what the guest has sent."""
        pace = flow.pace
        if pace is None or not pace.queue:
            return []
        found = [self._lower(flow, pace, self._take(pace)) for _ in range(len(pace.queue))]
        self._emptied(flow, pace)
        self.counters["held_passed"] += len(found)
        return found

    def _put(self, pace: Pace, arrival: Arrival) -> None:
        size = len(arrival.frame)
        pace.queue.append(arrival)
        pace.bytes += size
        self.frames += 1
        self.bytes += size

    def _take(self, pace: Pace, at: int = 0) -> Arrival:
        """The first of what waits, or the last (-1)."""
        arrival = pace.queue.pop() if at else pace.queue.popleft()
        size = len(arrival.frame)
        pace.bytes -= size
        self.frames -= 1
        self.bytes -= size
        return arrival

    # -- frames -----------------------------------------------------------------------------------

    def _lower(self, flow: Flow, pace: Pace, arrival: Arrival) -> Arrival:
        """The segment with its acknowledgement lowered to what the guest has sent; the full one is owed to it."""
        seg = arrival.segment
        ack = (pace.snd_nxt - flow.offset) & MASK
        if not seg.flags & ACK or diff(seg.ack, ack) <= 0:
            return arrival
        if not seg.flags & RST:
            after = seg._replace(seq=(seg.seq + seg.length) & MASK)
            pace.owed = Arrival(arrival.frame[: seg.data], arrival.key, arrival.l4, after, True)
        pace.snd_una = pace.snd_nxt
        self.counters["acks_lowered"] += 1
        return segments.with_ack(arrival, ack, segments.raised_window(flow, seg, ack))

    def _bring_forward(self, pace: Pace) -> None:
        """Put a retransmission of the next byte that the guest expects in front of what lies behind that byte.

        What it overtakes was sent before it: the timestamps of that must not be older, or the guest would drop it
        (PAWS, RFC 7323 §5).
        """
        queue = pace.queue
        head = queue[0].segment
        if head.data == head.end or diff(head.seq, pace.rcv_nxt) <= 0:
            return
        for at, again in enumerate(queue):
            seg = again.segment
            if again.whole and _covers(again, pace.rcv_nxt):
                stamp = tsval(again.frame, again.l4, seg.data)
                before = [queue.popleft() for _ in range(at)]
                del queue[0]
                queue.extendleft(segments.not_older_than(other, stamp) for other in reversed(before))
                # The client had sent these bytes before it knew what it acknowledges with them now.
                early = diff(seg.ack, head.ack) > 0
                queue.appendleft(segments.with_ack(again, head.ack, seg.window) if early else again)
                return

    def _cut(self, pace: Pace, size: int) -> Arrival:
        """The first `size` bytes of what waits longest; the rest goes on waiting."""
        head = pace.queue[0]
        frame, l4, seg = head.frame, head.l4, head.segment
        first = shorten(frame, l4, seg.data, seg.end, size)
        rest = shorten(frame, l4, seg.data, seg.end, seg.end - seg.data, size)
        after = seg._replace(seq=(seg.seq + size) & MASK, end=seg.end - size)
        pace.queue[0] = Arrival(rest, head.key, l4, after, True)
        pace.bytes += len(rest) - len(frame)
        self.bytes += len(rest) - len(frame)
        self.counters["pieces_made"] += 1
        flags = seg.flags & ~(FIN | PSH)
        return Arrival(first, head.key, l4, seg._replace(flags=flags, end=seg.data + size), True)

    def _make_ack(self, flow: Flow, source: Arrival, ack: int) -> Arrival:
        """A pure ACK of `ack` with the headers and sequence number of another segment of the client."""
        l4, seg = source.l4, source.segment
        window = segments.raised_window(flow, seg, ack)
        frame = window_update(source.frame, l4, seg.data, seg.seq, ack, window, segments.sack_blocks(flow))
        self.counters["acks_made"] += 1
        return Arrival(frame, source.key, l4, Segment(seg.seq, ack, ACK, window, len(frame), len(frame)), True)


def _acks_too_much(flow: Flow, pace: Pace, seg: Segment) -> bool:
    """Does the segment acknowledge what the guest has not sent yet?"""
    return bool(seg.flags & ACK) and diff(seg.ack + flow.offset, pace.snd_nxt) > 0


def _in_window(pace: Pace, arrival: Arrival) -> bool:
    """Does the guest's window allow all bytes of this segment?"""
    seg = arrival.segment
    size = seg.end - seg.data
    return not size or not arrival.whole or diff(seg.seq + size, pace.rcv_edge) <= 0


def _may_go(flow: Flow, pace: Pace, arrival: Arrival) -> bool:
    """May a segment that waits go, with a lowered acknowledgement if it has waited too long?"""
    return _in_window(pace, arrival) and (pace.lowering or not _acks_too_much(flow, pace, arrival.segment))


def _covers(arrival: Arrival, seq: int) -> bool:
    """Has this segment the byte at `seq`?"""
    seg = arrival.segment
    return diff(seg.seq, seq) <= 0 < diff(seg.seq + seg.end - seg.data, seq)


def _behind_drop(pace: Pace, arrival: Arrival) -> bool:
    """Is this segment of no use to a guest that never gets what was dropped?"""
    seg = arrival.segment
    return not (seg.flags & RST or segments.is_pure_ack(arrival)) and diff(seg.seq, pace.dropped_at) > 0


def _bytes_in_window(flow: Flow, pace: Pace, arrival: Arrival) -> int:
    """How many of the segment's bytes the guest's window allows, when it has acknowledged everything before them."""
    seg = arrival.segment
    if seg.seq != pace.rcv_nxt or (_acks_too_much(flow, pace, seg) and not pace.lowering):
        return 0
    return min(max(diff(pace.rcv_edge, seg.seq), 0), seg.end - seg.data - 1)
