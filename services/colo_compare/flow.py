"""What every kind of flow is to the compare: state that all have, and what is asked of them.

::

    Flow ---+--- Stream ------+--- TcpFlow          Flow by itself keeps nothing:
            |                 +--- PassedTcp        who keeps something says otherwise
            +--- Datagrams ---+--- DatagramFlow ------- ErrorFlow
                              +--- PassedDatagrams

Classes and no protocols, for compiled cores call the methods of a class directly.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from colo_proto.compiled import mypyc_attr
from colo_proto.frame import Buffer
from colo_proto.net.flow import describe
from colo_proto.pcapng import Shown
from colo_proto.rules import Rule

Unit = Buffer | tuple[Buffer, ...]
"""What is released as one: a frame, or the fragments of one datagram."""


def frames_in(unit: Unit) -> tuple[Buffer, ...]:
    """The frames of a unit."""
    return unit if isinstance(unit, tuple) else (unit,)


def frames_of(unit: Unit) -> int:
    """How many frames a unit is."""
    return len(unit) if isinstance(unit, tuple) else 1


@mypyc_attr(acyclic=True)
class HeldUnit:
    """A primary unit that waits."""

    __slots__ = ("at", "out", "unit")

    unit: Unit
    at: float
    """When it came."""
    out: bool
    """Already sent (shadow mode); kept only to be compared."""


class Flow(ABC):
    """What a compare keeps of one flow."""

    __slots__ = ("diverged", "key", "rule", "shadow", "touched", "unprotected", "wanted")

    kept: ClassVar[str] = ""
    """What it is when it moves to another worker (`luggage`): `tcp`, `datagrams`, or empty where it keeps nothing.

    Ask this and not `isinstance`: compiled classes share one memory (`abc`) of what is an instance of none of them, so
    that it can be denied of an instance.
    """

    def __init__(self, key: bytes, rule: Rule, now: float) -> None:
        self.key = key
        self.rule = rule
        self.touched = now
        """When a frame of it came last."""
        self.wanted = 0.0
        """When it asked for the checkpoint that it waits for; 0 when it does not."""
        self.diverged = False
        self.unprotected = False
        self.shadow = False

    def optional(self) -> bool:
        """May a guest leave out what this flow consists of? Then what only one of them sent is dropped, and is no
        difference (`errors`).
        """
        return False

    def oldest(self) -> float | None:
        """Arrival time of the oldest held primary unit."""
        return None

    def leftover(self) -> bool:
        """Does it keep something of the secondary that the primary has not sent?"""
        return False

    def expire(self, limit: float, now: float) -> None:
        """What arrived at or before `limit` and found no counterpart by now has none."""

    def timed_out(self, now: float) -> None:
        """A unit waited longer than compare_timeout."""

    def judge(self, now: float) -> None:
        """What it was suspected of, or stuck with, is due."""

    def lingers(self) -> bool:
        """True while `expire` may have something to do."""
        return False

    def sweep(self) -> None:
        """Let go of what is of no use any more."""

    def flush(self, *, copied: bool) -> None:
        """A checkpoint is done. `copied`: the secondary now is the primary's copy, everything held may go."""

    def abandon(self, reason: str) -> None:
        """The flow goes: what it holds is dropped."""

    def let_out(self, cause: str) -> None:
        """Send what is held but keep it for comparing."""

    def unbound(self) -> None:
        """What this flow sends is bounded by the secondary no more: say what was kept from the client."""

    def evidence(self, verdict: str) -> list[Shown]:
        """Frames of both sides around a difference."""
        return []

    @abstractmethod
    def idle_since(self, now: float) -> bool:
        """True when the flow can be forgotten."""

    def describe(self) -> str:
        """The flow in words."""
        return describe(self.key)


class Stream(Flow):
    """A TCP connection."""

    __slots__ = ()

    @abstractmethod
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
        """A segment of the primary guest: TCP header at `l4` of `buf`, packet up to `end`; then the header's fields,
        `off` with the reserved bits.
        """

    @abstractmethod
    def secondary(
        self, buf: bytes, l4: int, end: int, seq: int, wire_ack: int, off: int, flags: int, win: int, now: float
    ) -> None:
        """A segment of the secondary guest, likewise."""


class Datagrams(Flow):
    """Any other flow; `body` is what has to be equal."""

    __slots__ = ()

    @abstractmethod
    def primary(self, unit: Unit, body: bytes, now: float) -> None:
        """A datagram of the primary guest."""

    @abstractmethod
    def secondary(self, unit: Unit, body: bytes, now: float) -> None:
        """A datagram of the secondary guest."""
