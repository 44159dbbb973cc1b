"""Our side of the pair: all that the frame knows, in one place.

Each part decides about one thing (`checkpoints`, `ownership`, `workers`, …). Here they stand side by side, because
three things need all of them: what people are shown (`status`, `gauges`), what the other host is told (`beat`), and
what a process is told that has just come (`welcome`).
"""

from typing import Any

from colo_frame.checkpoints import Checkpoints
from colo_frame.config import FrameConfig
from colo_frame.drivers import DRIVERS, Driver
from colo_frame.judging import Judging
from colo_frame.modes import Modes
from colo_frame.outbox import Outbox
from colo_frame.ownership import Ownership
from colo_frame.peer import PEER, Peer
from colo_frame.registry import Registry
from colo_frame.requests import Requests
from colo_frame.table import shares
from colo_frame.transitions import WRITING
from colo_frame.unprotected import Relay
from colo_frame.workers import Workers
from colo_proto.messages import Heartbeat, Welcome, WorkerTable, to_dict

MAX_NAMED = 16
"""A heartbeat names at most this many lost processes."""


class Side:
    """See the module. `incarnation` tells this start of the frame from the one before."""

    def __init__(self, config: FrameConfig, incarnation: int, now: float, driver: Driver | None) -> None:
        self.config = config
        self.incarnation = incarnation
        self.primary = config.side == "primary"
        """This host leads. Where roles change that is so at the very beginning, and is state from then on."""
        self.out = Outbox()
        self.counters = self.out.counters
        self.registry = Registry(config.process_timeout / 1000)
        self.checkpoints = Checkpoints(
            driver or DRIVERS[config.driver](),
            self.counters,
            config.flush_timeout / 1000,
            config.checkpoint_interval / 1000,
            config.checkpoint_backoff / 1000,
        )
        self.peer = Peer(config.heartbeat_interval / 1000 * config.heartbeat_missed)
        self.requests = Requests(self.checkpoints, self.peer, self.out, primary=self.primary)
        self.ownership = Ownership(config, self.registry, self.out, incarnation, now)
        self.modes = Modes(config.mode, self.registry, self.out, primary=self.primary)
        self.unprotected = Relay(config.id, self.registry, self.out)
        # Where roles change, the table is made when this host has the LAN.
        expected = config.expected() if self.primary and not config.changing else ()
        self.workers = Workers(expected, config.process_timeout / 1000, now)
        self.judging = Judging(
            self.registry, self.peer, self.ownership, self.modes, self.workers, self.checkpoints, self.out, now
        )
        if config.changing:
            self.judging.follow_roles(config.side, config.expected())
        self.takeover: tuple[str, float] | None = None
        """The side that was promoted last as far as this frame has seen, and when."""

    @property
    def leads(self) -> bool:
        """True when this host makes worker tables. Where roles change, that needs the LAN."""
        return self.primary and (not self.config.changing or self.ownership.leadership.state in WRITING)

    def take_role(self, *, primary: bool) -> None:
        """Where roles change: this host leads from now on, or does not any more."""
        self.primary = self.modes.primary = primary
        self.requests.take_role(primary=primary)
        self.unprotected.forget()
        self.judging.forget()
        self.peer.told = None

    @property
    def table(self) -> WorkerTable:
        """The worker table in force: the primary makes it, and the secondary repeats it."""
        return self.workers.table

    def promotable(self, now: float) -> bool:
        """Secondary: could it take over? The primary has said that its guest is a replica, and it is whole."""
        return self.ownership.leadership.promotable and not self.judging.unfit(now)

    def compares(self) -> list[str]:
        """Ids of the compares that are not lost."""
        return self.registry.live("compare")

    def notice_stall(self, now: float) -> None:
        """If this process did not run for a while, count all silence anew: it could not have heard anybody."""
        if self.ownership.leadership.notice_stall(now):
            self.counters["stalls"] += 1
            self.peer.excuse(now)
            self.registry.excuse(now)

    # -- what others are told -------------------------------------------------------------------

    def welcome(self) -> Welcome:
        """The answer to a process that introduces itself, or that should."""
        return Welcome(self.checkpoints.epoch, self.modes.mode, self.incarnation)

    def beat(self, now: float) -> None:
        """Send a heartbeat to the other host and a claim to the client LAN, and renew the leases that go with them."""
        self.ownership.grant(now)
        verdict, leadership, writing = self.judging.judge(now), self.ownership.leadership, self.ownership.writing(now)
        protected = self.primary and verdict.replica
        if self.ownership.votes is not None:
            self.ownership.votes.protected = protected
        stand = leadership.compose(now, protected=protected, writing=writing)
        if not self.config.peer and not self.peer.last:
            return
        self.counters["heartbeats_sent"] += 1
        lost = [p.id for p in self.registry.processes.values() if p.lost]
        guest = self.judging.guests.ours
        body: dict[str, Any] = {
            "id": self.config.id,
            "copied_epoch": self.checkpoints.copied_epoch,
            "shadow_rules": self.modes.shadow_rules,
            "processes": len(self.registry.processes) - len(lost),
            "processes_lost": lost[:MAX_NAMED],
            "since_ms": int((now - leadership.since) * 1000),
            "guest": {"written": guest.written, "sent": guest.sent},
        }
        if self.primary:
            body |= {"flows": self.judging.flows_status(now), "checkpoint": self.checkpoints.last_status(now)}
        else:
            body["promotable"] = self.promotable(now)
            if (versions := self.unprotected.versions()) is not None:
                body["unprotected"] = versions
        table = to_dict(self.table) if self.table.version else None
        claim = self.ownership.claim(stand)
        mode = self.modes.mode
        beat = Heartbeat(
            self.config.side, self.incarnation, stand.count, self.checkpoints.epoch, stand.fence, mode, table, body,
            stand.state, claim=claim, verdict=verdict.status(now), broken=self.judging.told(now),
        )  # fmt: skip
        self.out.tell(beat, PEER)
        self.ownership.say(claim, stand.count)

    # -- what people are shown ------------------------------------------------------------------

    def gauges(self) -> dict[str, int]:
        """Levels for metrics."""
        processes = self.registry.processes.values()
        lost = sum(p.lost for p in processes)
        leadership = self.ownership.leadership
        return {
            "epoch": self.checkpoints.epoch,
            "processes": len(processes) - lost,
            "processes_silent": lost,
            "workers": len(self.table.workers),
            "table_version": self.table.version,
            "table_unsettled": len(self.workers.unsettled),
            "peer_alive": int(self.peer.alive),
            "fence": leadership.fence,
            "writes": int(leadership.state in WRITING),
            "vote_mismatch": int(self.ownership.mismatch),
            **(self.ownership.votes.gauges() if self.ownership.votes is not None else {}),
            **self.checkpoints.levels,
            **self.judging.gauges(),
        }

    def status(self, now: float) -> dict[str, Any]:
        """Everything that is known, for `colo status`. Ages are milliseconds."""
        rules, workers = self.modes.rules, self.workers
        self.judging.judge(now)
        takeover = self.takeover
        leadership = self.ownership.status(now)
        if not self.primary:
            leadership["promotable"] = self.promotable(now)
        if takeover is not None:
            leadership["takeover"] = {"side": takeover[0], "age_ms": int((now - takeover[1]) * 1000)}
        return {
            "verdict": self.judging.status(now),
            "id": self.config.id,
            "side": self.config.side,
            "incarnation": self.incarnation,
            "epoch": self.checkpoints.epoch,
            "mode": self.modes.mode,
            "rules": None if rules is None else rules.rules.splitlines(),
            "fence": self.ownership.leadership.fence,
            "table": {
                "version": self.table.version,
                "workers": shares(self.table),
                "unsettled": sorted(workers.unsettled),
                "leaving": sorted(workers.leaving),
            },
            "leadership": leadership,
            "flows": self.judging.flows_status(now),
            "peer": self.peer.status(now),
            "checkpoint": self.checkpoints.status(now),
            "counters": dict(self.counters),
            "gauges": self.gauges(),
            "processes": [p.status(now) for p in self.registry.processes.values()],
        }
