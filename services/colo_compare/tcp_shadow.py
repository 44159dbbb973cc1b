"""What has gone before it was compared (shadow mode, `shadow` rules): when is it a difference that the other guest has
nothing like it yet?
"""

from typing import Final

from colo_compare.tcp_commit import TcpCommit
from colo_compare.tcp_state import NEVER, Held, by_arrival

PARTING: Final = 1000
"""Milliseconds after a client's reset in which a guest may still speak."""


class TcpShadow(TcpCommit):
    """A connection whose client waits for neither guest."""

    __slots__ = ()

    def expire(self, limit: float, now: float) -> None:
        """What was sent in shadow mode and found no equal for so long is a difference, reported as one.

        Nothing else of a stream expires: what the client has not acknowledged is sent again or compared. A secondary
        that goes on is merely behind, and so is one whose bytes were lost on the way to here: nobody has it send them
        again, for the client has the primary's.
        """
        if self.closed:
            # Both have ended the stream. Which still remembers it when something late comes, is a matter of time.
            self._leave_out([held for held in self.resets if held.out and held.at <= limit])
        late = [held for held in (*self.data, *self.waiting, *self.resets) if held.out and held.at <= limit]
        if not late or self.wanted or self.moved > limit or self._parted(late) or self._passed_by(now):
            return
        self.ledger.counters["miscompares"] += 1
        self._late(min(late, key=by_arrival), now)

    def _parted(self, late: list[Held]) -> bool:
        """Was a client's reset the reason? How far a guest had come before it heard of that is no difference."""
        if any(held.at * 1000 > self.parted + PARTING for held in late):
            return False
        self._leave_out(late)
        self.closed = True
        return True

    def _leave_out(self, late: list[Held]) -> None:
        for queue in (self.data, self.waiting, self.resets):
            for held in [held for held in queue if held in late]:
                queue.remove(held)
                self.ledger.drop(held, "reset")

    def _passed_by(self, now: float) -> bool:
        """Is the secondary evidently past what is missing of it? Then go on from there; the bytes were not verified."""
        ref, base = self.ref, self.committed
        upto = max(self.s_top, NEVER if ref.fin is None else ref.fin)
        if ref.pending():
            upto = ref.segments[ref.first].start
        # What has not left yet is compared, and nothing is taken for equal that the primary has not even sent.
        upto = min(upto, next((one.start for one in self.data if not one.out), self.p_top))
        if base < 0 or upto <= base or not self.data:
            return False
        self.ledger.counters["secondary_unseen"] += upto - base
        self.committed, self.moved = upto, now
        self._advance(now)
        return True
