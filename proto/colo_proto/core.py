"""The shape of a filter: a pure core behind named ports.

::

                    receive(port, frames, now)        outputs: Send, Tell, Log, Save
      links, taps --------------------------> core ---------------------------> links, taps,
      frame       --- tell(message, now) ---->  |                               the COLO frame, the log
      clock       --- on_timer(now) --------->  | deadline() -> when to call on_timer

A core holds no socket, file, clock or random source; `now` is monotonic seconds and is handed in.
The runtime (`colo_runtime`) does all I/O around it; tests and the simulation drive it by hand.
"""

from collections import Counter
from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple, Protocol

from colo_proto.frame import Buffer
from colo_proto.messages import Message
from colo_proto.pcapng import Capture


class Way(Enum):
    """Which way frames cross a port."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


class Port(NamedTuple):
    """A named opening of a core. `name` is QEMU's property name where QEMU has one (`outdev`, …)."""

    name: str
    way: Way
    required: bool
    doc: str
    spare: bool = False
    """Beside the filter's own way of frames: nothing waits for it, and nothing is promised for what it brings."""
    marks: bool = False
    """An input that is shared out to several of us: `Marked.mark` hears where a new table begins."""


class Marked(Protocol):
    """What a core with `marks` ports has beside the rest."""

    def mark(self, port: str, version: int, now: float) -> list["Output"]:
        """What comes on `port` from here on was shared out by the worker table `version` (-1: there is none yet)."""
        ...


class Send(NamedTuple):
    """Frames for an output port."""

    port: str
    frames: Sequence[Buffer]


class Tell(NamedTuple):
    """A control message for the COLO frame (or, from the frame core, for the process `to`)."""

    message: Message
    to: str | None = None


class Log(NamedTuple):
    """A log event (`noun.verb_past`) for the runtime to write. `level` is a logging level name."""

    level: str
    event: str
    fields: dict[str, Any]


class Save(NamedTuple):
    """A file for people (evidence). The core bounds how many and how large; the runtime knows the time of day
    and writes it.
    """

    path: str
    capture: Capture


Output = Send | Tell | Log | Save


class Core(Protocol):
    """What the runtime needs of a filter. `counters` only ever grow; `gauges()` are levels."""

    counters: Counter[str]

    @property
    def ports(self) -> tuple[Port, ...]:
        """Of the class, where the configuration does not change them."""
        ...

    def receive(self, port: str, frames: Sequence[bytes], now: float) -> list[Output]:
        """A batch of frames arrived on `port`. Frames are untrusted and not to be modified."""
        ...

    def tell(self, message: Message, now: float) -> list[Output]:
        """A control message arrived from the frame. Unknown messages are ignored."""
        ...

    def deadline(self) -> float | None:
        """When `on_timer` wants to be called next (monotonic seconds), or None."""
        ...

    def on_timer(self, now: float) -> list[Output]:
        """The deadline passed. Calling it early is harmless."""
        ...

    def drain(self, now: float) -> list[Output]:
        """The process is about to stop: give out what may still go out."""
        ...

    def gauges(self) -> dict[str, int]:
        """Levels for status and metrics: `held`, `flows`, …"""
        ...

    def status(self) -> dict[str, Any]:
        """Details for `colo status`: mode, last miscompare, … JSON-able values only."""
        ...
