"""Drivers: how the two guests are brought to the same state, behind one interface.

A driver is pure like every core. `start` begins a checkpoint. What must be done outside of the frame is sent as
messages to the process `DRIVER_ID` on the control link (a small shell that runs a command or speaks to a QEMU), and the
answers of that process come back through `hear`. Each call returns a `Step`; the checkpoint is over when a step carries
a `Verdict`.

======  ==========================================================================================
flush   Copies nothing. What compare holds for flows that differ is let go, and those flows are
        unprotected until they close.
======  ==========================================================================================
"""

from typing import NamedTuple, Protocol

from colo_frame.config import DRIVERS
from colo_proto.core import Output
from colo_proto.errors import ConfigError
from colo_proto.messages import Message

DRIVER_ID = "driver"
"""Routing id of a driver's shell on the control link."""


class Verdict(NamedTuple):
    """How a checkpoint ended. A failed one changes nothing, and whoever wanted it asks again."""

    ok: bool
    state_copied: bool
    error: str = ""


class Step(NamedTuple):
    """What a driver wants done now, and its verdict once it has one."""

    outputs: list[Output]
    verdict: Verdict | None = None


class Driver(Protocol):
    """What makes a checkpoint, one at a time. Times are monotonic seconds."""

    name: str
    copies_state: bool

    def start(self, epoch: int, now: float) -> Step:
        """Begin the checkpoint that ends in `epoch`."""
        ...

    def hear(self, message: Message, now: float) -> Step:
        """The driver's shell answered."""
        ...

    def deadline(self) -> float | None:
        """When `on_timer` wants to be called, or None."""
        ...

    def on_timer(self, now: float) -> Step:
        """The deadline passed."""
        ...


class Flush:
    """The driver that copies nothing and is done at once."""

    name = "flush"
    copies_state = False

    def start(self, epoch: int, now: float) -> Step:
        """There is nothing to do, so the checkpoint is over at once."""
        return Step([], Verdict(ok=True, state_copied=False))

    def hear(self, message: Message, now: float) -> Step:
        """No answer is expected, because this driver asks nothing."""
        return Step([])

    def deadline(self) -> float | None:
        """There is no deadline, because this driver never waits."""
        return None

    def on_timer(self, now: float) -> Step:
        """There is nothing to do, because this driver never waits."""
        return Step([])


def make_driver(name: str) -> Driver:
    """The driver called `name`."""
    if name == Flush.name:
        return Flush()
    raise ConfigError(f"driver: one of {', '.join(DRIVERS)}, not {name!r}")
