"""Letting segments go, and the flow control of the pair.

The right edge of the window that a released segment offers never passes the one that the secondary offers:
a client could overrun a slower secondary and would wait for its timeouts.
"""

from struct import Struct
from typing import Final

from colo_compare.flow import Unit
from colo_compare.tcp_state import NEVER, Held, TcpState
from colo_proto.checksum import update16
from colo_proto.frame import F_NEEDS_CSUM
from colo_proto.net.tcp import CSUM_AT, WINDOW_AT
from colo_proto.net.window import window_update
from colo_proto.seq import MASK

_U16: Final = Struct("!H")


class TcpWindow(TcpState):
    """A connection's way out."""

    __slots__ = ()

    def _emit(self, unit: Unit, buf: bytes, l4: int, data: int, end: int, ack: int, win: int) -> None:
        if self.s_scale >= 0 and win > self._most(ack, self.p_scale):
            unit = self._clamp(unit, buf, l4, data, end, ack, win, self.p_scale)
        elif self.clamped is not None:
            self.clamped = None
        self.ledger.sink.append(unit)

    def _most(self, ack: int, scale: int) -> int:
        """The largest window field that does not pass the secondary's right edge."""
        most = max(self.s_edge - ack, 0) >> scale
        return min(most, max(self.s_plain - ack, 0)) if self.opener else most

    def _emit_syn(self, held: Held) -> None:
        """A SYN; its own window is never scaled (RFC 7323 §2.2). An opening one has no ACK, and offers nothing yet."""
        unit = held.unit
        if held.ack > NEVER and self.s_edge > NEVER and held.ack + held.win > self.s_edge:
            unit = self._clamp(unit, held.buf, held.l4, held.data + held.syn, held.end, held.ack, held.win, 0)
        self.ledger.sink.append(unit)

    def _clamp(self, unit: Unit, buf: bytes, l4: int, data: int, end: int, ack: int, win: int, scale: int) -> Unit:
        """Lower the window so that its right edge does not pass the secondary's."""
        ledger = self.ledger
        if ledger.shadow:
            return unit
        if isinstance(unit, tuple):
            ledger.counters["window_unclamped"] += 1
            return unit
        window = self._most(ack, scale)
        patched = bytearray(buf)
        _U16.pack_into(patched, l4 + WINDOW_AT, window)
        if not patched[0] & F_NEEDS_CSUM:
            old = _U16.unpack_from(patched, l4 + CSUM_AT)[0]
            _U16.pack_into(patched, l4 + CSUM_AT, update16(old, win, window))
        ledger.counters["windows_lowered"] += 1
        kept = Held(unit, buf, l4, data, end, end, ack, win, 0.0)
        kept.good = ack + (window << scale)
        if self.clamped is None or end >= self.clamped.end:
            # Not a retransmission of something old: its numbers are what a window update has to carry.
            self.clamped = kept
        return patched

    def _reopen(self, last: Held) -> None:
        """The secondary's window grew after the primary's was lowered: tell the client, who waits for it.

        The primary never closed its window, so it will not announce a larger one by itself, and without
        this the client would sit until its persist timer fires.
        """
        ledger, scale = self.ledger, self.p_scale
        window = min(last.win, self._most(last.ack, scale))
        gain = last.ack + (window << scale) - last.good
        mss = (self.p_syn.mss if self.p_syn else None) or 536
        # Receiver-side silly window avoidance (RFC 9293 §3.8.6.2.2).
        if gain < min(2 * mss, (last.win << scale) // 2) and window < last.win:
            return
        if gain <= 0 or ledger.shadow:
            return
        last.good += gain
        ledger.synthesize(window_update(last.buf, last.l4, last.data, last.end & MASK, last.ack & MASK, window))
        if window == last.win:
            self.clamped = None
