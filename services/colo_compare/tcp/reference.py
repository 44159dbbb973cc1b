"""The secondary's half of a TCP stream: the reference that the primary's bytes are compared with.

::

     pieces     [ p0 ][ p1 ][ p2 ]   [ p3 ]          positions are unwrapped sequence numbers
                |            |        |
                history      committed (first byte not yet known to be equal on both sides)

A piece keeps the received frame and an offset into it, so nothing is copied. Pieces are sorted and never overlap: of
two frames with the same bytes the first one counts. Pieces before `committed` are history: a retransmission of the
primary is compared with them for as long as they are kept (`colo_compare.tcp.history`).

`end` is where the last piece stops. With it nearly every frame is added without looking at other pieces, each of which
would be a cache miss when there are ten thousand flows.
"""

from bisect import bisect_right
from operator import attrgetter
from typing import Final

from colo_compare.tcp.history import History, Piece, cost

LOWEST: Final = -(1 << 62)
"""Before every position, acknowledgement and time: stands for one that is not known."""

MIN_FORGOTTEN: Final = 8
"""Pieces without bytes that a short list may have; a long list may have a quarter more than its history."""


_start, _stop = attrgetter("start"), attrgetter("stop")


class Reference:
    """Bytes that the secondary produced, by position, and how many pieces of them were confirmed."""

    __slots__ = ("end", "fin", "first", "pieces", "sweep_at")

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.first = 0
        """Index of the first piece that reaches past `committed`."""
        self.sweep_at = MIN_FORGOTTEN
        """`sweep` is called when this many pieces are history."""
        self.end = LOWEST
        """Where the last piece stops, or did before it was forgotten."""
        self.fin: int | None = None
        """Position of the secondary's FIN, when it has sent one."""

    def pending(self) -> int:
        """How many pieces reach past `committed`."""
        return len(self.pieces) - self.first

    def insert(self, start: int, stop: int, buffer: bytes, offset: int) -> list[Piece]:
        """Add the bytes that are not there yet. Returns the new pieces: several where they fill several holes."""
        pieces = self.pieces
        if start >= self.end:
            one = Piece(start, stop, buffer, offset)
            pieces.append(one)
            self.end = stop
            return [one]
        self.end = max(self.end, stop)
        added = []
        at = max(bisect_right(pieces, start, key=_start) - 1, 0)
        while start < stop:
            if at < len(pieces):
                lo, hi = pieces[at].start, pieces[at].stop
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
            one = Piece(start, upto, buffer, offset)
            pieces.insert(at, one)
            added.append(one)
            at += 1
            offset += upto - start
            start = upto
        return added

    def confirm(self, committed: int, history: History) -> tuple[int, int]:
        """Everything before `committed` was compared. Returns how many pieces became history, and how many bytes of
        memory the history gave back for them.
        """
        pieces, first = self.pieces, self.first
        at, end, saved = first, len(pieces), 0
        while at < end and pieces[at].stop <= committed:
            saved += history.add(pieces[at])
            at += 1
        self.first = at
        if at >= self.sweep_at:
            self.sweep()
        return at - first, saved

    def sweep(self) -> None:
        """Take out the pieces that the history has forgotten. Cutting a list at its front costs as much for one piece
        as for many, so this is done now and then.
        """
        pieces, first = self.pieces, self.first
        gone = 0
        while gone < first and not pieces[gone].buffer:
            gone += 1
        if gone:
            del pieces[:gone]
            self.first = first = first - gone
        self.sweep_at = first + (first >> 2) + MIN_FORGOTTEN

    def forget(self, history: History) -> tuple[int, int]:
        """Drop all pieces. Returns how many were pending, and how many bytes of memory this gave back."""
        pieces, first = self.pieces, self.first
        pending, saved = len(pieces) - first, cost(pieces[first:])
        for one in pieces[:first]:
            saved += history.drop(one)
        pieces.clear()
        self.first, self.sweep_at = 0, MIN_FORGOTTEN
        self.end = LOWEST
        return pending, saved

    def find(self, position: int) -> int:
        """Index of the piece that holds `position`, or of the first one after it."""
        return bisect_right(self.pieces, position, key=_stop)

    def slice(self, start: int, stop: int) -> tuple[bytes, int]:
        """The first contiguous bytes within `[start, stop)` that are kept, and the position where they begin."""
        parts: list[bytes] = []
        begin = position = start
        for one in self.pieces[self.find(start) :]:
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
