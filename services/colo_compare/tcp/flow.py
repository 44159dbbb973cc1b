"""The entrance of a TCP connection: segments of both guests, and what compare asks of every kind of flow.

::

      primary frames --> [ data: not yet equal ] --> [ waiting: equal, ACK too far ] --> released
                              ^ compared with             ^ s_ack moves
      secondary frames --> Reference (bytes, FIN)  +  s_ack, s_edge (highest ACK, right window edge)

A primary segment leaves when its last byte is at or before `committed` (the end of the longest prefix that both guests
produced, in which SYN and FIN count one each) and its ACK is at or before the secondary's (`docs/design.md`, "Output
commit"). How either guest cuts, repeats or reorders its segments does not matter.

The methods `primary` and `secondary` handle the most frequent cases themselves, because every frame passes them.
"""

from typing import ClassVar, Final

from colo_compare.arrival import Arrival
from colo_compare.tcp import control, departure, explain, late, partial, window
from colo_compare.tcp.commit import advance, compare_new, hold, queue, release, unblock, wait
from colo_compare.tcp.history import PIECE_COST, Piece
from colo_compare.tcp.intake import store
from colo_compare.tcp.state import Connection, Held
from colo_proto.net.stamp import NO_STAMP
from colo_proto.net.tcp import ACK
from colo_proto.pcapng import Shown
from colo_proto.seq import HALF, MASK

IDLE_OPEN: Final = 7200.0
"""Seconds after which a silent connection is forgotten (tcp_keepalive_time of common stacks)."""
IDLE_CLOSED: Final = 60.0
"""Seconds that a closed one is remembered, for retransmitted FINs (TIME_WAIT of common stacks)."""


class TcpFlow(Connection):
    """One connection that is compared."""

    __slots__ = ()

    kept: ClassVar[str] = "tcp"

    # -- the primary ---------------------------------------------------------------------------------

    def primary(self, arrival: Arrival, now: float) -> None:
        """A segment of the primary guest."""
        data, end = arrival.data, arrival.end
        if data > end or data < arrival.l4 + 20:
            self.ledger.passed(arrival.unit, "malformed")
            return
        base = self.committed
        self.touched = now
        if arrival.flags & 0x17 != ACK or base < 0 or self.diverged or self.unprotected:
            control.primary(self, arrival, now)
            return
        wire_ack, win = arrival.ack, arrival.win
        if wire_ack == self.p_wire_ack:
            ack = self.p_ack
        else:
            self.p_ack = ack = self.unwrap_ack(wire_ack)
            self.p_wire_ack = wire_ack
        self.p_win = win
        seq, buf = arrival.seq, arrival.buf
        start = base if seq == base & MASK else base + ((seq - base + HALF) & MASK) - HALF
        if data == end:
            if ack <= self.s_ack:
                if self.data and departure.client_may_be_at(self, start):
                    departure.outrun(self, buf, arrival.l4, data)
                window.emit(self, arrival.unit, buf, arrival.l4, data, start, ack, win)
            else:
                wait(self, Held(arrival, start, start, ack, now))
            return
        stop = start + end - data
        self.p_top = max(self.p_top, stop)
        ref, queued, ledger = self.ref, self.data, self.ledger
        pieces = ref.pieces
        if start == base and not queued:
            at = ref.first
            if at < len(pieces):
                twin = pieces[at]
                if twin.start == start and twin.stop == stop and twin.buffer.startswith(buf[data:end], twin.offset):
                    # The most frequent case: the same bytes, cut at the same places, the secondary first.
                    self.committed = stop
                    self.advanced_at = now
                    ledger.lag.least_wait = 0.0
                    ledger.bytes_compared += stop - start
                    ledger.held_secondary -= 1
                    ledger.secondary_compared += 1
                    ref.first = at = at + 1
                    ledger.secondary_bytes -= ledger.history.add(twin)
                    if at >= ref.sweep_at:
                        ref.sweep()
                    if ack > self.s_ack:
                        wait(self, Held(arrival, start, stop, ack, now))
                    elif self.clamped is None and ack + (win << self.p_scale) <= self.edge and not self.opener:
                        ledger.sink.append(arrival.unit)
                    else:
                        window.emit(self, arrival.unit, buf, arrival.l4, data, stop, ack, win)
                    return
        held = Held(arrival, start, stop, ack, now)
        if (
            start >= base
            and ref.first == len(pieces)
            and ref.fin is None
            and (not queued or queued[-1].start <= start)
            and len(queued) + len(self.waiting) < ledger.max_queue_size
            and ledger.held_bytes < ledger.max_held_bytes
            and not self.wanted
        ):
            # The next most frequent case: there are no bytes of the secondary yet to compare it with.
            ledger.hold(self, held)
            queued.append(held)
            return
        hold(self, held)
        if start < base or pieces or ref.fin is not None:
            compare_new(self, start, stop, now)

    # -- the secondary -------------------------------------------------------------------------------

    def secondary(self, arrival: Arrival, now: float) -> None:
        """A segment of the secondary guest. Its numbers are in the primary's space, except for a SYN's."""
        data, end, ledger = arrival.data, arrival.end, self.ledger
        if data > end or data < arrival.l4 + 20:
            ledger.secondary_gone(1, "malformed")
            return
        base = self.committed
        self.touched = now
        if arrival.flags & 0x17 != ACK or base < 0 or self.unprotected or self.s_first is None:
            control.secondary(self, arrival, now)
            return
        seq, wire_ack, win = arrival.seq, arrival.ack, arrival.win
        if self.s_rst:
            control.sends_after_reset(self, self.position(seq) + end - data, self.unwrap_ack(wire_ack))
        changed = wire_ack != self.s_wire_ack or win != self.s_win
        if changed and window.secondary_says(self, wire_ack, win) and self.waiting and not self.diverged:
            # What waits for this ACK came before whatever its bytes may release.
            unblock(self)
        start = base if seq == base & MASK else base + ((seq - base + HALF) & MASK) - HALF
        stop = start + end - data
        if data == end:
            ledger.secondary_compared += 1
            if ledger.shadow:
                self.s_top = max(self.s_top, start)
            if self.data and start == base - 1:
                partial.release_probe(self)
        elif stop <= base:
            control.repeats(self, arrival, start, stop, now)
        elif not self.data:
            ref = self.ref
            pieces = ref.pieces
            if (
                start >= base
                and start >= ref.end
                and len(pieces) - ref.first < ledger.secondary_quota
                and stop - base <= ledger.max_stream_bytes
            ):
                buf = arrival.buf
                pieces.append(Piece(start, stop, buf, data))
                ref.end = stop
                ledger.held_secondary += 1
                ledger.secondary_bytes += len(buf) + PIECE_COST
            else:
                store(self, start, stop, arrival, base)
        elif start != base or self.diverged or not self._twin(arrival, start, stop):
            store(self, start, stop, arrival, base)
            compare_new(self, start, stop, now)
        elif self.data and (self.data[0].start < stop or self.ref.fin is not None):
            advance(self, now)
        if self.clamped is not None and not self.diverged:
            window.reopen(self, self.clamped)

    def _twin(self, arrival: Arrival, start: int, stop: int) -> bool:
        """The most frequent case: is this segment equal to the first held one, and cut at the same places?"""
        held = self.data[0]
        ref = self.ref
        if held.stop != stop or held.start != start or held.syn or held.fin or ref.first != len(ref.pieces):
            return False
        buf, data = arrival.buf, arrival.data
        # `startswith` copies once less than comparing two slices would.
        if not held.buf.startswith(buf[data : arrival.end], held.data):
            return False
        del self.data[0]
        ledger = self.ledger
        pieces = ref.pieces
        twin = Piece(start, stop, buf, data)
        pieces.append(twin)
        ref.end = stop
        ref.first = at = len(pieces)
        held.equal = self.committed = stop
        self.advanced_at = self.touched
        ledger.secondary_bytes += len(buf) + PIECE_COST - ledger.history.add(twin)
        if at >= ref.sweep_at:
            ref.sweep()
        ledger.secondary_compared += 1
        ledger.bytes_compared += stop - start
        if held.ack > self.s_ack:
            queue(self, held)
        elif (
            held.out
            or held.overtakes
            or self.stamp != NO_STAMP
            or self.clamped is not None
            or self.opener
            or held.ack + (held.win << self.p_scale) > self.edge
        ):
            release(self, held)
        else:
            ledger.unhold(held)
            ledger.lag.waited(self.touched - held.at)
            ledger.sink.append(held.unit)
        return True

    # -- what compare asks of every kind of flow -----------------------------------------------------

    def leftover(self) -> bool:
        """Does it keep something of the secondary that the primary has not sent?"""
        return self.ref.pending() > 0

    def sweep(self) -> None:
        """Free what is no longer needed."""
        self.ref.sweep()

    def judge(self, now: float) -> None:
        """A held segment has been equal in part for a moment."""
        partial.judge(self, now)

    def timed_out(self, now: float) -> None:
        """A frame has waited longer than compare_timeout."""
        late.timed_out(self, now)

    def expire(self, limit: float, now: float) -> None:
        """Give up waiting for the counterparts of what was sent at or before `limit` (shadow mode)."""
        late.expire(self, limit, now)

    def flush(self, *, copied: bool) -> None:
        """A checkpoint is done. With `copied` the secondary is a copy of the primary, so everything held may leave."""
        window.flush(self, copied=copied)

    def let_out(self, cause: str) -> None:
        """Send what is held, but keep it for comparing."""
        window.let_out(self, cause)

    def unbound(self) -> None:
        """The secondary no longer limits the windows: tell the client what was kept from it."""
        window.unbound(self)

    def abandon(self, reason: str) -> None:
        """The flow is about to be forgotten: drop what it holds. A guest will send it again."""
        for held in self.held():
            self.ledger.drop(held, reason)
        self.clear_queues()
        self.forget_reference(reason)

    def evidence(self, verdict: str) -> list[Shown]:
        """Frames of both sides around a difference."""
        return explain.evidence(self, verdict)

    def idle_since(self, now: float) -> bool:
        """Can the flow be forgotten?"""
        return now - self.touched > (IDLE_CLOSED if self.closed else IDLE_OPEN)
