"""Bytes of the secondary that were found equal last, of all connections together.

Retransmissions of the primary are compared with them::

    ring   .  .  [piece] [piece] [piece] ... [piece]  .  .       each piece is still in the list of its connection, too
                  oldest: the next to go      newest

The history is first in, first out over all connections, because what is sent again was sent a moment ago. It also keeps
the working set small: the memory that a piece frees was used a moment ago, so it is still in the processor's caches
when the next frame is written there, however many connections there are. (With a separate share for each of ten
thousand connections compare handled a fifth fewer pairs a second.)

A piece that leaves loses its bytes; `Reference.sweep` takes it out of its connection's list later.
"""

from collections.abc import Iterable
from typing import Final

from colo_proto.compiled import mypyc_attr

PIECE_COST: Final = 256
"""Bytes of memory that a kept frame takes beside its own."""

HISTORY_BYTES: Final = 1 << 20
"""Bound on the memory of the history, with `PIECE_COST` for each frame: about what a processor's caches hold."""

RING_SIZE: Final = 1024
"""Bound on the pieces of the history: a power of two."""


@mypyc_attr(acyclic=True)
class Piece:
    """Bytes `start` to `stop` of the secondary's stream, in `buffer` from `offset`; no buffer once forgotten."""

    __slots__ = ("buffer", "offset", "start", "stop")

    def __init__(self, start: int, stop: int, buffer: bytes, offset: int) -> None:
        self.start = start
        self.stop = stop
        self.buffer = buffer
        self.offset = offset


def cost(pieces: Iterable[Piece]) -> int:
    """Bytes of memory that pieces take: an upper bound, because several pieces of one frame each count it."""
    return sum(len(piece.buffer) + PIECE_COST for piece in pieces if piece.buffer)


class History:
    """At most `limit` bytes. The methods return how many bytes of memory they gave back."""

    __slots__ = ("_newest", "_oldest", "_ring", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._ring = [Piece(0, 0, b"", 0)] * RING_SIZE
        self._oldest = self._newest = 0
        """Index of the oldest piece, and of the place for the next one."""

    def add(self, piece: Piece) -> int:
        """`piece` was found equal."""
        newest = self._newest
        self._ring[newest] = piece
        self._newest = newest = (newest + 1) & (RING_SIZE - 1)
        self.size = size = self.size + len(piece.buffer) + PIECE_COST
        return self._shorten() if size > self.limit or newest == self._oldest else 0

    def _shorten(self) -> int:
        """Forget an eighth at once, because every segment passes here and one at a time would cost more."""
        ring, oldest = self._ring, self._oldest
        more = RING_SIZE // 8 if oldest == self._newest else 0
        excess, saved = self.size - self.limit * 7 // 8, 0
        while saved < excess or more > 0:
            one = ring[oldest]
            oldest = (oldest + 1) & (RING_SIZE - 1)
            more -= 1
            size = len(one.buffer)
            if size:
                saved += size + PIECE_COST
                one.buffer = b""
        self._oldest = oldest
        self.size -= saved
        return saved

    def drop(self, piece: Piece) -> int:
        """Forget `piece`, if that has not happened before. Its place in the ring is used again in its turn."""
        if not piece.buffer:
            return 0
        saved = len(piece.buffer) + PIECE_COST
        piece.buffer = b""
        self.size -= saved
        return saved

    def clear(self) -> int:
        """Forget everything."""
        saved = 0
        while self._oldest != self._newest:
            saved += self.drop(self._ring[self._oldest])
            self._oldest = (self._oldest + 1) & (RING_SIZE - 1)
        return saved
