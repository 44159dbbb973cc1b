"""What was found equal last, of all connections together: retransmissions of the primary are held against it.

::

    ring   .  .  [segment] [segment] [segment] ... [segment]  .  .       each still in the list of its connection, too
                  oldest: the next to go             newest

First in, first out, whichever connection a segment belongs to, for what is sent again was sent a moment ago. And what
leaves was here a moment ago: the memory of the next frame is still in the processor's caches, however many connections
there are. (With a share for each of ten thousand, every frame is written where nobody has been for long, which costs
compare a fifth of its pairs a second.)

A segment that leaves loses its bytes; its connection takes it out of the list when it comes by (`Reference.sweep`).
"""

from collections.abc import Iterable
from typing import Final

from colo_proto.compiled import mypyc_attr

SEGMENT_COST: Final = 256
"""Bytes of memory that a kept frame takes beside its own."""

HISTORY_BYTES: Final = 1 << 20
"""Bytes that history takes at most, frames with `SEGMENT_COST` each: a processor's caches hold about as much."""

SLOTS: Final = 1024
"""Segments that it has at most: a power of two."""


@mypyc_attr(acyclic=True)
class Segment:
    """Bytes `start` to `stop` of a stream, in `buffer` from `offset`; no buffer once they are forgotten."""

    __slots__ = ("buffer", "offset", "start", "stop")

    def __init__(self, start: int, stop: int, buffer: bytes, offset: int) -> None:
        self.start = start
        self.stop = stop
        self.buffer = buffer
        self.offset = offset


def cost(segments: Iterable[Segment]) -> int:
    """Memory that segments take. Pieces of one frame count it once each: rather too much than too little."""
    return sum(len(segment.buffer) + SEGMENT_COST for segment in segments if segment.buffer)


class History:
    """At most `limit` bytes. Methods say how many they gave back."""

    __slots__ = ("_newest", "_oldest", "_ring", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._ring = [Segment(0, 0, b"", 0)] * SLOTS
        self._oldest = self._newest = 0
        """Places of the oldest segment, and of the next one to come."""

    def add(self, segment: Segment) -> int:
        """`segment` was found equal."""
        newest = self._newest
        self._ring[newest] = segment
        self._newest = newest = (newest + 1) & (SLOTS - 1)
        self.size = size = self.size + len(segment.buffer) + SEGMENT_COST
        return self._shorten() if size > self.limit or newest == self._oldest else 0

    def _shorten(self) -> int:
        """An eighth goes at once: this is on the way of every segment."""
        ring, oldest = self._ring, self._oldest
        more = SLOTS // 8 if oldest == self._newest else 0
        excess, saved = self.size - self.limit * 7 // 8, 0
        while saved < excess or more > 0:
            one = ring[oldest]
            oldest = (oldest + 1) & (SLOTS - 1)
            more -= 1
            size = len(one.buffer)
            if size:
                saved += size + SEGMENT_COST
                one.buffer = b""
        self._oldest = oldest
        self.size -= saved
        return saved

    def drop(self, segment: Segment) -> int:
        """Forget `segment`, if that has not happened before; its place in the ring comes free in its turn."""
        if not segment.buffer:
            return 0
        saved = len(segment.buffer) + SEGMENT_COST
        segment.buffer = b""
        self.size -= saved
        return saved

    def clear(self) -> int:
        """Forget everything."""
        saved = 0
        while self._oldest != self._newest:
            saved += self.drop(self._ring[self._oldest])
            self._oldest = (self._oldest + 1) & (SLOTS - 1)
        return saved
