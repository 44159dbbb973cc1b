"""The failovers of a lab in the symmetric wiring: who leads, and what became of each change. Pure.

A pair there lives through any number of them: the leader dies or is asked to yield, the other host leads, and the host
that died is repaired and becomes its standby. `Circle` has a record of each, and completes it from what the COLO frames
of both hosts answer::

    began --> led (the other host has the LAN) --> repaired (only if the host had died) --> protected

All times are monotonic seconds of this machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from colo_proto.topology import SIDES, Side

OTHER: Final[dict[Side, Side]] = {"primary": "secondary", "secondary": "primary"}
DIED, PLANNED = "died", "planned"
Bodies = Mapping[str, Mapping[str, Any]]
"""By side, what its COLO frame has answered to `status`."""


@dataclass(slots=True)
class Failover:
    """One change of the host that leads."""

    side: Side
    """The host that led until then."""
    kind: str
    """`died` or `planned`."""
    began: float
    refused: str = ""
    """Why the COLO frame did not carry out the order; empty when it did."""
    led: float | None = None
    silence_ms: int | None = None
    """How long the new leader had not heard the other host."""
    repaired: float | None = None
    """When the processes of the host that died were started again."""
    protected: float | None = None
    """When both COLO frames said that the pair is protected again (`protected`)."""


@dataclass(slots=True)
class Circle:
    """See the module."""

    records: list[Failover] = field(default_factory=list)

    def begin(self, now: float, side: Side, kind: str, refused: str = "") -> None:
        """The host `side`, which leads, has died or was asked to yield."""
        self.records.append(Failover(side, kind, now, refused))

    def repair(self, now: float, side: Side) -> None:
        """The processes of this host are started again."""
        for record in self.records:
            if record.side == side and record.kind == DIED and record.repaired is None:
                record.repaired = now

    @property
    def pending(self) -> bool:
        """True while the newest record is not complete, so that the COLO frames have to be asked."""
        return bool(self.records) and not self.records[-1].refused and self.records[-1].protected is None

    def observe(self, now: float, bodies: Bodies) -> None:
        """Take what the COLO frames have answered just now. Only the newest failover can still be completed."""
        record = self.records[-1] if self.records else None
        if record is None or record.refused or leader(bodies) != OTHER[record.side]:
            return
        if record.led is None:
            promotion = _mapping(_leadership(bodies, OTHER[record.side]).get("promotion"))
            told = isinstance(promotion.get("at"), float) and promotion["at"] >= record.began
            record.led = promotion["at"] if told else now
            record.silence_ms = promotion.get("silence_ms") if told else None
        began = record.repaired if record.kind == DIED else record.led
        if record.protected is None and began is not None and protected(bodies):
            record.protected = now


def leader(bodies: Bodies) -> Side | None:
    """The host that may write to the client LAN by what its COLO frame says. If both say so, the one with the higher
    fencing token; None: nobody says so.
    """
    writers = [side for side in SIDES if _leadership(bodies, side).get("writes") is True]
    return max(writers, key=lambda side: int(bodies[side].get("fence") or 0), default=None)


def protected(bodies: Bodies) -> bool:
    """True when both COLO frames answer, and both say that the pair is protected, or that only connections which were
    open at the resync are not. These stay so until they close; new ones are protected.
    """
    return all(_whole(_mapping(bodies.get(side, {}).get("verdict"))) for side in SIDES)


def _whole(verdict: Mapping[str, Any]) -> bool:
    causes = verdict.get("causes") or []
    return "level" in verdict and all(_mapping(one).get("reason") == "flows" for one in causes)


def _leadership(bodies: Bodies, side: str) -> Mapping[str, Any]:
    return _mapping(bodies.get(side, {}).get("leadership"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
