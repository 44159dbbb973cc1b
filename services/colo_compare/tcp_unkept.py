"""What is not kept of a primary that is far ahead in shadow mode: memory is bounded, and its client waits for nobody.

::

    kept       [ 60,000 bytes ][ 60,000 bytes ]                            [ 60,000 bytes ]    compared
    unkept                                     [ places alone, no bytes ]                      taken as they are

To be ahead is no difference. Where the memory is used up, a segment is remembered by its place and what it
acknowledges, and those that follow each other as one; what the secondary sends there is taken without comparing, and
counted. A stream that ends elsewhere, or a guest that says nothing more, is found all the same.
"""

from bisect import bisect_left

from colo_compare.tcp_part import TcpPart
from colo_compare.tcp_state import Held, by_start


class TcpUnkept(TcpPart):
    """A connection that may be ahead of the memory for it."""

    __slots__ = ()

    def _unkept(self, held: Held) -> None:
        """Keep the place of a segment for which there is no memory."""
        data, ledger = self.data, self.ledger
        if held.syn:
            # Its options say whether the connection could go on at all, and it is small.
            ledger.hold(self, held)
            data.insert(bisect_left(data, held.start, key=by_start), held)
            return
        if held.start == held.end or 0 <= held.end <= self.committed:
            return
        ledger.counters["frames_unkept"] += 1
        last = data[-1] if data else None
        if last is not None and not last.buf and last.start <= held.start:
            if held.end > last.end:
                last.stop, last.end, last.fin = held.stop, held.end, held.fin
            last.ack = max(last.ack, held.ack)
            return
        at = bisect_left(data, held.start, key=by_start)
        if at < len(data) and data[at].start == held.start and data[at].end >= held.end:
            return
        place = Held(b"", b"", 0, 0, held.start, held.stop, held.ack, held.win, held.at)
        place.end, place.fin = held.end, held.fin
        ledger.hold(self, place)
        data.insert(at, place)

    def _unkept_ack(self, held: Held) -> None:
        """Of many ACKs that wait for the secondary's the last is enough: it says what the others say."""
        waiting, ledger = self.waiting, self.ledger
        if waiting and held.ack < waiting[-1].ack:
            return
        if len(waiting) > 1:
            # The first stays: it says since when the secondary has said nothing.
            ledger.unhold(waiting.pop())
        ledger.hold(self, held)
        waiting.append(held)

    def _place_ahead(self, where: int, size: int) -> bool:
        """Are there bytes of the primary from `where` on that were not kept?"""
        return any(not one.buf and one.start < where + size and where < one.end for one in self.data)
