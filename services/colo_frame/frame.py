"""The frame: one per host, the other end of every process's control link.

::

    compare, redirector, rewriter, …    people: `colo status`, …    frame of the other host
          |  Hello, Report, wanted, Flushed   |  Query                    |  Heartbeat, wanted, CheckpointDone
          v                                   v                           v
    +-------------+                    +-------------+             +-------------+
    |    host     |                    |   queries   |             |    pair     |
    +-------------+                    +-------------+             +-------------+
          |                                   |                           |
          v                                   v                           v
    +------------------------------------------------------------------------------+
    |  progress   what follows from that, and from time that passes                |
    |  scaling    the worker table        modes    what all compares are told      |
    |  wishes     how a wish for a checkpoint reaches the primary                  |
    +------------------------------------------------------------------------------+
    |  standing   the parts that decide, side by side:                             |
    |             registry     who is here, and what they last reported            |
    |             checkpoints  wishes -> driver -> done -> flushed (primary only)  |
    |             workers      slots of the compare workers (made by the primary)  |
    |             peer         is the other host alive                             |
    |             ownership    who may write to the client LAN                     |
    +------------------------------------------------------------------------------+
          |  Welcome, CheckpointDone, SetMode, WorkerTable, Promote, Lease, LanSay, Answer
          v

Each of these uses what is below it and nothing that is above. `hear` takes every message: `sender` is the routing id
of a process of this host, or `PEER`. The frame tells `to` a routing id, `PEER`, or `EVERYBODY` of this host.
"""

from collections.abc import Sequence
from typing import Any

from colo_frame.config import FrameConfig
from colo_frame.drivers import Driver
from colo_frame.host import Host
from colo_frame.modes import Modes
from colo_frame.pair import Pair
from colo_frame.peer import PEER
from colo_frame.progress import Progress
from colo_frame.queries import Questions
from colo_frame.scaling import Scaling
from colo_frame.standing import Standing
from colo_frame.wishes import Wishes
from colo_proto.core import Log, Output
from colo_proto.messages import Message, Query


class Frame:
    """See the module. `incarnation` tells this start of the frame from the one before."""

    def __init__(
        self, config: FrameConfig, incarnation: int = 0, now: float = 0.0, driver: Driver | None = None
    ) -> None:
        standing = self.standing = Standing(config, incarnation, now, driver)
        self.counters = standing.counters
        wishes = Wishes(standing)
        scaling = Scaling(standing, wishes)
        self._modes = modes = Modes(standing)
        self._progress = progress = Progress(standing, wishes, scaling, modes)
        self._host = Host(standing, wishes, scaling, modes)
        self._pair = Pair(standing, wishes, scaling, modes, progress)
        self._questions = Questions(standing, wishes, modes, progress)

    # -- messages and time ----------------------------------------------------------------------

    def hear(self, sender: str, message: Message, now: float) -> list[Output]:
        """One message; unknown ones are counted and ignored."""
        self.standing.notice(now)
        if sender == PEER:
            outputs = self._pair.hear(message, now)
        else:
            process = self.standing.registry.seen(sender, now)
            if isinstance(message, Query):
                outputs = self._questions.answer(sender, message, now)
            else:
                outputs = self._host.hear(sender, process, message, now)
        return outputs + self._progress.advance(now)

    def deadline(self) -> float:
        """When `on_timer` has something to do."""
        return self._progress.deadline()

    def on_timer(self, now: float) -> list[Output]:
        """Heartbeats, losses, and what waits for time to pass."""
        self.standing.notice(now)
        return self._progress.on_timer(now)

    def drain(self, now: float) -> list[Output]:
        """The processes carry on without a frame: there is nothing to hand over."""
        return []

    # -- what the shell reads from files --------------------------------------------------------

    def load_rules(self, text: str, where: str) -> list[Output]:
        """The text of our own file of rules."""
        return self._modes.set_rules(text, where)

    def use_secrets(self, secrets: Sequence[bytes]) -> list[Output]:
        """The pair's secrets: the first one seals what we claim, each of them what we believe."""
        self.standing.ownership.use_secrets(secrets)
        return [Log("info", "secrets.loaded", {"secrets": len(secrets)})]

    # -- looking in -----------------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """Levels for metrics."""
        return self.standing.gauges()

    def status(self, now: float) -> dict[str, Any]:
        """Everything known, for `colo status`. Ages are milliseconds."""
        return self.standing.status(now)
