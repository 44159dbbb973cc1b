"""The shape of a filter: a pure core behind named ports.

::

                    receive(port, frames, now)        outputs: Send, Tell, Log, Save
      links, taps --------------------------> core ---------------------------> links, taps,
      frame       --- tell(message, now) ---->  |                               the COLO frame, the log
      clock       --- on_timer(now) --------->  | deadline() -> when to call on_timer

A core holds no socket, file, clock or random source; `now` (monotonic seconds) is an argument of every call.
The runtime (`colo_runtime`) does all I/O around it; tests and the simulation call it directly.
"""

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from colo_proto.frame import Buffer
from colo_proto.messages import Message
from colo_proto.pcapng import Capture


class Way(Enum):
    """The direction in which frames cross a port."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


class Port(NamedTuple):
    """A named input or output of a core. `name` is the name of QEMU's property where QEMU has one (`outdev`, …)."""

    name: str
    way: Way
    required: bool
    doc: str
    spare: bool = False
    """The port is not on the filter's own way of frames: nothing waits for it, and its frames may be lost."""
    barriers: bool = False
    """The frames of this input are distributed over several workers, of which we are one. `HearsBarriers.barrier` is
    called where a new worker table begins.
    """


class HearsBarriers(Protocol):
    """A core that has ports with `barriers`."""

    def barrier(self, port: str, version: int, now: float) -> list["Output"]:
        """From here on the frames on `port` are distributed by the worker table `version` (-1: there is none yet)."""


class Send(NamedTuple):
    """Frames for an output port."""

    port: str
    frames: Sequence[Buffer]


class Tell(NamedTuple):
    """A control message for the COLO frame; from the core of the frame itself, for the process `to`."""

    message: Message
    to: str | None = None


class Log(NamedTuple):
    """A log event (`noun.verb_past`) that the runtime writes. `level` is the name of a logging level."""

    level: str
    event: str
    fields: dict[str, Any]


class Save(NamedTuple):
    """A file for people (evidence). The core bounds the number and the size of files; the runtime adds the time of day
    and writes the file.
    """

    path: str
    capture: Capture


Output = Send | Tell | Log | Save


class Core(Protocol):
    """What the runtime needs of a filter. `counters` only grow; `gauges()` are levels, which rise and fall."""

    counters: Counter[str]

    @property
    def ports(self) -> tuple[Port, ...]:
        """An attribute of the class, where the configuration does not change the ports."""

    def receive(self, port: str, frames: Sequence[bytes], now: float) -> list[Output]:
        """A batch of frames has arrived on `port`. Frames may be hostile, and must not be modified."""

    def tell(self, message: Message, now: float) -> list[Output]:
        """A control message has arrived from the COLO frame. Unknown messages are ignored."""

    def deadline(self) -> float | None:
        """When `on_timer` must be called next (monotonic seconds), or None."""

    def on_timer(self, now: float) -> list[Output]:
        """The deadline has passed. Calling it too early is harmless."""

    def drain(self, now: float) -> list[Output]:
        """The process is about to stop: return the outputs that may still go out."""

    def gauges(self) -> dict[str, int]:
        """Levels for status and metrics: `held`, `flows`, …"""

    def status(self) -> dict[str, Any]:
        """Details for `colo status`: mode, last difference, …; only values that JSON can hold."""
