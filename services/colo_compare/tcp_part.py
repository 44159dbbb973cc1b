"""Parts of held segments that leave by themselves, for two guests need not cut or probe in the same way.

::

    primary    [ 60,000 bytes ............................. ]    held, for the secondary
    secondary  [ s0 ][ s1 ][ s2 ]                                may send no more before it hears an ACK
    leaves     [ the equal part ]                                after a moment without progress
                                 [ the rest ............... ]    once that is equal, too

What has left does not leave again, unless a guest sends it again.
"""

from typing import Final

from colo_compare.tcp_state import NEVER, Held, by_arrival
from colo_compare.tcp_window import TcpWindow
from colo_proto.net.window import window_update
from colo_proto.seq import MASK

HEAD_WAIT: Final = 0.05
"""Seconds without progress after which the equal part of a held segment goes by itself: less than any stack's
retransmission timeout (200 ms and more)."""


class TcpPart(TcpWindow):
    """A connection whose segments may leave in parts."""

    __slots__ = ()

    def judge(self, now: float) -> None:
        """A primary segment is equal in part: let that part go when nothing has moved for a moment.

        The secondary may have to wait for an ACK before it sends more (a smaller congestion window, shorter
        segments), and there is none as long as the primary's longer segment is held: both would wait for ever.
        """
        if self.moved > now - HEAD_WAIT and self.data:
            self.ledger.stuck[self] = self.moved + HEAD_WAIT
        else:
            self._let_head_go()

    def _let_head_go(self, start: int = NEVER, stop: int = NEVER) -> None:
        """Send what is equal of a segment that is not equal to its end, and has not left yet.

        From `start` to `stop` the secondary repeats itself: that may have been lost behind us, and leaves again.
        """
        held = None if self.diverged else self._half_equal()
        if held is None:
            return
        begin, again = held.gone, max(start, held.start)
        if again < min(stop, begin):
            if stop >= begin:
                begin = again
            else:
                self._let_part_go(held, again, stop)
        if begin < held.good:
            self._let_part_go(held, begin, held.good)

    def _half_equal(self) -> Held | None:
        """The newest segment that is equal in part and begins where the client is, or before.

        The client is where the last head ended, or where the first of these segments begins: what came before has left.
        """
        found: Held | None = None
        data = self.data
        client = max(self.headed, data[0].start) if data else NEVER
        for held in data:
            if held.start > client:
                break
            if (
                held.start < held.good < held.end
                and held.ack <= self.s_ack
                and (found is None or held.at >= found.at)
                and not (held.out or held.syn or isinstance(held.unit, tuple))
            ):
                found = held
        return found

    def _let_part_go(self, held: Held, start: int, end: int) -> None:
        part = self._part(held, start, end)
        self.ledger.counters["synthesized"] += 1
        self.ledger.counters["heads_released"] += 1
        if end > held.gone:
            self.headed = end
            for other in self.data:
                if other.start >= end:
                    break
                # Other copies have nothing to add to it: if it is lost, a guest sends it again.
                if not (other.syn or isinstance(other.unit, tuple)):
                    other.gone = max(other.gone, min(end, other.good))
        self._outrun(held.buf, held.l4, held.data)
        self._emit(part, part, held.l4, held.data, end, held.ack, held.win)

    def _let_probe_go(self) -> None:
        """The secondary probes the client's window with an empty segment one byte back; the primary's bytes are held.

        They may be its own probe, for that may carry a byte (RFC 9293 §3.8.6.1). The client would be asked by neither,
        and the update that it lost would never come again: so the question goes, in the primary's words.
        """
        if self.diverged:
            return
        newest_first = reversed(self.data)
        whole = (h for h in newest_first if not (h.syn or h.out or h.ack > self.s_ack or type(h.unit) is tuple))
        held = max(whole, key=by_arrival, default=None)
        if held is None or self.committed < 0:
            return
        at = self.committed - 1
        buf = self._part(held, held.start, held.end)
        probe = window_update(buf, held.l4, held.data, at & MASK, held.ack & MASK, held.win)
        self.ledger.counters["synthesized"] += 1
        self.ledger.counters["probes_released"] += 1
        self._outrun(buf, held.l4, held.data)
        self._emit(probe, probe, held.l4, len(probe), at, held.ack, held.win)
