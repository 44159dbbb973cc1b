"""What every link is to the shell.

::

     input:   readable -> frames, at most 64 or 256 KiB at a time -> deliver(frames)
     output:  send(frames) -> out at once, or into a bounded queue, or dropped and counted

A link never blocks and never raises for what a peer does: garbage is counted by reason and logged at
most once a minute. It may raise `ConfigError` (wrong for good) or `StartError` (wrong here and now).
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from colo_proto.core import Way
from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError, WireError
from colo_proto.frame import Buffer
from colo_proto.messages import WorkerTable
from colo_proto.shard import Splitter
from colo_runtime.context import Context

BATCH_FRAMES = 64
BATCH_BYTES = 256 * 1024
"""A link hands over at most this much in one call of the core."""

Deliver = Callable[[Sequence[bytes]], None]


def keep_safe(what: str, endpoint: Endpoint, *, keys: bool, insecure: bool) -> None:
    """`ConfigError` for a link between hosts without keys, unless that is what the operator wants."""
    if endpoint.exposed and not keys and not insecure:
        raise ConfigError(
            f"{what} {endpoint}: a link between hosts needs keys (--curve-secret, --curve-peers), or --insecure"
        )


class Link(ABC):
    """Base of all links. Subclasses fill in `open`, `send`, `stop_reading`, `close`."""

    def __init__(self, port: str, way: Way, endpoint: Endpoint, context: Context, deliver: Deliver) -> None:
        self.port = port
        self.option = "--" + port.replace("_", "-")
        self.opened = False
        self.ended = False
        """A capture: all of it was read."""
        self.failed = False
        """A capture: it could not be read or written to its end."""
        self.reads = way in (Way.IN, Way.BOTH)
        self.writes = way in (Way.OUT, Way.BOTH)
        self.endpoint = endpoint
        self.context = context
        self.deliver = deliver
        self.counters: Counter[str] = Counter()
        self.on_mark: Callable[[int], None] | None = None
        """Set where the core has to know by which worker table an input was shared out."""
        self.splitter: Splitter | None = None
        """What shares a split output out to workers. Its table goes into the report: from there a restarted COLO frame
        learns which one is in force."""

    @abstractmethod
    def open(self) -> None:
        """Start to connect, listen, ask. Does not wait."""

    @abstractmethod
    def send(self, frames: Sequence[Buffer]) -> None:
        """Send frames, or queue or drop them; never blocks."""

    def table(self, message: WorkerTable) -> None:
        """A worker table came from the frame: news for a split output only."""

    def rest(self, *, resting: bool) -> None:
        """Take no frames for a while: an output has as much to send as it may keep. Not every input can."""

    def stop_reading(self) -> None:
        """Take no more frames (the process drains)."""

    def close(self) -> None:
        """Let go of everything."""

    @property
    def waiting_for(self) -> str:
        """Why this link is not ready; empty when it is."""
        return ""

    @property
    def stalled(self) -> str:
        """Why frames sent here now would be lost, or nearly; empty when they go. A reliable input is held back
        meanwhile: what it has acknowledged nobody sends again.
        """
        return ""

    @property
    def pending(self) -> int:
        """Bytes accepted by `send` that are not on their way yet."""
        return 0

    on_relief: Callable[[], None] | None = None
    """Set while an input rests because of what is pending here: to be called when some of it has gone."""

    @property
    def unconfirmed(self) -> int:
        """Frames that a reliable output has not had acknowledged."""
        return 0

    def gauges(self) -> dict[str, int]:
        """Levels of this link."""
        return {"queue_bytes": self.pending} if self.writes else {}

    def took(self, frames: Sequence[Buffer]) -> None:
        """Count frames that came in."""
        self.counters["frames_in"] += len(frames)
        self.counters["bytes_in"] += sum(map(len, frames))

    def gave(self, frames: Sequence[Buffer]) -> None:
        """Count frames that the core sent here."""
        self.counters["frames_out"] += len(frames)
        self.counters["bytes_out"] += sum(map(len, frames))

    def drop(self, reason: str, frames: int = 1) -> None:
        """Count frames that go nowhere."""
        self.counters["dropped." + reason] += frames
        self.context.complain("frames.dropped", f"{self.port} {reason}", port=self.port, reason=reason, frames=frames)

    def garbage(self, error: WireError, **fields: Any) -> None:
        """Count and (seldom) log what a peer sent and nobody understands."""
        self.counters["wire_errors." + error.reason] += 1
        self.context.complain("message.refused", self.port, port=self.port, error=str(error), **fields)
