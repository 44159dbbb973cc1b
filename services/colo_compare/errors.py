"""ICMP errors about one flow: what a guest may leave out.

RFC 1812 §4.3.2.8 and RFC 4443 §2.4(f) tell a node to limit how many errors it sends, and leave it to the node how.
Linux has one limit for each peer and one for all peers together, and the latter has a random part. So two identical
guests answer different packets of a client that sends too many, and an error that only one guest sent is no difference.
The primary's is dropped and counted (`dropped.unmatched`): errors may get lost on any network, so nobody may rely on
one, and the client is told only what both guests say. The secondary's is dropped like everything that it sends.

Errors of both guests are compared. They differ when both quote the same packet and say different things about it::

      primary     [ port unreachable: packet 1 ]   [ port unreachable: packet 3 ]
                              |                        (the secondary left it out)
      secondary   [ host unreachable: packet 1 ]   [ port unreachable: packet 2 ]
                         a difference                  (the primary left it out)
"""

from typing import Final

from colo_compare.arrival import Arrival
from colo_compare.datagram import DatagramFlow, HeldDatagram
from colo_compare.flow import IDLE
from colo_compare.unit import frames_of

QUOTE: Final = 6
"""Offset of the quoted packet in what is compared: behind type, code and four bytes of the error's own."""

REDIRECT: Final = 5
"""The only type of ICMP error that a router sends in addition to another error about the same packet."""

MAX_WAITING: Final = 64
"""Errors of one flow and side that wait for their equals. Linux sends six in a row to a peer and then one a second."""

LEFT_OUT: Final = "unmatched"
"""Why they are dropped, in the counters."""


class ErrorFlow(DatagramFlow):
    """The errors that a guest sends about one flow; `body` is what has to be equal."""

    __slots__ = ()

    def optional(self) -> bool:
        """A guest may leave these out."""
        return True

    def primary(self, arrival: Arrival, now: float) -> None:
        """An error of the primary guest."""
        super().primary(arrival, now)
        ledger = self.ledger
        if len(self.pri) > MAX_WAITING or (self.pri and ledger.held_bytes > ledger.max_held_bytes >> 2):
            # Errors may not use up the memory for what has to be kept.
            self._leave_out(1)

    def secondary(self, arrival: Arrival, now: float) -> None:
        """An error of the secondary guest."""
        super().secondary(arrival, now)
        ledger = self.ledger
        if len(self.sec) > MAX_WAITING or (self.sec and ledger.secondary_bytes > ledger.max_secondary_bytes >> 2):
            self._forget(1, LEFT_OUT)

    def _leave_out(self, count: int) -> None:
        """Drop the primary's oldest `count` errors: the secondary sent none like them."""
        if count:
            gone = self.pri[:count]
            del self.pri[:count]
            self.pri_over = max(self.pri_over - count, 0)
            for held in gone:
                self.ledger.drop(held, LEFT_OUT)
                self.ledger.counters["errors_unmatched"] += frames_of(held.unit)

    # -- do they contradict each other? --------------------------------------------------------------

    def _fresh(self) -> bool:
        # Whether a later one found its equal says nothing: any of them may have been left out.
        return bool(self.pri) and bool(self.sec)

    def _clear_suspicion(self) -> None:
        """A contradiction remains one when another pair was found equal, so the suspicion stays."""

    def judge(self, now: float) -> None:
        """The grace is over: do the guests say different things about the same packet?"""
        self.suspect = 0.0
        found = None if self.diverged else self._contradiction()
        if found is not None:
            self._differ(found[0], found[1], now)

    def _contradiction(self) -> tuple[HeldDatagram, bytes] | None:
        """Two errors that quote the same packet. They are unequal, because equal ones were released."""
        said: dict[bytes, bytes] = {body[QUOTE:]: body for body, _, _ in self.sec}
        for held in self.pri:
            body = held.body
            other = said.get(body[QUOTE:])
            if other is not None and len(body) > QUOTE and (body[0] == other[0] or REDIRECT not in (body[0], other[0])):
                return held, other
        return None

    # -- what the compare asks of every kind of flow -------------------------------------------------

    def timed_out(self, now: float) -> None:
        """Drop the errors that have waited longer than compare_timeout."""
        limit = now - self.ledger.timeout
        self._leave_out(next((n for n, held in enumerate(self.pri) if held.at >= limit), len(self.pri)))

    def expire(self, limit: float, now: float) -> None:
        """Likewise the secondary's, and in shadow mode the primary's that were sent long ago."""
        self._forget(next((n for n, entry in enumerate(self.sec) if entry[1] > limit), len(self.sec)), LEFT_OUT)
        self._leave_out(
            next((n for n, held in enumerate(self.pri) if not held.out or held.at > limit), len(self.pri))
        )  # fmt: skip

    def leftover(self) -> bool:
        """The primary may have left out what the secondary sent."""
        return False

    def idle_since(self, now: float) -> bool:
        """Can the flow be forgotten? Early, because a client that forges addresses makes one flow for each of them."""
        if self.wanted:
            return False
        return now - self.touched > (IDLE if self.unprotected else self.ledger.timeout)
