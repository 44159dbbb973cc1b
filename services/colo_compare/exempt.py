"""Flows that a rule exempts from holding: `pass` looks at nothing, `shadow` compares what has already gone.

::

    pass      primary ----------------------------> outdev        secondary -> dropped
    shadow    primary --+-------------------------> outdev
                        +--> the flow as ever ----> nowhere       secondary -> the flow as ever
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from colo_compare.datagram import DatagramFlow
from colo_compare.ledger import Ledger
from colo_compare.tcp import TcpFlow
from colo_compare.tcp_state import Unit
from colo_proto.net.flow import describe
from colo_proto.pcapng import Shown
from colo_proto.rules import Rule

IDLE: Final = 120.0
"""Seconds after which a silent exempt flow is forgotten; the next packet finds its rule again."""

CAUSE: Final = "rule"
"""Why frames of these flows were released or dropped, in the counters."""


@contextmanager
def aside(ledger: Ledger) -> Iterator[None]:
    """What flows release meanwhile goes nowhere: it has gone already."""
    sink, shadow = ledger.sink, ledger.shadow
    ledger.sink, ledger.shadow = [], True
    try:
        yield
    finally:
        ledger.sink, ledger.shadow = sink, shadow


class WatchedTcp(TcpFlow):
    """A connection under a `shadow` rule."""

    __slots__ = ()

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        super().__init__(ledger, key, rule, now)
        self.shadow = True

    def primary(self, unit: Unit, buf: bytes, l4: int, end: int, now: float) -> None:
        """Send it, then compare it as if it were held."""
        self.ledger.passed(unit, CAUSE)
        with aside(self.ledger):
            super().primary(unit, buf, l4, end, now)

    def secondary(self, buf: bytes, l4: int, end: int, now: float) -> None:
        """Compare it."""
        with aside(self.ledger):
            super().secondary(buf, l4, end, now)


class WatchedDatagrams(DatagramFlow):
    """A flow without a stream under a `shadow` rule."""

    __slots__ = ()

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        super().__init__(ledger, key, rule, now)
        self.shadow = True

    def primary(self, unit: Unit, body: bytes, now: float) -> None:
        """Send it, then compare it as if it were held."""
        self.ledger.passed(unit, CAUSE)
        with aside(self.ledger):
            super().primary(unit, body, now)

    def secondary(self, unit: Unit, body: bytes, now: float) -> None:
        """Compare it."""
        with aside(self.ledger):
            super().secondary(unit, body, now)


class _Passed:
    """A flow under a `pass` rule. It keeps nothing, so there is nothing to flush, judge or show."""

    __slots__ = ("diverged", "key", "ledger", "rule", "shadow", "touched", "unprotected", "wanted")

    kind = "pass"

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        self.ledger = ledger
        self.key = key
        self.rule = rule
        self.touched = now
        self.wanted = 0.0
        self.diverged = self.unprotected = self.shadow = False

    def oldest(self) -> float | None:
        """Nothing is held."""
        return None

    def expire(self, limit: float, now: float) -> None:
        """Nothing is kept."""

    def timed_out(self, now: float) -> None:
        """Nothing waits."""

    def judge(self, now: float) -> None:
        """Nothing is compared."""

    def lingers(self) -> bool:
        """Nothing is kept."""
        return False

    def trim(self, history: int) -> None:
        """There is no history."""

    def flush(self, *, copied: bool) -> None:
        """Nothing is held."""

    def abandon(self, reason: str) -> None:
        """Nothing is held."""

    def let_out(self, cause: str) -> None:
        """Nothing is held."""

    def evidence(self, verdict: str) -> list[Shown]:
        """Nothing is kept."""
        return []

    def idle_since(self, now: float) -> bool:
        """True when the flow can be forgotten."""
        return now - self.touched > IDLE

    def describe(self) -> str:
        """The flow in words."""
        return describe(self.key)


class PassedTcp(_Passed):
    """A connection that is not compared."""

    __slots__ = ()

    def primary(self, unit: Unit, buf: bytes, l4: int, end: int, now: float) -> None:
        """A segment of the primary: away with it."""
        self.touched = now
        self.ledger.passed(unit, CAUSE)

    def secondary(self, buf: bytes, l4: int, end: int, now: float) -> None:
        """A segment of the secondary: nobody asks."""
        self.touched = now
        self.ledger.secondary_gone(1, CAUSE)


class PassedDatagrams(_Passed):
    """A flow without a stream that is not compared."""

    __slots__ = ()

    def primary(self, unit: Unit, body: bytes, now: float) -> None:
        """A datagram of the primary: away with it."""
        self.touched = now
        self.ledger.passed(unit, CAUSE)

    def secondary(self, unit: Unit, body: bytes, now: float) -> None:
        """A datagram of the secondary: nobody asks."""
        self.touched = now
        self.ledger.secondary_gone(1, CAUSE)
