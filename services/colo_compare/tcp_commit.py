"""How far both guests have come: holding segments, comparing them as far as the secondary's bytes reach, letting go.

::

    data      by position: not yet equal to the end      --_match-->  waiting, or out
    waiting   by ACK: equal, acknowledges too much       --_unblock-->  out
    resets    RSTs that the other side has not sent yet  --_reset-->  out

Two guests need not cut or probe in the same way: what would keep both waiting goes in part (`tcp_part`).
"""

from bisect import bisect_left, insort
from typing import Final

from colo_compare.stream import first_difference
from colo_compare.tcp_part import HEAD_WAIT
from colo_compare.tcp_state import NEVER, Held, by_ack, by_start
from colo_compare.tcp_unkept import TcpUnkept
from colo_proto.messages import Reason
from colo_proto.net.stamp import NO_STAMP

LONGEST: Final = 1 << 16
"""No segment has more bytes."""


class TcpCommit(TcpUnkept):
    """A connection's committed prefix."""

    __slots__ = ()

    def _confirm(self, committed: int) -> None:
        ledger = self.ledger
        pieces, saved = self.ref.confirm(committed, ledger.history)
        ledger.held_secondary -= pieces
        ledger.secondary_compared += pieces
        ledger.secondary_bytes -= saved

    # -- holding and releasing -----------------------------------------------------------------------

    def _hold(self, held: Held) -> None:
        data, ledger = self.data, self.ledger
        if ledger.full(self, held, len(data) + len(self.waiting)):
            if ledger.ahead(self):
                self._unkept(held)
            return
        ledger.hold(self, held)
        if not data or data[-1].start <= held.start:
            data.append(held)
        else:
            held.overtakes = True
            insort(data, held, key=by_start)

    def _wait(self, held: Held) -> None:
        waiting, ledger = self.waiting, self.ledger
        if ledger.ahead(self) and waiting and len(waiting) >= ledger.max_queue_size:
            self._unkept_ack(held)
            return
        if ledger.full(self, held, len(self.data) + len(waiting)):
            if ledger.ahead(self):
                self._unkept_ack(held)
            return
        if self.data:
            held.overtakes = True
        ledger.hold(self, held)
        self._queue(held)

    def _queue(self, held: Held) -> None:
        """Its bytes are equal; it waits for the secondary's ACK."""
        waiting = self.waiting
        if not waiting or waiting[-1].ack <= held.ack:
            waiting.append(held)
        else:
            insort(waiting, held, key=by_ack)

    def _advance(self, now: float) -> None:
        """Compare held segments as far as the secondary's bytes reach; let go what is equal."""
        data = self.data
        at = 0
        while at < len(data) and not self.diverged:
            held = data[at]
            committed = self.committed
            if committed < 0 or held.start > committed:
                break
            if not self._match(held, committed, now):
                break
            if held.good > committed:
                self.committed = held.good
                self.moved = now
                self._confirm(held.good)
            if held.good < held.end:
                at += 1
                if held.good > held.gone and self not in self.ledger.stuck:
                    self.ledger.stuck[self] = now + HEAD_WAIT
                continue
            del data[at]
            if at:
                # What is equal in part, and begins before it, follows it.
                held.overtakes = True
                at = 0
            if held.fin and self.ref.fin is not None:
                self.closed = True
            if held.ack <= self.s_ack:
                self._let_go(held)
            else:
                if self.waiting and self.waiting[-1].at >= held.at:
                    self.waiting[-1].overtakes = True
                self._queue(held)
        if data and (self.ref.fin is not None or self.p_fin > NEVER) and not self.diverged:
            self._match_ends(now)

    def _match_behind(self, start: int, stop: int, now: float) -> None:
        """Bytes from `start` to `stop` came, of either side, and something is missing before them: what differs already
        is a difference whatever will be there. (A mask needs to know what comes before.)
        """
        data, segments = self.data, self.ref.segments
        start = max(start, self.committed)
        if self.rule.masks or self.diverged or self.committed < 0:
            return
        for at in range(bisect_left(data, start - LONGEST, key=by_start), len(data)):
            held = data[at]
            if held.start >= stop:
                break
            if held.stop - held.start <= 1 or not held.buf:
                # A keep-alive's byte may be garbage.
                continue
            for which in range(self.ref.find(max(start, held.start)), len(segments)):
                one = segments[which]
                low, high = max(start, held.start, one.start), min(stop, held.stop, one.stop)
                if low >= high:
                    break
                mine = held.buf[held.data + low - held.start : held.data + high - held.start]
                its = one.buffer[one.offset + low - one.start : one.offset + high - one.start]
                if mine != its:
                    self._diverge(Reason.PAYLOAD, low + first_difference(mine, its), held, now)
                    return

    def _match_ends(self, now: float) -> None:
        """One stream has ended where the other goes on: they differ, whether all that lies before has come or not."""
        fin, segments = self.ref.fin, self.ref.segments
        for held in self.data:
            if held.end <= self.committed:
                continue
            if fin is not None and (held.stop > fin or (held.fin and held.stop != fin)):
                self._diverge(Reason.FIN, min(fin, held.stop) if held.fin else fin, held, now)
                return
            if held.fin and fin is None and segments and segments[-1].stop > held.stop:
                self._diverge(Reason.FIN, held.stop, held, now)
                return

    def _match(self, held: Held, committed: int, now: float) -> bool:
        """Move `held.good` over everything that is equal; False when a difference was found."""
        position, stop, ref = held.good, held.stop, self.ref
        if held.syn and position == held.start:
            if position >= committed and not self._match_syn(held, now):
                # In shadow mode a difference is reported and forgotten: `diverged` does not tell.
                return self.s_syn is None
            if self.s_syn is None:
                return True
            position += 1
        segments = ref.segments
        at = ref.first if position >= committed else ref.find(position)
        count = len(segments)
        buf, delta = held.buf, held.data - held.start
        while position < stop:
            while at < count and (segments[at].stop <= position or not segments[at].buffer):
                at += 1
            if at == count or segments[at].start > position:
                if position >= committed or position < self.unproven:
                    break
                # A retransmission of bytes whose history is gone.
                upto = min(stop, committed, segments[at].start if at < count else stop)
                self.ledger.counters["bytes_unverified"] += upto - position
                position = upto
                continue
            one = segments[at]
            other = one.buffer
            upto = min(stop, one.stop)
            size = upto - position
            mine, its = position + delta, one.offset + position - one.start
            if buf[mine : mine + size] != other[its : its + size]:
                if not buf:
                    self.ledger.counters["bytes_unjudged"] += size
                    position = upto
                    continue
                if stop - held.start <= 1 and stop == self.p_top and position < committed:
                    # A keep-alive may carry one garbage byte before SND.NXT (RFC 9293 §3.8.4).
                    position = stop
                    break
                where = position + first_difference(buf[mine : mine + size], other[its : its + size])
                excused = self._excused(held, where) if self.rule.masks else False
                if excused:
                    self.ledger.counters["bytes_masked"] += min(self.mask_end, upto) - where
                    position = min(self.mask_end, upto)
                    continue
                held.good = where
                if excused is None:
                    # A mask may still cover it: more bytes have to come, or compare_timeout asks.
                    return True
                self._diverge(Reason.PAYLOAD, where, held, now)
                return False
            if position >= committed:
                self.ledger.bytes_compared += size
            position = upto
        held.good = position
        fin = ref.fin
        if position == stop and held.fin:
            if fin == stop:
                held.good = held.end
            elif fin is not None or ((at := ref.find(stop)) < len(segments) and segments[at].start <= stop):
                self._diverge(Reason.FIN, stop, held, now)
                return False
        elif fin is not None and stop > fin and position >= fin and held.end > committed:
            self._diverge(Reason.FIN, fin, held, now)
            return False
        return True

    def _excused(self, held: Held, where: int) -> bool | None:
        """Does a mask cover the difference at `where`? Then `mask_end` says how far. None: an expression may
        cover it once more bytes are here.
        """
        if self.mask_start <= where < self.mask_end:
            return True
        undecided = False
        for mask in self.rule.masks:
            if mask.pattern is None:
                # Places count from the SYN; who came later than that does not know them.
                stop = mask.place(self.offset(where)) if self.isn is not None else None
                if stop is not None:
                    self.mask_start, self.mask_end = where, where + stop - self.offset(where)
                    return True
                continue
            # What came before is equal, so the secondary's bytes serve for both.
            its, begin = self.ref.slice(where - mask.window, where + mask.window)
            before = where - begin
            mine = its[:before] + self._ahead(held, where, mask.window)
            reach = mask.covers(mine, its, before)
            if reach:
                self.mask_start, self.mask_end = where, where + reach
                return True
            undecided |= min(len(mine), len(its)) < before + mask.window
            if len(mine) < before + mask.window and self._place_ahead(where, mask.window):
                # What the expression would need to see was not kept.
                self.mask_start, self.mask_end = where, held.stop
                return True
        return None if undecided and self.ref.fin is None else False

    def _ahead(self, held: Held, where: int, size: int) -> bytes:
        """The primary's bytes from `where`, in `held` and what follows it, at most `size`."""
        at = held.data + where - held.start
        found = bytes(held.buf[at : held.data + held.stop - held.start][:size])
        for one in self.data:
            position = where + len(found)
            if len(found) >= size:
                break
            if one.start <= position < one.stop:
                at = one.data + position - one.start
                found += bytes(one.buf[at : one.data + one.stop - one.start][: size - len(found)])
        return found

    def _match_syn(self, held: Held, now: float) -> bool:
        if self.s_syn is None:
            return False
        if self.p_syn != self.s_syn:
            self._diverge(Reason.OPTIONS, held.start, held, now)
            return False
        mine, its = self.p_syn.wscale if self.p_syn else None, self.s_syn.wscale
        # Scaling is on only when both directions offer it. A guest's SYN/ACK carries the option only in answer to
        # one; whether an opener's offer was taken is never seen here (see `opener`).
        self.p_scale, self.s_scale = mine or 0, its or 0
        self.s_win = -1
        return True

    def _unblock(self) -> None:
        """The secondary acknowledged more: let waiting segments go."""
        waiting, limit = self.waiting, self.s_ack
        gone = 0
        for held in waiting:
            if held.ack > limit:
                break
            gone += 1
        if gone:
            for held in waiting[:gone]:
                self._let_go(held)
            del waiting[:gone]

    def _let_go(self, held: Held) -> None:
        ledger = self.ledger
        ledger.unhold(held)
        if held.out:
            ledger.verified(held)
        elif held.syn:
            self._emit_syn(held)
        elif self.stamp != NO_STAMP or held.overtakes or held.gone > held.start:
            self._let_rest_go(held)
        else:
            self._emit(held.unit, held.buf, held.l4, held.data, held.end, held.ack, held.win)

    def _let_rest_go(self, held: Held) -> None:
        """Not all of it leaves, or not in the order in which it was sent."""
        if isinstance(held.unit, tuple):
            self._emit(held.unit, held.buf, held.l4, held.data, held.end, held.ack, held.win)
            return
        rest = self._part(held, held.gone, held.end)
        if held.overtakes and self._may_have_reached(held.start):
            self._outrun(held.buf, held.l4, held.data)
        self._emit(rest, rest, held.l4, held.data, held.end, held.ack, held.win)

    # -- endings -------------------------------------------------------------------------------------

    def _reset(self, held: Held | None) -> None:
        """Both sides reset the connection: what was still held can never be compared, the RST goes."""
        ledger = self.ledger
        for one in (*self.data, *self.waiting):
            ledger.drop(one, "reset")
        resets = self.resets
        self._clear_queues()
        self._forget_reference("overtaken")
        for one in resets:
            ledger.unhold(one)
            if not one.out:
                ledger.sink.append(one.unit)
        if held is not None:
            ledger.sink.append(held.unit)
        self.closed = True
        self.clamped = None

    def _diverge(self, reason: str, position: int, held: Held, now: float) -> None:
        self.diverged = True
        self.ledger.counters["miscompares"] += 1
        self.ledger.want(self, reason, self.offset(position), self._explain(position, held, now), now)
