"""What leaves of a connection that is held: by place, once only, and with no older timestamp than what has left."""

from colo_compare.flow import Unit
from colo_compare.stream import Reference
from colo_compare.tcp_state import FORMER, NEVER, Held, TcpState, by_start
from colo_proto.net.shorten import shorten
from colo_proto.net.stamp import NO_STAMP, tsval, with_tsval
from colo_proto.seq import HALF, MASK


class TcpLeaving(TcpState):
    """A connection of which segments leave."""

    __slots__ = ()

    def _may_have_reached(self, start: int) -> bool:
        """May the client be at `start`? Then it counts the timestamp of what begins there (RFC 7323 §4.3)."""
        if start <= self.committed or self.adopted:
            return True
        # In shadow mode more than what was compared has left.
        return bool(self.data) and self.data[0].out

    def _outrun(self, buf: bytes, l4: int, data: int) -> None:
        """A segment leaves before others that are older: to the client they may not be older than it."""
        stamp = tsval(buf, l4, data)
        last = max((held.start for held in self.waiting), default=NEVER)
        if self.data:
            last = max(last, self.data[-1].start)
        if stamp == NO_STAMP or last == NEVER:
            return
        if self.stamp == NO_STAMP:
            self.stamp, self.stamp_until = stamp, NEVER
        elif (stamp - self.stamp) & MASK < HALF:
            self.stamp = stamp
        self.stamp_until = max(self.stamp_until, last)

    def _part(self, held: Held, start: int, end: int) -> bytes:
        """What `held`, which is one frame and no SYN, has from `start` to `end`, with no older timestamp than what has
        left.

        The client drops a segment whose timestamp is older than the newest one that it has taken (RFC 7323 §5), and
        the guest would have to send it again. Sent now, it would have had a newer one.
        """
        buf = held.buf
        if start > held.start or end < held.end:
            stop = held.data + held.stop - held.start
            keep = min(end, held.stop) - held.start
            buf = shorten(buf, held.l4, held.data, stop, keep, start - held.start, fin=end >= held.end)
        if self.stamp == NO_STAMP:
            return buf
        until = self.stamp_until
        if held.start > until and not any(queue and queue[0].start <= until for queue in (self.data, self.waiting)):
            # All that were older have left.
            self.stamp = NO_STAMP
            return buf
        own = tsval(buf, held.l4, held.data)
        if own == NO_STAMP or (own - self.stamp) & MASK < HALF:
            return buf
        self.ledger.counters["restamped"] += 1
        return with_tsval(buf, held.l4, held.data, self.stamp)

    def _in_turn(self, held: Held) -> Unit:
        """What of `held` has not left, when everything leaves that is held, by place."""
        if held.syn or isinstance(held.unit, tuple):
            return held.unit
        self.stamp_until = -NEVER
        rest = self._part(held, held.gone, held.end)
        own = tsval(rest, held.l4, held.data)
        if own != NO_STAMP:
            # It is at least as new as what left before it.
            self.stamp = own
        return rest

    # -- everything at once ---------------------------------------------------------------------------

    def flush(self, *, copied: bool) -> None:
        """A checkpoint is done. `copied`: the secondary now is the primary's copy, everything held may go."""
        ledger = self.ledger
        began = next((h.start for h in self.data if not h.syn), NEVER)
        if self.rivals and began > NEVER:
            self._settle(began & MASK)
        frames = sorted((*self.data, *self.waiting, *self.resets), key=by_start)
        if copied:
            self._copied(frames)
        self._clear_queues()
        self._forget_reference("checkpoint")
        self.ref = Reference()
        if copied and NEVER < self.p_fin < self.committed:
            # The copy has ended its stream where the primary did, wherever the secondary had before.
            self.ref.fin = self.p_fin
            self.closed = True
        for held in frames:
            ledger.unhold(held)
            if not held.out:
                ledger.passed(self._in_turn(held), "checkpoint")
        self.diverged = False
        self.wanted = 0.0
        self.unprotected = not copied

    def _copied(self, frames: list[Held]) -> None:
        """The secondary now has received, sent and offers what the primary does, whatever it did before."""
        self.s_rst = False
        self.next_syn = None
        top = max([self.p_top, *(h.end for h in frames)])
        if top == NEVER:
            # The primary has not spoken here, and what is known was said by a secondary that is no more.
            near = self.near
            self._blank()
            self.near = near
            return
        self.committed = top
        if not self.rivals:
            self.unproven = NEVER
        offers = [(h.ack, -h.win if h.syn else h.win) for h in frames if h.ack > NEVER and h.start != FORMER]
        if self.p_ack > NEVER:
            offers.append((self.p_ack, self.p_win))
        self.s_wire_ack = self.s_win = -1
        if self.s_first is None and not self.rivals:
            self.s_first = self.committed
        if self.p_syn is not None and self.isn is not None:
            self.s_syn, self.s_isn = self.p_syn, self.isn & MASK
            self.p_scale = self.s_scale = self.p_syn.wscale or 0
        if offers:
            self.s_ack = max(ack for ack, _ in offers)
            self.s_edge = max(ack - win if win < 0 else ack + (win << self.p_scale) for ack, win in offers)
            self.s_plain = max(ack + abs(win) for ack, win in offers)

    def let_out(self, cause: str) -> None:
        """Send what is held but keep it for comparing (shadow mode begins)."""
        for held in sorted((*self.data, *self.waiting, *self.resets), key=by_start):
            if not held.out:
                self.ledger.let_out(self, held, cause, self._in_turn(held))
