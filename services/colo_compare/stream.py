"""The secondary's half of a TCP stream: the reference that the primary's bytes are held against.

::

     segments   [ s0 ][ s1 ][ s2 ]   [ s3 ]          positions are unwrapped sequence numbers
                |            |        |
                history      committed (first byte not yet known to be equal on both sides)

`begin` and `end` are the outer ends of what is kept, so that nearly all frames are taken in without a look at
other segments: with ten thousand flows each of those is a miss in the processor's caches.

Segments keep the received frame and an offset into it (no copying), are sorted and never overlap;
what arrives first wins. Those before `committed` are history: a retransmission by the primary is
checked against them for as long as they are kept.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from colo_proto.compiled import mypyc_attr
from colo_proto.frame import Buffer

SEGMENT_COST: Final = 256
"""Bytes of memory that a kept frame takes beside its own."""

NONE: Final = -(1 << 61)
"""Before every position."""

STRIDE: Final = 256
"""History is trimmed when it has this many segments: to cut a list at its front costs as much for one as for many."""


@mypyc_attr(acyclic=True)
class Segment:
    """Bytes `start` to `stop` of the stream, in `buffer` from `offset`."""

    __slots__ = ("buffer", "offset", "start", "stop")

    def __init__(self, start: int, stop: int, buffer: bytes, offset: int) -> None:
        self.start = start
        self.stop = stop
        self.buffer = buffer
        self.offset = offset


def _start(segment: Segment) -> int:
    return segment.start


def cost(segments: Iterable[Segment]) -> int:
    """Memory that segments take. Pieces of one frame count it once each: rather too much than too little."""
    return sum(len(segment.buffer) + SEGMENT_COST for segment in segments)


class Reference:
    """Bytes that the secondary produced, by position, with the place up to which they were confirmed."""

    __slots__ = ("begin", "end", "fin", "first", "segments")

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.first = 0
        """Index of the first segment that reaches past `committed`."""
        self.begin = NONE
        """Where the first segment starts; of no meaning without segments."""
        self.end = NONE
        """Where the last segment stops, or did."""
        self.fin: int | None = None
        """Position of the secondary's FIN, when it has sent one."""

    def pending(self) -> int:
        """Number of segments past `committed`."""
        return len(self.segments) - self.first

    def insert(self, start: int, stop: int, buffer: bytes, offset: int) -> int:
        """Add bytes; only holes are filled. Returns the number of segments that it became."""
        segments = self.segments
        if not segments or start < self.begin:
            self.begin = start
        if start >= self.end:
            segments.append(Segment(start, stop, buffer, offset))
            self.end = stop
            return 1
        self.end = max(self.end, stop)
        added = 0
        at = max(bisect_right(segments, start, key=_start) - 1, 0)
        while start < stop:
            if at < len(segments):
                lo, hi = segments[at].start, segments[at].stop
                if hi <= start:
                    at += 1
                    continue
                if lo <= start:
                    offset += hi - start
                    start = hi
                    at += 1
                    continue
                upto = min(stop, lo)
            else:
                upto = stop
            segments.insert(at, Segment(start, upto, buffer, offset))
            added += 1
            at += 1
            offset += upto - start
            start = upto
        return added

    def confirm(self, committed: int, history: int) -> tuple[int, int]:
        """Everything before `committed` was compared. Returns how many segments became history, and what it saved
        in memory to cut what is longer than twice `history` bytes.
        """
        segments, first = self.segments, self.first
        end = len(segments)
        at = first
        while at < end and segments[at].stop <= committed:
            at += 1
        self.first = at
        if at > STRIDE or (at > 1 and committed - self.begin > 2 * history):
            return at - first, self.trim(committed, history)
        return at - first, 0

    def trim(self, committed: int, history: int) -> int:
        """Forget history beyond `history` bytes and `STRIDE / 2` segments. Returns what it saved in memory."""
        segments = self.segments
        floor = committed - history
        # A flow of tiny segments may not keep thousands of frames alive.
        least = self.first - STRIDE // 2
        drop = saved = 0
        # A plain loop: with many flows this runs every few segments, and compiled a generator costs several times that.
        while drop < self.first:
            one = segments[drop]
            if drop >= least and one.start >= floor:
                break
            saved += len(one.buffer) + SEGMENT_COST
            drop += 1
        if not drop:
            return 0
        del segments[:drop]
        self.first -= drop
        if segments:
            self.begin = segments[0].start
        return saved

    def history(self) -> int:
        """Bytes kept behind `committed`."""
        return sum(s.stop - s.start for s in self.segments[: self.first])

    def forget(self) -> tuple[int, int]:
        """Drop all segments; returns how many were pending, and what it saved in memory."""
        pending, saved = self.pending(), cost(self.segments)
        self.segments.clear()
        self.first = 0
        self.begin = self.end = NONE
        return pending, saved

    def find(self, position: int) -> int:
        """Index of the segment that holds `position`, or of the first one after it."""
        at = bisect_right(self.segments, position, key=_start) - 1
        if at >= 0 and self.segments[at].stop > position:
            return at
        return at + 1

    def slice(self, start: int, stop: int) -> tuple[bytes, int]:
        """Contiguous bytes within `[start, stop)` around what is kept, and where they begin."""
        parts: list[bytes] = []
        begin = position = start
        for one in self.segments[self.find(start) :]:
            lo, hi = one.start, one.stop
            if lo > position:
                if parts:
                    break
                begin = position = lo
            if position >= stop:
                break
            upto = min(hi, stop)
            parts.append(one.buffer[one.offset + position - lo : one.offset + upto - lo])
            position = upto
        return b"".join(parts), begin


def first_difference(a: Buffer, b: Buffer) -> int:
    """Index of the first byte in which two unequal buffers differ (the shorter's length if none does)."""
    lo, hi = 0, min(len(a), len(b))
    while lo < hi:
        mid = (lo + hi) // 2
        if a[lo : mid + 1] == b[lo : mid + 1]:
            lo = mid + 1
        else:
            hi = mid
    return lo
