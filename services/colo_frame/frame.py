"""The COLO frame: one process per host, at the other end of every process's control link.

::

    compare, redirector, rewriter, …    people: `colo status`, …    the other host's frame
          |  Hello, Report, Flushed, …        |  Query                    |  Heartbeat, CheckpointDone, …
          v                                   v                           v
    +-------------+                    +-------------+             +-------------+
    |    host     |                    |   queries   |             |    pair     |
    +-------------+                    +-------------+             +-------------+
          |                                   |                           |
          v                                   v                           v
    +------------------------------------------------------------------------------+
    |  progress   what follows from that, and from time that passes                |
    |  scaling    the worker table follows the compare workers                     |
    +------------------------------------------------------------------------------+
    |  side       the parts that decide, side by side:                             |
    |             registry     which processes there are, and their last reports   |
    |             requests     how a request for a checkpoint reaches the primary  |
    |             checkpoints  request -> driver -> done -> flushed (primary only) |
    |             modes        mode and rules of the compares and rewriters        |
    |             workers      slots of the compare workers (made by the primary)  |
    |             peer         whether the other host is alive                     |
    |             ownership    who may write to the client LAN                     |
    +------------------------------------------------------------------------------+
          |  Welcome, CheckpointDone, SetMode, WorkerTable, Promote, Lease, LanSay, Answer
          v

Each of these uses what is below it and nothing that is above. What they want to be sent and logged they put into one
outbox, which `hear` and `on_timer` return. `hear` takes every message: `sender` is the routing id
of a process of this host, or `PEER`. The frame tells `to` a routing id, `PEER`, or `EVERYBODY` of this host.
"""

from collections.abc import Sequence
from typing import Any

from colo_frame.config import FrameConfig
from colo_frame.drivers import Driver
from colo_frame.host import Host
from colo_frame.pair import Pair
from colo_frame.peer import PEER
from colo_frame.progress import Progress
from colo_frame.queries import Queries
from colo_frame.scaling import Scaling
from colo_frame.side import Side
from colo_proto.core import Log, Output
from colo_proto.messages import Message, Query


class Frame:
    """See the module. `incarnation` tells this start of the frame from the one before."""

    def __init__(
        self, config: FrameConfig, incarnation: int = 0, now: float = 0.0, driver: Driver | None = None
    ) -> None:
        side = self.side = Side(config, incarnation, now, driver)
        self.counters = side.counters
        scaling = Scaling(side)
        self._progress = progress = Progress(side, scaling)
        self._host = Host(side, scaling)
        self._pair = Pair(side, scaling, progress)
        self._queries = Queries(side, progress)

    # -- messages and time ----------------------------------------------------------------------

    def hear(self, sender: str, message: Message, now: float) -> list[Output]:
        """Take one message; unknown ones are counted and ignored."""
        self.side.notice_stall(now)
        if sender == PEER:
            self._pair.hear(message, now)
        else:
            process = self.side.registry.seen(sender, now)
            if isinstance(message, Query):
                self._queries.answer(sender, message, now)
            else:
                self._host.hear(sender, process, message, now)
        self._progress.advance(now)
        return self.side.out.take()

    def deadline(self) -> float:
        """When to call `on_timer`."""
        return self._progress.deadline()

    def on_timer(self, now: float) -> list[Output]:
        """Send heartbeats, notice losses, and do what waits for time to pass."""
        self.side.notice_stall(now)
        self._progress.on_timer(now)
        return self.side.out.take()

    # -- what the shell reads from files --------------------------------------------------------

    def load_rules(self, text: str, where: str) -> list[Output]:
        """Use the text of our own file of rules."""
        self.side.modes.set_rules(text, where)
        return self.side.out.take()

    def use_secrets(self, secrets: Sequence[bytes]) -> list[Output]:
        """Use the pair's secrets: the first one seals our claims, and a claim sealed with any of them is believed."""
        self.side.ownership.use_secrets(secrets)
        return [Log("info", "secrets.loaded", {"secrets": len(secrets)})]

    # -- looking in -----------------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """Levels for metrics."""
        return self.side.gauges()

    def status(self, now: float) -> dict[str, Any]:
        """Everything that is known, for `colo status`. Ages are milliseconds."""
        return self.side.status(now)
