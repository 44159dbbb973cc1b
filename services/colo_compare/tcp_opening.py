"""How a connection begins: SYNs of both guests, in any order and number; or in the middle, where none was seen."""

from typing import Final

from colo_compare.history import SEGMENT_COST, cost
from colo_compare.stream import Reference
from colo_compare.tcp_shadow import TcpShadow
from colo_compare.tcp_state import FORMER, NEVER, Held, NextSyn
from colo_proto.net.tcp import ACK, SynOptions, syn_options
from colo_proto.seq import MASK, MOD

SYN_MEMORY: Final = 60.0
"""Seconds that a secondary's SYN waits for the primary to open the same connection (RFC 9293 §3.8.3 gives up on a SYN
after a few minutes; common stacks after one).
"""
MOST_SYN_DATA: Final = 9000
"""Bytes of data on a SYN (Fast Open, RFC 7413) that one guest may acknowledge and the other not: a jumbo frame's."""
MOST_RIVALS: Final = 8
"""Numbers of SYN/ACKs that are remembered: a client repeats its SYN about so often."""


class TcpOpening(TcpShadow):
    """A connection that begins."""

    __slots__ = ()

    def _open(self, seq: int, number: int, options: SynOptions, now: float) -> None:
        """A SYN with a new initial sequence number: a new connection on this key."""
        ledger = self.ledger
        fresh = self.isn is None and self.committed < 0
        pending = self.next_syn
        if pending is not None and pending.ack != number:
            pending = None  # the answer to another SYN of the client
        if fresh and self.s_syn is not None:
            pending = NextSyn(self.s_syn, self.s_isn, self.s_ack, self.s_edge, now)
        rivals = self._rivals(seq, number)
        if rivals and pending is None and self.s_syn is not None and self.s_ack == number:
            # What the secondary answered to this SYN before is its answer still.
            pending = NextSyn(self.s_syn, self.s_isn, self.s_ack, self.s_edge, now)
        near = self.near
        resets = self._resets_of_former()
        for held in (*self.data, *self.waiting, *self.resets):
            ledger.drop(held, "replaced")
        self._clear_queues()
        self.resets = resets
        early = self.ref.segments[0] if fresh and self.ref.segments else None
        self._forget_reference("overtaken")
        self.ref = Reference()
        self._blank()
        self.near = near
        self.next_syn = None
        if self.diverged or self.unprotected:
            ledger.protect(self)
        self.diverged = self.unprotected = False
        self.wanted = 0.0
        self.origin = self.isn = self.committed = seq + MOD
        self.p_first = self.isn
        self.p_syn = options
        if rivals:
            # Where the stream begins is not known yet: nothing before this place has been compared.
            self.rivals, self.unproven = rivals, self.isn + 1
        if pending is not None and now - pending.at <= SYN_MEMORY:
            self.s_syn, self.s_isn, self.s_ack, self.s_edge, _ = pending
            if early is not None:
                ledger.secondary_gone(-1, "overtaken", stored=True)
                self.ref.insert(self.isn + 1, self.isn + 1 + early.stop - early.start, early.buffer, early.offset)
                ledger.secondary_bytes += cost(self.ref.segments)

    def _resets_of_former(self) -> list[Held]:
        """Take out the RSTs of the primary that still wait for the secondary's, for another connection begins.

        A stranger's SYN, or one that came late, may open that other connection at a guest that has closed (RFC 9293
        §3.10.7.1). The client then knows nothing of it, and waits for the RST of the one that it has.
        """
        if self.diverged:
            return []
        kept = [held for held in self.resets if not held.out]
        for held in kept:
            self.resets.remove(held)
            held.start = held.stop = held.end = held.good = held.gone = FORMER
        return kept

    def _let_former_go(self) -> None:
        """The secondary has nothing left of the connection before, either: its RSTs leave."""
        former = [held for held in self.resets if held.start == FORMER]
        for held in former:
            self.resets.remove(held)
            self.ledger.unhold(held)
            self.ledger.sink.append(held.unit)

    def _rivals(self, seq: int, number: int) -> tuple[int, ...]:
        """The initial sequence numbers with which the primary has answered this SYN of the client before.

        With SYN cookies the answer to a repeated SYN has another number once the secret has changed, and the client may
        take either. The primary has said nothing else meanwhile: nothing is known to it of the connection.
        """
        if self.isn is None or number == NEVER or self.p_ack != number or self.p_win >= 0 or self.unprotected:
            return ()
        known = (self.isn & MASK, *(isn for isn in self.rivals if isn not in {seq, self.isn & MASK}))
        return known[:MOST_RIVALS]

    def _secondary_syn(
        self, buf: bytes, l4: int, data: int, end: int, seq: int, ack: int, flags: int, win: int, now: float
    ) -> None:
        ledger = self.ledger
        options = syn_options(buf, l4, data)
        number = self._ack(ack) if flags & ACK else NEVER
        edge = number + win if flags & ACK else NEVER
        ours = self.s_isn == seq or (self.s_syn is None and (self.isn is not None or self.committed < 0))
        if self.s_syn is not None and self.isn is not None and (seq == self.isn & MASK or seq in self.rivals):
            # Repeated, and in the primary's numbers: the rewriter knows the connection by now.
            ledger.secondary_compared += 1
            return
        if self.unprotected or not ours or self._of_another(number):
            # Another connection, of which the primary has not spoken yet.
            self.next_syn = NextSyn(options, seq, number, edge, now)
            ledger.secondary_compared += 1
            return
        self.s_syn, self.s_isn, self.s_rst = options, seq, False
        self.s_ack = max(self.s_ack, number)
        self.s_edge = max(self.s_edge, edge)
        if end > data and not self.ref.segments:
            # Data on a SYN (RFC 7413) follows the SYN in whichever space; a secondary that is first waits in its own.
            after = (self.isn if self.isn is not None else seq + MOD) + 1
            self._store(after, after + end - data, buf, data, -1)
        else:
            ledger.secondary_compared += 1
        if self.data:
            self._advance(now)
        if not self.diverged:
            self._unblock()
            if self.clamped is not None:
                self._reopen(self.clamped)

    def _of_another(self, number: int) -> bool:
        """Does a SYN/ACK of the secondary with this acknowledgement answer another SYN than the primary's, which waits?

        A stranger's, or one that came late, may have opened a connection at the one guest and not at the other.
        """
        held = next((one for one in self.data if one.syn), None)
        if held is None or NEVER in {held.ack, number}:
            return False
        apart = (number - held.ack) & MASK
        return min(apart, MOD - apart) > MOST_SYN_DATA

    def _stranger(self) -> None:
        """It was open before the secondary came, which does not have it."""
        self.unprotected = True
        self.ledger.unprotected.add(self.key)
        self.ledger.counters["strangers"] += 1
        self._forget_reference("unprotected")
        self.ref = Reference()

    def _adopt(self, now: float) -> None:
        """Both sides are known by position only (compare was restarted): go on from the later one.

        Whoever speaks at a position has produced everything before it, so both guests are past the
        maximum of the two first positions. What they sent before and the client has not acknowledged, both send
        again: it goes when it was compared here, and not because it lies behind (`unproven`).
        """
        if self.committed < 0 and self.p_first is not None and self.s_first is not None:
            self.committed = self.unproven = max(self.p_first, self.s_first)
            self.adopted = True
            self.ledger.counters["adopted"] += 1
            self._confirm(self.committed)
            for held in [h for h in self.data if h.start == h.end]:
                # A pure ACK obeys the ACK rule alone, wherever it stands.
                self.data.remove(held)
                held.overtakes = bool(self.data)
                self._queue(held)
            # They came before whatever bytes are found equal now.
            self._unblock()
            self._advance(now)

    def _store(self, start: int, stop: int, buf: bytes, data: int, base: int) -> None:
        ledger, ref = self.ledger, self.ref
        if start < base:
            if start < self.unproven:
                self._remember(buf, data, start, base)
            data += base - start
            start = base
        if ref.pending() >= ledger.room or (base >= 0 and stop - base > ledger.max_stream_bytes):
            # Nothing past `committed` was acknowledged by the client: the guest will send it again.
            ledger.secondary_gone(1, "queue_full")
            return
        added = len(ref.insert(start, stop, buf, data))
        ledger.held_secondary += added
        ledger.secondary_bytes += added * (len(buf) + SEGMENT_COST)
        # A frame that only fills holes may become several pieces, or none: the count of frames stays right.
        if added != 1:
            ledger.secondary_pieces(added)

    def _remember(self, buf: bytes, data: int, start: int, stop: int) -> None:
        """Keep bytes from before the place where this connection was adopted: the primary will repeat them too."""
        ref, ledger = self.ref, self.ledger
        added = ref.insert(start, stop, buf, data)
        ref.first += len(added)
        ledger.secondary_bytes += len(added) * (len(buf) + SEGMENT_COST)
        for one in added:
            ledger.secondary_bytes -= ledger.history.add(one)
