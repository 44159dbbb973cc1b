"""Letting segments go, and the flow control of the pair.

The right edge of the window that a released segment offers never passes the one that the secondary offers:
a client could overrun a slower secondary and would wait for its timeouts.

::

    the primary's edge      what its newest segment offers that may have left by its ACK    p_ack, p_win
    the secondary's edge    the farthest that it has offered                                s_edge
    the client's edge       the farthest that has left since a window was lowered           clamped.good

While the client's edge is behind the primary's there is a `clamped`; when the secondary's moves on, the client is told.
"""

from struct import Struct
from typing import Final

from colo_compare.flow import Unit
from colo_compare.tcp_leaving import TcpLeaving
from colo_compare.tcp_state import NEVER, Held
from colo_proto.checksum import update16
from colo_proto.frame import F_NEEDS_CSUM, Buffer
from colo_proto.net.stamp import NO_STAMP, tsval, with_tsval
from colo_proto.net.tcp import CSUM_AT, WINDOW_AT, read32, timestamps_at
from colo_proto.net.window import window_update
from colo_proto.seq import HALF, MASK

_U16: Final = Struct("!H")
MOST: Final = 0xFFFF
"""The largest window field."""


def _newer(buf: Buffer, l4: int, data: int, last: Held) -> bool:
    """Is the timestamp of this segment no older than that of `last`, or is there none?"""
    at, before = timestamps_at(buf, l4, data), timestamps_at(last.buf, last.l4, last.data)
    return at is None or before is None or (read32(buf, at) - read32(last.buf, before)) & MASK < HALF


class TcpWindow(TcpLeaving):
    """A connection's way out."""

    __slots__ = ()

    def _emit(self, unit: Unit, buf: bytes, l4: int, data: int, end: int, ack: int, win: int) -> None:
        scale = self.p_scale
        if self.s_scale >= 0 and win > self._most(ack, scale):
            unit = self._clamp(unit, buf, l4, data, end, ack, win, scale)
        elif self.clamped is not None:
            self._told(buf, l4, data, end, ack, win, win)
        self.ledger.sink.append(unit)

    def _most(self, ack: int, scale: int) -> int:
        """The largest window field that does not pass the secondary's right edge."""
        most = max(self.s_edge - ack, 0) >> scale
        return min(most, max(self.s_plain - ack, 0)) if self.opener else most

    def _emit_syn(self, held: Held) -> None:
        """A SYN; its own window is never scaled (RFC 7323 §2.2). An opening one has no ACK, and offers nothing yet."""
        unit, ack, win = held.unit, held.ack, held.win
        data = held.data + held.syn
        if ack > NEVER and self.s_edge > NEVER and ack + win > self.s_edge:
            unit = self._clamp(unit, held.buf, held.l4, data, held.end, ack, win, 0)
        elif self.clamped is not None:
            self._told(held.buf, held.l4, data, held.end, ack, -win, win)
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
        self._told(patched, l4, data, end, ack, win if scale else -win, window)
        return patched

    # -- what the client has been told ---------------------------------------------------------------

    def _told(self, buf: Buffer, l4: int, data: int, end: int, ack: int, win: int, window: int) -> None:
        """A segment leaves with the window field `window`; the primary's own was `win` (negative: unscaled).

        Segments do not leave in the order in which they came, so what counts for the client's edge is the farthest,
        and for the primary's what came last. An update has to be newer than all that has left, too: it is made from
        the segment with the newest timestamp.
        """
        last = self.clamped
        edge = self._edge(ack, window if win >= 0 else -window)
        if last is None:
            head = bytes(buf[:data])
            last = Held(head, head, l4, data, end, ack + window, ack, win, 0.0)
            last.end, last.good = end, edge
        else:
            if _newer(buf, l4, data, last):
                last.unit = last.buf = bytes(buf[:data])
                last.l4, last.data = l4, data
            last.end = max(last.end, end)
            last.good = max(last.good, edge)
            last.stop = max(last.stop, ack + window)
            if ack > last.ack or (ack == last.ack and self._edge(ack, win) > self._edge(ack, last.win)):
                last.ack, last.win = ack, win
        self.clamped = last if self._owes(last) else None

    def _owes(self, last: Held) -> bool:
        """Does the primary offer more than the client has been told, in either reading of an opener's windows?"""
        return self._offered(last) > last.good or (self.opener and self.p_ack + abs(self.p_win) > last.stop)

    def _edge(self, ack: int, win: int) -> int:
        """The right edge that an ACK offers with a window field, which is negative where it is unscaled."""
        return ack - win if win < 0 else ack + (win << self.p_scale)

    def _offered(self, last: Held) -> int:
        """How far the newest segment of the primary reaches that does not wait for an ACK of the secondary.

        One that does will say itself what it offers: were it said before, those that wait with it would take it back.
        """
        ack = self.p_ack
        if last.ack <= ack <= self.s_ack:
            return self._edge(ack, self.p_win)
        # Or it has an older ACK than what has left: it was overtaken on its way here, and says nothing of now.
        edge = self._edge(last.ack, last.win)
        return max(edge, self._edge(ack, self.p_win)) if ack < last.ack else edge

    def _reopen(self, last: Held) -> None:
        """The secondary's window grew after the primary's was lowered: tell the client, who waits for it.

        The primary never closed its window, so it will not announce a larger one by itself, and without
        this the client would sit until its persist timer fires.
        """
        if self.ledger.shadow:
            return
        scale = self.p_scale
        ack = max(last.ack, min(self.p_ack, self.s_ack))
        offered = self._offered(last)
        full = min((offered - ack) >> scale, MOST)
        window = min(full, self._most(ack, scale))
        if window <= 0:
            # What came last offers nothing behind what has been acknowledged.
            return
        edge = ack + (window << scale)
        if not (
            self._worth(ack, edge, last.good, offered, whole=window == full)
            or (self.opener and self._worth(ack, ack + window, last.stop, ack + full, whole=window == full))
        ):
            return
        self._announce(last, ack, window)
        last.win = full
        if edge >= offered or window == full < MOST:
            self.clamped = None

    def _worth(self, ack: int, edge: int, told: int, offered: int, *, whole: bool) -> bool:
        """Is a window up to `edge` worth a word, where the client knows of one up to `told` and the primary offers
        `offered`? All of it always is.

        The rest is receiver-side silly window avoidance (RFC 9293 §3.8.6.2.2). The secondary does that as well, so to a
        client that has not even a segment left it is passed on once it is the greater part of what there is.
        """
        gain = edge - told
        if gain <= 0 or whole:
            return gain > 0
        mss = (self.p_syn.mss if self.p_syn else None) or 536
        if gain >= min(2 * mss, (offered - ack) // 2):
            return True
        return told - ack < mss and (edge - ack >= mss or 2 * gain >= edge - ack)

    def _announce(self, last: Held, ack: int, window: int) -> None:
        """Send a window update: where the primary's next byte would be, so that the client takes it."""
        last.ack = ack
        last.good, last.stop = max(last.good, self._edge(ack, window)), max(last.stop, ack + window)
        seq = self.p_top if self.p_top > NEVER else last.end
        self.ledger.synthesize(window_update(last.buf, last.l4, last.data, seq & MASK, ack & MASK, window))

    def unbound(self) -> None:
        """Nothing lowers this connection's windows any more: the client hears what was kept from it."""
        last = self.clamped
        if last is None:
            return
        self.clamped = None
        ack = max(last.ack, self.p_ack)
        window = min((self._edge(self.p_ack, self.p_win) - ack) >> self.p_scale, MOST)
        if window > 0 and (ack + (window << self.p_scale) > last.good or (self.opener and ack + window > last.stop)):
            self._announce(last, ack, window)

    def flush(self, *, copied: bool) -> None:
        """A checkpoint is done: the secondary offers what the primary does, or the flow is compared no more."""
        going = self._going()
        super().flush(copied=copied)
        self._gone(going)
        self.unbound()

    def let_out(self, cause: str) -> None:
        """Send what is held but keep it for comparing (shadow mode begins)."""
        going = self._going()
        super().let_out(cause)
        self._gone(going)

    def _going(self) -> list[Held]:
        """What leaves when all that is held does, where it matters to what the client has been told."""
        return [held for held in (*self.data, *self.waiting) if not held.out] if self.clamped is not None else []

    def _gone(self, going: list[Held]) -> None:
        for held in going:
            win = -held.win if held.syn else held.win
            self._told(held.buf, held.l4, held.data + held.syn, held.end, held.ack, win, held.win)
        last, stamp = self.clamped, self.stamp
        if last is not None and stamp != NO_STAMP and (tsval(last.buf, last.l4, last.data) - stamp) & MASK >= HALF:
            # They left with newer timestamps than their own.
            last.unit = last.buf = with_tsval(last.buf, last.l4, last.data, stamp)
        self.stamp = NO_STAMP
