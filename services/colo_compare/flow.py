"""What compare asks of every kind of flow, and the state that all of them have.

::

    Flow ---+--- PassedFlow            Flow itself keeps nothing, and most of its methods do nothing. A class that keeps
            +--- TcpFlow               something overrides them.
            +--- DatagramFlow --- ErrorFlow

`Flow` is a class and not a protocol, because compiled code calls the methods of a class directly.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

from colo_compare.arrival import Arrival
from colo_compare.unit import HeldUnit
from colo_proto.net.flow import describe
from colo_proto.pcapng import Shown
from colo_proto.rules import SHADOW, Rule

IDLE: Final = 120.0
"""Seconds after which a silent flow is forgotten (RFC 4787 REQ-5 asks NATs for at least two minutes)."""


class Flow(ABC):
    """What compare keeps of one flow."""

    __slots__ = ("diverged", "key", "rule", "shadow", "touched", "unprotected", "wanted")

    kept: ClassVar[str] = ""
    """The kind of its state when it is handed over to another worker: `tcp`, `datagrams`, or empty when it has none.

    Ask this and not `isinstance`: compiled classes share one cache (`abc`) of what is an instance of none of them, so
    an instance can be denied.
    """

    def __init__(self, key: bytes, rule: Rule, now: float) -> None:
        self.key = key
        self.rule = rule
        self.touched = now
        """When its last frame arrived."""
        self.wanted = 0.0
        """When it asked for the checkpoint that it waits for; 0 when it waits for none."""
        self.diverged = False
        """A difference was found, and no checkpoint has come since."""
        self.unprotected = False
        """Its frames are released without comparing them, until it ends or a checkpoint copies state."""
        self.shadow = rule.action == SHADOW
        """Its rule says that its frames leave at once and are compared all the same."""

    @abstractmethod
    def primary(self, arrival: Arrival, now: float) -> None:
        """A packet of the primary guest. `arrival` is filled again for the next one."""

    @abstractmethod
    def secondary(self, arrival: Arrival, now: float) -> None:
        """A packet of the secondary guest, likewise. Its numbers are in the primary's space, except for a SYN's."""

    def optional(self) -> bool:
        """May a guest leave out what this flow consists of? Then a frame that only one guest sent is dropped, and is no
        difference (`errors`).
        """
        return False

    def held(self) -> Sequence[HeldUnit]:
        """The units of the primary that it keeps."""
        return ()

    def oldest(self) -> float | None:
        """Arrival time of the oldest unit of the primary that has not left."""
        return min((held.at for held in self.held() if not held.out), default=None)

    def leftover(self) -> bool:
        """Does it keep something of the secondary that the primary has not sent?"""
        return False

    def expire(self, limit: float, now: float) -> None:
        """Give up waiting for the counterparts of what arrived at or before `limit`."""

    def timed_out(self, now: float) -> None:
        """A unit has waited longer than compare_timeout."""

    def judge(self, now: float) -> None:
        """The time is up that the ledger notes for this flow in `suspects` or `stuck`."""

    def lingers(self) -> bool:
        """May `expire` still have something to do?"""
        return any(held.out for held in self.held())

    def sweep(self) -> None:
        """Free what is no longer needed."""

    def flush(self, *, copied: bool) -> None:
        """A checkpoint is done. With `copied` the secondary is a copy of the primary, so everything held may leave."""

    def abandon(self, reason: str) -> None:
        """The flow is about to be forgotten: drop what it holds. A guest will send it again."""

    def let_out(self, cause: str) -> None:
        """Send what is held, but keep it for comparing."""

    def unbound(self) -> None:
        """The secondary no longer limits what this flow offers: tell the client what was kept from it."""

    def evidence(self, verdict: str) -> list[Shown]:
        """Frames of both sides around a difference, with `verdict` as the comment of the frame that differs."""
        return []

    def idle_since(self, now: float) -> bool:
        """Can the flow be forgotten?"""
        return now - self.touched > IDLE

    def describe(self) -> str:
        """The flow in words."""
        return describe(self.key)
