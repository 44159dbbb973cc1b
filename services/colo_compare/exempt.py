"""Flows that a rule exempts from being held: `pass` looks at nothing, `shadow` compares what was sent already.

::

    pass      primary ----------------------------> outdev        secondary -> dropped
    shadow    primary --+-------------------------> outdev
                        +--> compared as usual ---> nowhere       secondary -> compared as usual
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from colo_compare.arrival import Arrival
from colo_compare.flow import Flow
from colo_compare.ledger import Ledger
from colo_compare.telling import TCP_KEY
from colo_proto.net.tcp import SYN
from colo_proto.rules import Rule

CAUSE: Final = "rule"
"""Why frames of these flows were released or dropped, in the counters."""


@contextmanager
def already_sent(ledger: Ledger) -> Iterator[None]:
    """What flows release in this context goes nowhere, because it was sent already (`shadow` rules, shadow mode)."""
    sink, shadow = ledger.sink, ledger.shadow
    ledger.sink, ledger.shadow = [], True
    try:
        yield
    finally:
        ledger.sink, ledger.shadow = sink, shadow


class PassedFlow(Flow):
    """A flow under a `pass` rule."""

    __slots__ = ("known", "ledger")

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        super().__init__(key, rule, now)
        self.ledger = ledger
        self.known = False
        """The secondary's rewriter was told that this connection is unprotected."""

    def primary(self, arrival: Arrival, now: float) -> None:
        """Send it."""
        self.touched = now
        if not self.known or (self.key[:1] == TCP_KEY and arrival.flags & SYN):
            self.known = True
            self.ledger.telling.lost(self.key)
        self.ledger.passed(arrival.unit, CAUSE)

    def secondary(self, arrival: Arrival, now: float) -> None:
        """Drop it."""
        self.touched = now
        self.ledger.secondary_gone(1, CAUSE)
