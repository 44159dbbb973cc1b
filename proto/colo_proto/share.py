"""How much each connection may have under way, when hundreds of them send at once.

The frames of all connections wait in the same queues: those of the taps, and the replay ring of the mirror link. TCP
lets a window grow until something is lost, and a lost frame costs more here than on a wire: both guests must send it
again, and nothing behind it leaves before. So the windows that receivers offer are lowered until all connections
together fit into the queues. A connection counts while data is acknowledged on it.

::

    mirror  --> the windows of clients, which bound what the guests send
    compare --> the windows of the guests, which bound what clients send

There is no clock here: `now` is an argument, in seconds.
"""

from typing import Final

TICK: Final = 0.25
"""Seconds in which an active connection is counted once."""
FADING: Final = 0.875
"""The share of the number of active connections that remains of it after each tick, at least. So their windows do not
grow at once when all of them wait for a retransmission."""
LEAST: Final = 16 << 10
"""Bytes that each connection may have under way, whatever the number of them: about what TCP begins with (RFC 6928)."""
AMPLE: Final = 6 << 20
"""A share that bounds nobody: Linux offers no more than this (`tcp_rmem`)."""


class Share:
    """The share of each connection in `budget` bytes, but `least` bytes; without a budget there is no bound."""

    def __init__(self, budget: int, least: int = LEAST) -> None:
        self.budget = budget
        self.least = least
        self.parts = 1
        """So many processes share the budget, and each has about as many of the connections."""
        self.bytes = AMPLE
        """What each may have under way. `AMPLE` or more is no bound."""
        self.tick = 0
        """The number of the present tick. Whoever counts a connection remembers this number, to count it once."""
        self.active = 0
        """Connections that were active in the last tick, or a little fewer than there were some ticks ago."""
        self._counted = 0
        self._next = float("-inf")

    def advance(self, now: float) -> None:
        """Time has passed."""
        if now < self._next or not self.budget:
            return
        ticks = min((now - self._next) / TICK, 1000.0) if self.tick else 0.0
        self._next = now + TICK
        self.tick += 1
        self.active = int(max(self._counted, self.active * FADING) * FADING ** int(ticks))
        self._counted = 0
        self._divide(self.active)

    def count(self) -> None:
        """A connection is active that was not counted in this tick."""
        self._counted += 1
        if self._counted > self.active:
            self._divide(self._counted)

    def _divide(self, active: int) -> None:
        self.bytes = max(self.budget // (self.parts * max(active, 1)), self.least) if self.budget else AMPLE
