"""The secondary's half of a TCP stream: the reference that the primary's bytes are held against.

::

     segments   [ s0 ][ s1 ][ s2 ]   [ s3 ]          positions are unwrapped sequence numbers
                |            |        |
                history      committed (first byte not yet known to be equal on both sides)

Segments keep the received frame and an offset into it (no copying), are sorted and never overlap;
what arrives first wins. Those before `committed` are history: a retransmission by the primary is
checked against them for as long as they are kept (`colo_compare.history`).

`end` is where the last of them stops, so that nearly all frames are taken in without a look at other segments: with ten
thousand flows each of those is a miss in the processor's caches.
"""

from bisect import bisect_right
from typing import Final

from colo_compare.history import History, Segment, cost
from colo_proto.frame import Buffer

NONE: Final = -(1 << 61)
"""Before every position."""

FEW: Final = 8
"""Segments without bytes that a short list may have; a long one may have a fifth of them."""


def _start(segment: Segment) -> int:
    return segment.start


class Reference:
    """Bytes that the secondary produced, by position, with the place up to which they were confirmed."""

    __slots__ = ("end", "fin", "first", "many", "segments")

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.first = 0
        """Index of the first segment that reaches past `committed`."""
        self.many = FEW
        """`sweep` is called when so many segments are history."""
        self.end = NONE
        """Where the last segment stops, or did."""
        self.fin: int | None = None
        """Position of the secondary's FIN, when it has sent one."""

    def pending(self) -> int:
        """Number of segments past `committed`."""
        return len(self.segments) - self.first

    def insert(self, start: int, stop: int, buffer: bytes, offset: int) -> list[Segment]:
        """Add bytes; only holes are filled. Returns the segments that it became."""
        segments = self.segments
        if start >= self.end:
            one = Segment(start, stop, buffer, offset)
            segments.append(one)
            self.end = stop
            return [one]
        self.end = max(self.end, stop)
        added = []
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
            one = Segment(start, upto, buffer, offset)
            segments.insert(at, one)
            added.append(one)
            at += 1
            offset += upto - start
            start = upto
        return added

    def confirm(self, committed: int, history: History) -> tuple[int, int]:
        """Everything before `committed` was compared. Returns how many segments became history, and how much memory
        that gave back elsewhere.
        """
        segments, first = self.segments, self.first
        at, end, saved = first, len(segments), 0
        while at < end and segments[at].stop <= committed:
            saved += history.add(segments[at])
            at += 1
        self.first = at
        if at >= self.many:
            self.sweep()
        return at - first, saved

    def sweep(self) -> None:
        """Take out what history has forgotten. To cut a list at its front costs as much for one as for many, so it
        is done now and then.
        """
        segments, first = self.segments, self.first
        gone = 0
        while gone < first and not segments[gone].buffer:
            gone += 1
        if gone:
            del segments[:gone]
            self.first = first = first - gone
        self.many = first + (first >> 2) + FEW

    def forget(self, history: History) -> tuple[int, int]:
        """Drop all segments; returns how many were pending, and what it saved in memory."""
        segments, first = self.segments, self.first
        pending, saved = len(segments) - first, cost(segments[first:])
        for one in segments[:first]:
            saved += history.drop(one)
        segments.clear()
        self.first, self.many = 0, FEW
        self.end = NONE
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
            if not one.buffer:
                continue
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
