"""How far the secondary host is behind the primary's, as a whole.

Nothing makes a primary wait for a slower secondary host. What is late for that reason is not different, so how long a
frame may wait depends on it: before frames leave (`tcp.lateness`), and in shadow mode, where they have left.
"""

import math


class Lag:
    """The lag of one compare, measured at each scan. A secondary that makes no progress at all gets no respite."""

    __slots__ = ("_measured", "_progress", "_reached", "least_wait", "reached", "seconds", "shadow", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        """After so many seconds without any progress the secondary is not called behind any more."""
        self.reached = 0.0
        """When the primary sent the newest of what had left unverified and was found equal since (shadow mode)."""
        self.least_wait = math.inf
        """The least that a segment was held before its equal came, since the last scan."""
        self.shadow = 0.0
        """How far the secondary is behind in shadow mode, in seconds."""
        self.seconds = 0.0
        """The same of what is held: no connection gets its equal sooner."""
        self._reached = 0.0
        self._progress = self._measured = -math.inf

    def found(self, at: float) -> None:
        """What the primary sent at `at`, and what has left, was found equal."""
        self.reached = max(self.reached, at)

    def waited(self, seconds: float) -> None:
        """A segment was held for so long before the secondary had sent the same."""
        self.least_wait = min(self.least_wait, seconds)

    def measure(self, now: float) -> None:
        """Call it at each scan."""
        if self.reached > self._reached:
            self._reached, self._progress = self.reached, now
        self.shadow = now - self.reached if now - self._progress < self.timeout else 0.0
        if self.least_wait < math.inf:
            self.seconds, self.least_wait, self._measured = self.least_wait, math.inf, now
        elif now - self._measured > self.timeout:
            self.seconds = 0.0
