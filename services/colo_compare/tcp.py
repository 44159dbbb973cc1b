"""One TCP connection under the rule of output commit (`docs/design.md`, "Output commit").

::

      primary frames --> [ data: not yet equal ] --> [ waiting: equal, ACK too far ] --> released
                              ^ compared with             ^ s_ack moves
      secondary frames --> Reference (bytes, FIN)  +  s_ack, s_edge (highest ACK, right window edge)

A primary segment leaves when its last byte is at or before `committed` (the end of the longest prefix
that both guests produced, SYN and FIN counting one each) and its ACK is at or before the secondary's.
How either side cuts, repeats or reorders its segments does not matter. Positions are unwrapped
sequence numbers: plain integers that never wrap inside.

The compare sees only what guests send, so ACKs are in the client's sequence space and data in the
guest's; the rewriter has already moved the secondary's numbers into the primary's space, all but those
of its SYN, whose options alone are looked at.

What a segment says is taken in here; the rest is in the classes that this one is made of, from the ground up::

    TcpState     what is known, and what every kind of flow is asked
    TcpLeaving   what leaves of what is held: once, and with no old timestamp
    TcpWindow    the way out, and flow control
    TcpPart      parts of segments, where whole ones would wait for ever
    TcpUnkept    places without bytes, where the primary is too far ahead
    TcpCommit    comparing and letting go
    TcpShadow    what has gone before it was compared
    TcpOpening   SYNs, and connections from the middle
    TcpFlow      segments of either guest come in
"""

from typing import ClassVar

from colo_compare.flow import Unit
from colo_compare.history import SEGMENT_COST, Segment
from colo_compare.tcp_opening import TcpOpening
from colo_compare.tcp_state import NEVER, UNKNOWN, Held
from colo_proto.net.stamp import NO_STAMP
from colo_proto.net.tcp import ACK, FIN, PSH, RST, SYN, syn_options
from colo_proto.seq import HALF, MASK, MOD


class TcpFlow(TcpOpening):
    """One connection; `ledger` is the compare it belongs to."""

    __slots__ = ()

    kept: ClassVar[str] = "tcp"

    # -- the primary ---------------------------------------------------------------------------------

    def primary(
        self,
        unit: Unit,
        buf: bytes,
        l4: int,
        end: int,
        seq: int,
        wire_ack: int,
        off: int,
        flags: int,
        win: int,
        now: float,
    ) -> None:
        """A segment of the primary guest: TCP header at `l4` of `buf`, packet up to `end`."""
        data = l4 + ((off >> 4) << 2)
        base = self.committed
        if off < 0x50 or data > end:
            self.ledger.passed(unit, "malformed")
            return
        self.touched = now
        if flags & 0x17 != ACK or base < 0 or self.diverged or self.unprotected:
            self._primary_special(unit, buf, l4, data, end, seq, wire_ack, flags, win, now)
            return
        if wire_ack == self.p_wire_ack:
            ack = self.p_ack
        else:
            near = self.near
            if near < UNKNOWN:
                self.near = near = wire_ack + MOD
            self.p_ack = ack = near + ((wire_ack - near + HALF) & MASK) - HALF
            self.p_wire_ack = wire_ack
        self.p_win = win
        start = base if seq == base & MASK else base + ((seq - base + HALF) & MASK) - HALF
        if data == end:
            if ack <= self.s_ack:
                if self.data and self._may_have_reached(start):
                    self._outrun(buf, l4, data)
                self._emit(unit, buf, l4, data, start, ack, win)
            else:
                self._wait(Held(unit, buf, l4, data, start, start, ack, win, now))
            return
        stop = start + end - data
        self.p_top = max(self.p_top, stop)
        ref, queue, ledger = self.ref, self.data, self.ledger
        segments = ref.segments
        if start == base and not queue:
            at = ref.first
            if at < len(segments):
                twin = segments[at]
                if twin.start == start and twin.stop == stop and twin.buffer.startswith(buf[data:end], twin.offset):
                    # The commonest case by itself: the same bytes, cut at the same places, the secondary first.
                    self.committed = stop
                    self.moved = now
                    ledger.bytes_compared += stop - start
                    ledger.held_secondary -= 1
                    ledger.secondary_compared += 1
                    ref.first = at = at + 1
                    ledger.secondary_bytes -= ledger.history.add(twin)
                    if at >= ref.many:
                        ref.sweep()
                    if ack > self.s_ack:
                        self._wait(Held(unit, buf, l4, data, start, stop, ack, win, now))
                    elif self.clamped is None and ack + (win << self.p_scale) <= self.s_edge and not self.opener:
                        ledger.sink.append(unit)
                    else:
                        self._emit(unit, buf, l4, data, stop, ack, win)
                    return
        held = Held(unit, buf, l4, data, start, stop, ack, win, now)
        if (
            start >= base
            and ref.first == len(segments)
            and ref.fin is None
            and (not queue or queue[-1].start <= start)
            and len(queue) + len(self.waiting) < ledger.max_queue_size
            and ledger.held_bytes < ledger.max_held_bytes
            and not self.wanted
        ):
            # The next commonest: nothing of the secondary to hold it against yet.
            ledger.hold(self, held)
            queue.append(held)
            return
        self._hold(held)
        if start < base or segments or ref.fin is not None:
            self._advance(now)
            if stop > self.committed and ref.first < len(ref.segments):
                self._match_behind(start, stop, now)

    def _primary_special(
        self,
        unit: Unit,
        buf: bytes,
        l4: int,
        data: int,
        end: int,
        seq: int,
        ack: int,
        flags: int,
        win: int,
        now: float,
    ) -> None:
        ledger = self.ledger
        if flags & SYN and not flags & RST and (self.isn is None or self.isn & MASK != seq):
            self._open(seq, self._ack(ack) if flags & ACK else NEVER, syn_options(buf, l4, data), now)
        if ledger.strangers and self.p_first is None and self.committed < 0 and not self.unprotected:
            self._stranger()
        start = self._position(seq)
        stop = start + end - data + (1 if flags & SYN else 0)
        number = self._ack(ack) if flags & ACK else self.s_ack
        if not flags & RST:
            # A checkpoint that copies state goes on from here, whatever became of these frames.
            self.p_top = max(self.p_top, stop + (flags & FIN))
            if flags & FIN:
                self.p_fin = stop
            if flags & ACK:
                self.p_ack, self.p_wire_ack, self.p_win = number, ack, -win if flags & SYN else win
        if self.unprotected:
            self.closed |= bool(flags & (FIN | RST))
            ledger.passed(unit, "unprotected")
            return
        held = Held(unit, buf, l4, data - (flags >> 1 & 1), start, stop, number, win, now)
        held.syn, held.fin = flags >> 1 & 1, flags & 1
        held.end = stop + held.fin
        if flags & RST:
            if self.s_rst:
                self._reset(held)
            elif not ledger.full(self, held, len(self.resets)):
                ledger.hold(self, held)
                self.resets.append(held)
            return
        if flags & SYN:
            self.p_syn = syn_options(buf, l4, data)
            self.opener = not flags & ACK and bool(self.p_syn.wscale)
        if self.p_first is None:
            self.p_first = start
            self._adopt(now)
        if self.diverged or self.committed < 0 or held.end > held.start:
            self._hold(held)
            self._advance(now)
            if stop > self.committed and self.ref.first < len(self.ref.segments):
                self._match_behind(start, stop, now)
        elif number <= self.s_ack:
            self._emit(unit, buf, l4, data, start, number, win)
        else:
            self._wait(held)

    # -- the secondary -------------------------------------------------------------------------------

    def secondary(
        self, buf: bytes, l4: int, end: int, seq: int, wire_ack: int, off: int, flags: int, win: int, now: float
    ) -> None:
        """A segment of the secondary guest (its numbers already in the primary's space, but for a SYN's)."""
        data = l4 + ((off >> 4) << 2)
        ledger = self.ledger
        base = self.committed
        if off < 0x50 or data > end:
            ledger.secondary_gone(1, "malformed")
            return
        self.touched = now
        if flags & 0x17 != ACK or base < 0 or self.unprotected or self.s_first is None:
            self._secondary_special(buf, l4, data, end, seq, wire_ack, flags, win, now)
            return
        if self.s_rst:
            self._goes_on(self._position(seq) + end - data, self._ack(wire_ack))
        changed = wire_ack != self.s_wire_ack or win != self.s_win
        if changed and self._s_acks(wire_ack, win) and self.waiting and not self.diverged:
            # What waits for this ACK came before whatever its bytes may free.
            self._unblock()
        if data == end:
            ledger.secondary_compared += 1
            if ledger.shadow:
                self.s_top = max(self.s_top, base + ((seq - base + HALF) & MASK) - HALF)
            if self.data and (seq + 1 - base) & MASK == 0:
                self._let_probe_go()
        else:
            start = base if seq == base & MASK else base + ((seq - base + HALF) & MASK) - HALF
            stop = start + end - data
            if self.data:
                if stop <= base:
                    self._overtaken(buf, data, start, stop, now)
                elif start != base or self.diverged or not self._twin(buf, data, start, stop):
                    self._store(start, stop, buf, data, base)
                    self._advance(now)
                    if stop > self.committed and self.data:
                        self._match_behind(start, stop, now)
                elif self.data and (self.data[0].start < stop or self.ref.fin is not None):
                    self._advance(now)
            elif stop <= base:
                self._overtaken(buf, data, start, stop, now)
            else:
                ref = self.ref
                segments = ref.segments
                if (
                    start >= base
                    and start >= ref.end
                    and len(segments) - ref.first < ledger.room
                    and stop - base <= ledger.max_stream_bytes
                ):
                    segments.append(Segment(start, stop, buf, data))
                    ref.end = stop
                    ledger.held_secondary += 1
                    ledger.secondary_bytes += len(buf) + SEGMENT_COST
                else:
                    self._store(start, stop, buf, data, base)
        if self.clamped is not None and not self.diverged:
            self._reopen(self.clamped)

    def _s_acks(self, wire_ack: int, win: int) -> bool:
        """Take over an ACK and window of the secondary. True when either moved on."""
        self.s_win = win
        if wire_ack == self.s_wire_ack:
            ack = self.s_last_ack
        else:
            ack = self._ack(wire_ack)
            self.s_wire_ack, self.s_last_ack = wire_ack, ack
        moved = False
        if ack > self.s_ack:
            self.s_ack = self.near = ack
            moved = True
        scale = self.s_scale
        if scale >= 0 and ack + (win << scale) > self.s_edge:
            self.s_edge = ack + (win << scale)
            moved = True
        if self.opener and ack + win > self.s_plain:
            self.s_plain = ack + win
            moved = True
        return moved

    def _secondary_special(
        self, buf: bytes, l4: int, data: int, end: int, seq: int, wire_ack: int, flags: int, win: int, now: float
    ) -> None:
        ledger = self.ledger
        if self.unprotected and not flags & SYN:
            ledger.secondary_gone(1, "unprotected")
            return
        if flags & SYN:
            self._secondary_syn(buf, l4, data, end, seq, wire_ack, flags, win, now)
            return
        if self.isn is not None and self.s_syn is None:
            # The primary opened a new connection here; this still belongs to the one before.
            ledger.secondary_gone(1, "overtaken")
            if flags & RST and self.resets:
                self._let_former_go()
            return
        if self.s_rst and not flags & RST:
            number = self._ack(wire_ack) if flags & ACK else NEVER
            self._goes_on(self._position(seq) + end - data + (flags & FIN), number)
        if flags & ACK and self._s_acks(wire_ack, win) and self.waiting and not self.diverged:
            self._unblock()
        if flags & RST:
            ledger.secondary_compared += 1
            if flags & FIN and ledger.ahead(self):
                # No guest says both: the rewriter tells that the client has reset the connection, or (with PSH) that
                # not all of what the client said got through to the guest.
                if flags & PSH:
                    ledger.give_up(self)
                else:
                    self.parted = int(now * 1000)
                return
            self.s_rst = True
            self.s_reset = max(self._position(seq), self.committed, self.ref.end)
            if self.resets:
                self._reset(None)
            return
        if self.rivals:
            self._settle(seq)
        start = self._position(seq)
        stop = start + end - data
        if self.s_first is None:
            self.s_first = start
            self._adopt(now)
        base = self.committed
        if flags & FIN and self.ref.fin is None and (stop >= base or stop < self.unproven):
            # One that lies behind is stale: a checkpoint has passed it, or both would have sent it.
            self.ref.fin = stop
        if data == end:
            ledger.secondary_compared += 1
            if ledger.shadow:
                self.s_top = max(self.s_top, start)
        elif base >= stop:
            self._overtaken(buf, data, start, stop, now)
        else:
            self._store(start, stop, buf, data, base)
        if self.data:
            self._advance(now)
            if stop > self.committed:
                self._match_behind(start, stop, now)
        if not self.diverged:
            self._unblock()
            if self.clamped is not None:
                self._reopen(self.clamped)

    def _goes_on(self, stop: int, ack: int) -> None:
        """The secondary, which has sent RST, sends a segment. What it reset was a stray one if this says something new;
        else it was sent before, and the RST has overtaken it.
        """
        if stop > self.s_reset or ack > self.s_ack:
            self.s_rst = False

    def _twin(self, buf: bytes, data: int, start: int, stop: int) -> bool:
        """The commonest case by itself: this segment is equal to the first held one, cut at the same places."""
        held = self.data[0]
        ref = self.ref
        if held.stop != stop or held.start != start or held.syn or held.fin or ref.first != len(ref.segments):
            return False
        size = stop - start
        # One copy less than to compare two slices.
        if not held.buf.startswith(buf[data : data + size], held.data):
            return False
        del self.data[0]
        ledger = self.ledger
        segments = ref.segments
        twin = Segment(start, stop, buf, data)
        segments.append(twin)
        ref.end = stop
        ref.first = at = len(segments)
        held.good = self.committed = stop
        self.moved = self.touched
        ledger.secondary_bytes += len(buf) + SEGMENT_COST - ledger.history.add(twin)
        if at >= ref.many:
            ref.sweep()
        ledger.secondary_compared += 1
        ledger.bytes_compared += size
        if held.ack > self.s_ack:
            self._queue(held)
        elif (
            held.out
            or held.overtakes
            or self.stamp != NO_STAMP
            or self.clamped is not None
            or held.ack + (held.win << self.p_scale) > self.s_edge
        ):
            self._let_go(held)
        else:
            ledger.unhold(held)
            ledger.sink.append(held.unit)
        return True

    def _overtaken(self, buf: bytes, data: int, start: int, stop: int, now: float) -> None:
        """The secondary repeats what is committed: either it waits for an ACK, or this is news after an adoption."""
        self.repeated = int(now * 1000)
        self.ledger.secondary_gone(1, "overtaken")
        if start < self.unproven:
            self._remember(buf, data, start, stop)
            if self.data:
                self._advance(now)
        elif self.data:
            self._let_head_go(start, stop)
