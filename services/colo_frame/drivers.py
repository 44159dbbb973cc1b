"""Drivers: how the two guests are brought to the same state, behind one interface.

A driver is pure like every core. `start` begins a checkpoint. What must be done outside of the frame is sent as
messages to the process `DRIVER_ID` on the control link (a small shell that runs a command or speaks to a QEMU), and the
answers of that process come back through `hear`. Each call returns a `Step`; the checkpoint is over when a step carries
a `Verdict`.

======  ==========================================================================================
flush   Copies nothing. Compare releases what it holds of flows that differ, and those flows are
        unprotected until they close.
======  ==========================================================================================
"""

from typing import ClassVar, Final, NamedTuple

from colo_proto.core import Output
from colo_proto.messages import Message

DRIVER_ID: Final = "driver"
"""Routing id of a driver's shell on the control link."""


class Verdict(NamedTuple):
    """How a checkpoint ended. A failed one changes nothing, and whoever requested it requests it again."""

    ok: bool
    state_copied: bool
    error: str = ""


class Step(NamedTuple):
    """What a driver wants done now, and its verdict once it has one."""

    outputs: list[Output]
    verdict: Verdict | None = None


class Driver:
    """Makes checkpoints, one at a time. Times are monotonic seconds. This one waits for nobody and is done at once."""

    name: ClassVar[str]
    copies_state: ClassVar[bool]

    def start(self, epoch: int, now: float) -> Step:
        """Begin the checkpoint that ends in `epoch`."""
        return Step([], Verdict(ok=True, state_copied=self.copies_state))

    def hear(self, message: Message, now: float) -> Step:
        """Take an answer of the driver's shell."""
        return Step([])

    def deadline(self) -> float | None:
        """When to call `on_timer`, or None."""
        return None

    def on_timer(self, now: float) -> Step:
        """The deadline has passed."""
        return Step([])


class Flush(Driver):
    """The driver that copies nothing."""

    name = "flush"
    copies_state = False


DRIVERS: Final[dict[str, type[Driver]]] = {Flush.name: Flush}
"""The values of `--driver`."""
