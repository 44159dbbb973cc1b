"""Where this side of the pair stands: all that the frame knows, in one place.

Each part decides about one thing (`checkpoints`, `ownership`, `workers`, …) and knows nothing of the others. Here they
are side by side with the mode and the rules that are in force, because three things need all of them: what people are
shown (`status`, `gauges`), what the other host is told (`beat`), and what a process is told that has just come
(`welcome`).
"""

from collections import Counter
from typing import Any

from colo_frame.checkpoints import Checkpoints
from colo_frame.config import FrameConfig
from colo_frame.drivers import Driver, make_driver
from colo_frame.hasty import Hasty
from colo_frame.ownership import Ownership
from colo_frame.peer import PEER, Peer
from colo_frame.registry import Registry
from colo_frame.table import shares
from colo_frame.tenure import WRITES
from colo_frame.workers import Workers
from colo_proto.core import Output, Tell
from colo_proto.messages import Heartbeat, Mode, SetRules, Welcome, WorkerTable, to_dict

MAX_NAMED = 16
"""A heartbeat names at most so many lost processes."""


class Standing:
    """See the module. `incarnation` tells this start of the frame from the one before."""

    def __init__(self, config: FrameConfig, incarnation: int, now: float, driver: Driver | None) -> None:
        self.config = config
        self.incarnation = incarnation
        self.primary = config.side == "primary"
        self.mode = config.mode
        self.rules: SetRules | None = None
        """Rules for chosen flows that all compares follow; None: each follows its own file."""
        self.counters: Counter[str] = Counter()
        self.registry = Registry(config.process_timeout / 1000)
        self.checkpoints = Checkpoints(
            driver or make_driver(config.driver),
            self.counters,
            config.flush_timeout / 1000,
            config.checkpoint_interval / 1000,
            config.checkpoint_backoff / 1000,
        )
        self.peer = Peer(config.heartbeat_interval / 1000 * config.heartbeat_missed)
        self.ownership = Ownership(config, self.registry, self.counters, incarnation, now)
        self.hasty = Hasty(self.registry, primary=self.primary)
        self.workers = Workers(config.expected() if self.primary else (), config.process_timeout / 1000, now)

    @property
    def table(self) -> WorkerTable:
        """The worker table in force: the primary makes it, the secondary repeats it."""
        return self.workers.table

    def compares(self) -> list[str]:
        """Ids of the compares that are not lost."""
        return self.registry.live("compare")

    def notice(self, now: float) -> None:
        """Did this process stand still? Then it may not conclude anything from what it did not hear meanwhile."""
        if self.ownership.tenure.notice(now):
            self.counters["stalls"] += 1
            self.peer.excuse(now)
            self.registry.excuse(now)

    # -- what others are told -------------------------------------------------------------------

    def welcome(self) -> Welcome:
        """The answer to a process that introduces itself, or that should."""
        return Welcome(self.checkpoints.epoch, self.mode, self.incarnation)

    def beat(self, now: float) -> list[Output]:
        """Say where this side stands, on both ways, and renew the permissions that go with it."""
        outputs = self.ownership.grant(now)
        stand = self.ownership.tenure.compose(now, protected=self.primary and self.mode == Mode.ENFORCE)
        if not self.config.peer and not self.peer.last:
            return outputs
        self.counters["heartbeats_sent"] += 1
        lost = [p.id for p in self.registry.processes.values() if p.lost]
        body = {
            "id": self.config.id,
            "copied_epoch": self.checkpoints.copied_epoch,
            "shadow_rules": self.hasty.ruled,
            "processes": len(self.registry.processes) - len(lost),
            "processes_lost": lost[:MAX_NAMED],
        }
        table = to_dict(self.table) if self.table.version else None
        claim = self.ownership.claim(stand)
        beat = Heartbeat(
            self.config.side, self.incarnation, stand.count, self.checkpoints.epoch, stand.fence, self.mode, table,
            body, stand.state, claim=claim,
        )  # fmt: skip
        return [*outputs, Tell(beat, PEER), *self.ownership.say(claim, stand.count)]

    # -- what people are shown ------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """Levels for metrics."""
        processes = self.registry.processes.values()
        return {
            "epoch": self.checkpoints.epoch,
            "processes": sum(not p.lost for p in processes),
            "processes_silent": sum(p.lost for p in processes),
            "workers": len(self.table.workers),
            "table_version": self.table.version,
            "table_unsettled": len(self.workers.unsettled),
            "peer_alive": int(self.peer.alive),
            "fence": self.ownership.tenure.fence,
            "writes": int(self.ownership.tenure.state in WRITES),
            **self.checkpoints.levels,
        }

    def status(self, now: float) -> dict[str, Any]:
        """Everything known, for `colo status`. Ages are milliseconds."""
        return {
            "id": self.config.id,
            "side": self.config.side,
            "incarnation": self.incarnation,
            "epoch": self.checkpoints.epoch,
            "mode": self.mode,
            "rules": None if self.rules is None else self.rules.rules.splitlines(),
            "fence": self.ownership.tenure.fence,
            "table": {
                "version": self.table.version,
                "workers": shares(self.table),
                "unsettled": sorted(self.workers.unsettled),
                "leaving": sorted(self.workers.leaving),
            },
            "tenure": self.ownership.status(now),
            "peer": self.peer.status(now),
            "checkpoint": self.checkpoints.status(now),
            "counters": dict(self.counters),
            "gauges": self.gauges(),
            "processes": [p.status(now) for p in self.registry.processes.values()],
        }
