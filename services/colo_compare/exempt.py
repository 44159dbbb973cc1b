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
from colo_compare.errors import ErrorFlow
from colo_compare.flow import Datagrams, Stream, Unit
from colo_compare.ledger import Ledger
from colo_compare.tcp import TcpFlow
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
        """Send it, then compare it as if it were held."""
        self.ledger.passed(unit, CAUSE)
        with aside(self.ledger):
            super().primary(unit, buf, l4, end, seq, wire_ack, off, flags, win, now)

    def secondary(
        self, buf: bytes, l4: int, end: int, seq: int, wire_ack: int, off: int, flags: int, win: int, now: float
    ) -> None:
        """Compare it."""
        with aside(self.ledger):
            super().secondary(buf, l4, end, seq, wire_ack, off, flags, win, now)


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


class WatchedErrors(ErrorFlow):
    """ICMP errors about a flow under a `shadow` rule."""

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


class PassedTcp(Stream):
    """A connection under a `pass` rule."""

    __slots__ = ("ledger",)

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        super().__init__(key, rule, now)
        self.ledger = ledger

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
        """A segment of the primary: away with it."""
        self.touched = now
        self.ledger.passed(unit, CAUSE)

    def secondary(
        self, buf: bytes, l4: int, end: int, seq: int, wire_ack: int, off: int, flags: int, win: int, now: float
    ) -> None:
        """A segment of the secondary: nobody asks."""
        self.touched = now
        self.ledger.secondary_gone(1, CAUSE)

    def idle_since(self, now: float) -> bool:
        """True when the flow can be forgotten."""
        return now - self.touched > IDLE


class PassedDatagrams(Datagrams):
    """A flow without a stream under a `pass` rule."""

    __slots__ = ("ledger",)

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        super().__init__(key, rule, now)
        self.ledger = ledger

    def primary(self, unit: Unit, body: bytes, now: float) -> None:
        """A datagram of the primary: away with it."""
        self.touched = now
        self.ledger.passed(unit, CAUSE)

    def secondary(self, unit: Unit, body: bytes, now: float) -> None:
        """A datagram of the secondary: nobody asks."""
        self.touched = now
        self.ledger.secondary_gone(1, CAUSE)

    def idle_since(self, now: float) -> bool:
        """True when the flow can be forgotten."""
        return now - self.touched > IDLE
