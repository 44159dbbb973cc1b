"""A unit: what is held and released as one."""

from colo_proto.compiled import mypyc_attr
from colo_proto.frame import Buffer

Unit = Buffer | tuple[Buffer, ...]
"""A frame, or the fragments of one datagram."""


def frames_in(unit: Unit) -> tuple[Buffer, ...]:
    """The frames of a unit."""
    return unit if isinstance(unit, tuple) else (unit,)


def frames_of(unit: Unit) -> int:
    """How many frames a unit is."""
    return len(unit) if isinstance(unit, tuple) else 1


@mypyc_attr(acyclic=True)
class HeldUnit:
    """A unit of the primary that waits."""

    __slots__ = ("at", "out", "unit")

    unit: Unit
    at: float
    """When it arrived."""
    out: bool
    """It was sent already (shadow mode) and is kept only to be compared."""
