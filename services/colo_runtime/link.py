"""What every link is to the shell.

::

     input:   readable -> frames, at most 64 or 256 KiB at a time -> pass_on(frames) -> the core
     output:  send(frames)     -> sent at once, or put into a bounded queue, or dropped and counted

A link never blocks, and never raises for what a peer does: invalid data is counted by reason and logged at most once a
minute. It may raise `ConfigError` (a mistake that stays) or `StartError` (an obstacle at the moment).
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from colo_proto.codec import encode_batch
from colo_proto.config import flag
from colo_proto.core import Way
from colo_proto.endpoint import Endpoint
from colo_proto.errors import WireError
from colo_proto.frame import Buffer
from colo_proto.messages import WorkerTable
from colo_proto.shard import Splitter
from colo_runtime.context import Context

BATCH_FRAMES = 64
BATCH_BYTES = 256 * 1024
"""A link passes at most this much to the core in one call."""

Deliver = Callable[[Sequence[bytes]], None]


class Link(ABC):
    """The base of all links. A subclass implements `open`, `send` and `close`, and `_interest` if it can rest."""

    def __init__(self, port: str, way: Way, endpoint: Endpoint, context: Context, deliver: Deliver) -> None:
        self.port = port
        self.option = flag(port)
        self.opened = False
        self.ended = False
        """Of a capture: all of it was read."""
        self.failed = False
        """Of a capture: it could not be read or written to its end."""
        self.reads = way in (Way.IN, Way.BOTH)
        self.writes = way in (Way.OUT, Way.BOTH)
        self.endpoint = endpoint
        self.context = context
        self.deliver = deliver
        self._stopped = False
        self._resting = False
        self.counters: Counter[str] = Counter()
        self.link_name = f"{context.id}.{port}"
        """The name of the link in messages."""
        self.on_barrier: Callable[[int], None] | None = None
        """Set when the core must know by which worker table the frames of an input were distributed."""
        self.splitter: Splitter | None = None
        """What distributes a split output to workers. Its table goes into the report: from there a restarted COLO frame
        learns which one is in force."""

    @abstractmethod
    def open(self) -> None:
        """Start to connect, to listen, or to ask for a tap. Does not wait."""

    @abstractmethod
    def send(self, frames: Sequence[Buffer]) -> None:
        """Send frames, or queue or drop them; never blocks."""

    def table(self, message: WorkerTable) -> None:
        """A worker table has come from the COLO frame. Only an output with `split=on` uses it."""

    def rest(self, *, resting: bool) -> None:
        """Stop reading for a while, because an output has as much to send as it may keep. Not every input can."""
        self._resting = resting
        self._interest()

    def stop_reading(self) -> None:
        """Read no more frames, because the process drains."""
        self._stopped = True
        self._interest()

    @property
    def _reading(self) -> bool:
        return not (self._stopped or self._resting)

    def _interest(self) -> None:
        """`_reading` may have changed: watch for what is wanted now."""

    def close(self) -> None:
        """Close everything that `open` has opened."""

    @property
    def waiting_for(self) -> str:
        """Why this link is not ready; empty when it is."""
        return ""

    @property
    def stalled(self) -> str:
        """Why frames that are sent here now could be lost; empty when they can be sent.

        A reliable input is held back meanwhile: nobody would send again what it has acknowledged.
        """
        return ""

    @property
    def pending(self) -> int:
        """Bytes that `send` has accepted and that were not sent yet."""
        return 0

    on_relief: Callable[[], None] | None = None
    """Set while an input rests because of what is pending here; called when some of it was sent."""

    @property
    def unconfirmed(self) -> int:
        """Frames of a reliable output that were not acknowledged."""
        return 0

    def gauges(self) -> dict[str, int]:
        """The levels of this link."""
        return {"queue_bytes": self.pending} if self.writes else {}

    def pass_on(self, frames: Sequence[bytes]) -> int:
        """Count frames that came in and pass them to the core. Returns their bytes."""
        size = sum(map(len, frames))
        self.counters["frames_in"] += len(frames)
        self.counters["bytes_in"] += size
        self.deliver(frames)
        return size

    def batch(self, sequence: int, frames: Sequence[Buffer]) -> bytes:
        """The bytes of a batch whose first frame has the number `sequence`."""
        context = self.context
        return encode_batch(self.link_name, context.incarnation, sequence, context.epoch, monotonic(), frames)

    def count_sent(self, frames: Sequence[Buffer]) -> None:
        """Count frames that the core sends here."""
        self.counters["frames_out"] += len(frames)
        self.counters["bytes_out"] += sum(map(len, frames))

    def drop(self, reason: str, frames: int = 1) -> None:
        """Count and (seldom) log frames that are dropped."""
        self.counters["dropped." + reason] += frames
        self.context.complain("frames.dropped", f"{self.port} {reason}", port=self.port, reason=reason, frames=frames)

    def refuse(self, error: WireError, **fields: Any) -> None:
        """Count and (seldom) log a message of a peer that cannot be understood."""
        self.counters["wire_errors." + error.reason] += 1
        self.context.complain("message.refused", self.port, port=self.port, error=str(error), **fields)
