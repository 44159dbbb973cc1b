"""The frame: one per host, the other end of every process's control link.

::

    compare, redirector, rewriter, …             frame of the other host
          |  Hello, Report, wanted, Flushed             |  Heartbeat, wanted, CheckpointDone
          v                                             v
    +---------------------------------------------------------+
    |  registry    who is here, and what they last reported   |
    |  checkpoints wishes -> driver -> done -> flushed        |   primary only
    |  table       slots of the compare workers               |   primary owns, secondary repeats
    |  peer        is the other host alive                    |
    |  ownership   who may write to the client LAN            |
    +---------------------------------------------------------+
          |  Welcome, CheckpointDone, SetMode, WorkerTable, Promote, Lease, LanSay, Answer
          v

`hear` takes every message: `sender` is the routing id of a process of this host, or `PEER`. The frame
tells `to` a routing id, `PEER`, or `EVERYBODY` of this host.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from colo_frame.bounds import TooMuchError, modest, proper, remembered
from colo_frame.checkpoints import Checkpoints
from colo_frame.config import FrameConfig
from colo_frame.drivers import DRIVER_ID, Driver, make_driver
from colo_frame.hasty import Hasty
from colo_frame.ownership import Ownership
from colo_frame.peer import Peer
from colo_frame.queries import answer, is_text, set_mode
from colo_frame.registry import MAX_PROCESSES, Process, Registry
from colo_frame.table import named_table, read_table, shares
from colo_frame.tenure import WRITES
from colo_frame.workers import Workers
from colo_proto.claim import Stand, State, possible
from colo_proto.core import Log, Output, Tell
from colo_proto.errors import ConfigError
from colo_proto.messages import (
    CheckpointDone,
    CheckpointWanted,
    Drain,
    Flushed,
    Handover,
    HandoverTaken,
    Heartbeat,
    Hello,
    LanHeard,
    LanSaid,
    Leaving,
    Message,
    Mode,
    Query,
    Reason,
    Report,
    SetMode,
    SetRules,
    Settled,
    Welcome,
    WorkerTable,
    Yielded,
    to_dict,
)
from colo_proto.rules import parse_rules

PEER = "peer"
EVERYBODY = "*"

_SPLITTERS = frozenset({"redirector", "rewriter"})
MAX_OUTSTANDING = 64
ASK_AGAIN = 2.0
"""Seconds after which the secondary repeats a wish that no checkpoint has answered."""


class Frame:
    """See the module. `incarnation` tells this start of the frame from the one before."""

    def __init__(
        self, config: FrameConfig, incarnation: int = 0, now: float = 0.0, driver: Driver | None = None
    ) -> None:
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
        interval = config.heartbeat_interval / 1000
        self.peer = Peer(interval * config.heartbeat_missed)
        self.ownership = Ownership(config, self.registry, self.counters, incarnation, now)
        self._hasty = Hasty(self.registry, primary=self.primary)
        self._mode_set = False
        """The mode was changed since the start: what processes remember of an earlier frame counts no more."""
        self._left_alone = False
        """Bypass is for want of a secondary."""
        self._resync_epoch: int | None = None
        """The epoch that will have brought a lost secondary back, and …"""
        self._resync_asked = 0.0
        self.workers = Workers(config.expected() if self.primary else (), config.process_timeout / 1000, now)
        self._applied_at = 0
        """Checkpoints completed when the table was last looked at."""
        self._outstanding: dict[tuple[str, str], tuple[CheckpointWanted, float]] = {}
        """Secondary: wishes for the primary, and when they were last sent."""
        self._primary_incarnation: int | None = None
        self._said: set[str] = set()

    # -- messages -------------------------------------------------------------------------------

    def hear(self, sender: str, message: Message, now: float) -> list[Output]:
        """One message; unknown ones are counted and ignored."""
        self._notice(now)
        if sender == PEER:
            return self._from_peer(message, now)
        outputs: list[Output] = []
        process = self.registry.seen(sender, now)
        if not isinstance(message, Query) and not is_text(sender):
            # libzmq's own names for anonymous clients: they may ask, but cannot be written down.
            self.counters["ignored_messages"] += 1
        elif isinstance(message, Hello):
            outputs = self._hello(sender, message, now)
        elif isinstance(message, Query):
            outputs = answer(self, sender, message, now)
        elif isinstance(message, LanHeard):
            self.ownership.hear_lan(message.frame, now)
        elif isinstance(message, LanSaid):
            self.ownership.tenure.on_lan(message.count, now)
            outputs = self.ownership.grant(now)
        elif isinstance(message, Yielded) and process is not None:
            self.ownership.yielded(sender)
        elif sender == DRIVER_ID:
            outputs = self.checkpoints.driver_heard(message, self._compares(), now)
        elif isinstance(message, SetRules):
            outputs = self._learn_rules(process, message)
        elif isinstance(message, Report | CheckpointWanted | Flushed):
            if process is None:
                # An earlier frame welcomed it; another incarnation in Welcome makes it say Hello again.
                self.counters["unknown_senders"] += 1
                outputs.append(Tell(self._welcome(), sender))
            elif process.lost:
                process.lost = False
                outputs.append(Log("info", "process.returned", {"role": process.role, "id": sender}))
                outputs += self._membership(now)
            if isinstance(message, Report):
                outputs += self._report(process, message, now)
            elif isinstance(message, CheckpointWanted):
                by_epoch = message.reason != Reason.MIRROR_GAP and (process is None or process.role == "compare")
                outputs += self.want(message, sender, now, by_epoch=by_epoch)
            else:
                self.checkpoints.flushed(sender, message)
        elif isinstance(message, Leaving | Settled | Handover | HandoverTaken) and process is not None and self.primary:
            outputs = self._rescale(sender, message, now)
        else:
            self.counters["ignored_messages"] += 1
        return outputs + self._advance(now)

    def _notice(self, now: float) -> None:
        """Did this process stand still? Then nothing follows from what it did not hear."""
        if self.ownership.tenure.notice(now):
            self.counters["stalls"] += 1
            self.peer.excuse(now)
            self.registry.excuse(now)

    def _compares(self) -> list[str]:
        return self.registry.live("compare")

    def _welcome(self) -> Welcome:
        return Welcome(self.checkpoints.epoch, self.mode, self.incarnation)

    def _hello(self, sender: str, hello: Hello, now: float) -> list[Output]:
        if not proper(hello):
            self.counters["hellos_refused"] += 1
            return self._once("hello.refused", why="a role, an id or an address of that length is none")
        process, fresh, restarted = self.registry.hello(sender, hello, now)
        if process is None:
            self.counters["processes_refused"] += 1
            return self._once("process.refused", why=f"there are {MAX_PROCESSES} processes")
        outputs: list[Output] = []
        tenure = self.ownership.tenure
        if hello.fence:
            tenure.learn(hello.fence, promoted=hello.promoted, leased=hello.leased, now=now)
            if process.role == "compare" and hello.mode == Mode.BYPASS and not self._mode_set:
                # An earlier start of this frame was left alone.
                self.mode, self._left_alone = Mode.BYPASS, True
        outputs.append(Tell(self._welcome(), sender))
        outputs += self.ownership.welcome(sender, process.role, now, promoted=hello.promoted)
        if process.role == "rewriter":
            outputs.append(Tell(SetMode(self._hasty.mode(self.mode)), sender))
        if self.table.version and process.role in _SPLITTERS:
            outputs.append(Tell(self.table, sender))
        if process.role == "compare" and self.rules is not None:
            outputs.append(Tell(self.rules, sender))
        if process.role == "compare" and self.table.version:
            # It has nothing yet, and nobody will hand it what was on its way before it came.
            outputs.append(Tell(replace(self.table, givers=[], moved=[]), sender))
        if fresh or restarted:
            self.counters["hellos"] += 1
            event = "process.restarted" if restarted else "process.joined"
            outputs.append(Log("info", event, {"role": process.role, "id": sender, "pid": process.pid}))
        if restarted and process.twice:
            self.counters["ids_twice"] += 1
            other, pid = process.former[-1]
            both = {"pid": process.pid, "incarnation": process.incarnation, "lost_pid": pid, "lost_incarnation": other}
            outputs.append(Log("warning", "process.twice", {"role": process.role, "id": sender, **both}))
        if process.role == "compare":
            if restarted:
                self.counters["workers_restarted"] += 1
                outputs += self._gone(sender)
                self.checkpoints.restarted(sender)
                if self.primary and self.checkpoints.driver.copies_state:
                    # Its positions are gone; equal guests give it a sure start.
                    wish = CheckpointWanted(Reason.WORKER_LOST, source=sender, epoch=self.checkpoints.epoch)
                    outputs += self.want(wish, sender, now)
            outputs += self._membership(now)
        mirrors = self.registry.successors(hello, self.incarnation)
        if process.role == "mirror" and restarted and process not in mirrors:
            mirrors.append(process)
        for mirror in mirrors if self.primary else ():
            # What the one before had not delivered is lost. Its receiver says so too, unless it died with it.
            wish = CheckpointWanted(Reason.MIRROR_GAP, detail={"restarted": mirror.id}, source=mirror.id)
            outputs += self.want(wish, mirror.id, now)
        return outputs

    def _report(self, process: Process | None, report: Report, now: float) -> list[Output]:
        if process is None:
            return []
        outputs: list[Output] = []
        try:
            gone = self.registry.keep(process, report, now)
        except TooMuchError as error:
            self.counters[f"reports_refused.{error.reason}"] += 1
            return self._once("report.refused", why=str(error), id=process.id, reason=error.reason)
        if gone:
            self.counters["reports_forgotten"] += len(gone)
            outputs += self._once("reports.forgotten", process=gone[0].id, why="all reports together are too large")
        self._hasty.learn(process, report)
        outputs += self._hasty.correct(process, report, self.mode)
        if not self.primary:
            return outputs
        # A frame that was restarted learns from the others how far it had counted.
        if process.role == "compare":
            self.checkpoints.learn(report.gauges.get("epoch", 0))
        version = report.gauges.get("table_version", 0)
        # A table takes milliseconds to make; it is needed only by a frame that knows less than others.
        table = named_table(version, report.status.get("workers")) if version > self.table.version else None
        outputs += self._learn_table(now, version, table)
        return outputs + (self._membership(now) if process.role == "compare" else [])

    def _once(self, event: str, **fields: Any) -> list[Output]:
        """A warning about something that may repeat very often: the counters know how often."""
        key = event + str(fields.get("id", ""))
        if key in self._said or len(self._said) >= MAX_PROCESSES:
            return []
        self._said.add(key)
        return [Log("warning", event, fields)]

    def want(self, wish: CheckpointWanted, sender: str, now: float, *, by_epoch: bool = False) -> list[Output]:
        """Somebody wants a checkpoint: the primary's machine hears of it."""
        less = modest(wish)
        if less is not None:
            self.counters["details_refused"] += 1
            wish = less
        if self.primary:
            return self.checkpoints.want(wish, sender if is_text(sender) else "anonymous", by_epoch, now)
        reason = wish.reason
        self.counters["checkpoints_forwarded"] += 1
        wish = replace(wish, source=wish.source or sender)
        if len(self._outstanding) < MAX_OUTSTANDING or (reason, wish.source) in self._outstanding:
            self._outstanding[reason, wish.source] = (wish, now)
        return [Tell(wish, PEER)] if self.peer.alive else []

    # -- modes ----------------------------------------------------------------------------------

    def set_mode(self, mode: str, now: float, *, resync: bool = False) -> list[Output]:
        """Change the mode of every compare."""
        outputs: list[Output] = []
        self._mode_set = True
        self._left_alone = False
        if mode != self.mode:
            outputs.append(Log("info", "mode.set", {"before": self.mode, "after": mode}))
            self.counters["mode_changes"] += 1
        self.mode = mode
        told = set_mode(mode, self._compares(), resync=resync)
        return [*outputs, *told, *self._hasty.tell(mode), *self._beat(now)]

    def resync(self, now: float) -> list[Output]:
        """Compare again behind the next checkpoint."""
        wish = CheckpointWanted(Reason.RESYNC, source=self.config.id, epoch=self.checkpoints.epoch)
        # One that is under way has begun before the secondary was there.
        self._resync_epoch = self.checkpoints.epoch + (1 if self.checkpoints.idle else 2)
        self._resync_asked = now
        return [*self.want(wish, self.config.id, now), *self._advance(now)]

    def _resynced(self, now: float) -> list[Output]:
        wanted = self._resync_epoch
        if wanted is None or self.checkpoints.epoch < wanted or not self.checkpoints.idle:
            return []
        self._resync_epoch = None
        copied = self.checkpoints.copied_epoch >= wanted
        self.counters["resyncs"] += 1
        outputs = self.set_mode(Mode.ENFORCE, now, resync=not copied)
        return [*outputs, Log("info", "pair.resynced", {"epoch": self.checkpoints.epoch, "copied": copied})]

    def load_rules(self, text: str, where: str) -> list[Output]:
        """The text of our own file of rules."""
        return self.set_rules(text, where)

    def _learn_rules(self, process: Process | None, message: SetRules) -> list[Output]:
        """A compare tells a restarted frame what the one before had said."""
        if self.rules is not None or process is None:
            return []
        why = "" if process.role == "compare" else f"a {process.role} has no rules"
        try:
            parse_rules(message.rules)
        except ConfigError as error:
            why = str(error)[:200]
        if why:
            self.counters["rules_refused"] += 1
            return self._once("rules.refused", why=why, id=process.id)
        return self.set_rules(message.rules, f"learnt from {process.id}")

    def use_secrets(self, secrets: Sequence[bytes]) -> list[Output]:
        """The pair's secrets: the first one seals what we claim, each of them what we believe."""
        self.ownership.use_secrets(secrets)
        return [Log("info", "secrets.loaded", {"secrets": len(secrets)})]

    def set_rules(self, text: str, where: str) -> list[Output]:
        """Other rules for every compare; `where` says where they come from."""
        self.rules = SetRules(text)
        self.counters["rules_changes"] += 1
        told = [Tell(self.rules, compare) for compare in self._compares()]
        return [Log("info", "rules.set", {"where": where}), *told]

    # -- workers --------------------------------------------------------------------------------

    def _membership(self, now: float) -> list[Output]:
        """A change of the workers asks for a checkpoint; the first table needs none."""
        if not self.primary:
            return []
        known = [p.id for p in self.registry.processes.values() if p.role == "compare"]
        workers = self.workers
        reason = workers.check(self._compares(), known, self._linked(), now)
        # Both hosts share out by the table: a planned change waits until the other one hears of it, if that matters.
        heard = self.peer.alive or not self.config.peer or self.mode == Mode.BYPASS
        if workers.due(now) and (heard or not workers.table.version):
            return self._new_table(now)
        if reason is None:
            return self._let_leave()
        detail = {"workers": self.workers.wanted, "before": self.workers.table.workers}
        wish = CheckpointWanted(reason, detail=detail, source=self.config.id, epoch=self.checkpoints.epoch)
        return self.want(wish, self.config.id, now)

    def _linked(self) -> set[str]:
        """Compares that whoever shares frames out can reach, as far as they have reported it."""
        processes = self.registry.processes.values()
        return {p.id for p in processes if p.role == "compare" and p.linked}

    def _new_table(self, now: float) -> list[Output]:
        self.workers.apply(self._compares(), now)
        self.counters["table_changes"] += 1
        return self._send_table(now)

    def _rescale(self, sender: str, message: Message, now: float) -> list[Output]:
        """What compares say to each other and to us while flows move."""
        compares = self._compares()
        if isinstance(message, Handover):
            known = sender == message.giver and message.taker in compares
            self.counters["handovers" if known else "ignored_messages"] += 1
            return [Tell(message, message.taker)] if known else []
        if isinstance(message, HandoverTaken):
            known = sender == message.taker and message.giver in compares
            return [Tell(message, message.giver)] if known else []
        outputs: list[Output] = []
        if isinstance(message, Leaving):
            self.workers.leaving.add(sender)
            outputs.append(Log("info", "worker.leaving", {"id": sender}))
        elif isinstance(message, Settled):
            self.workers.settled(sender, message.version)
        return outputs + self._membership(now)

    def _gone(self, worker: str) -> list[Output]:
        """A compare was lost or restarted: nobody is to wait for what it would have handed over."""
        if not self.primary:
            return []
        told = self.workers.gone(worker)
        return [Tell(told, compare) for compare in self._compares()] if told is not None else []

    def _let_leave(self) -> list[Output]:
        """Workers that wanted to leave may, once their flows are elsewhere."""
        compares = self._compares()
        return [Tell(Drain(), worker) for worker in self.workers.may_leave(compares) if worker in compares]

    def _send_table(self, now: float) -> list[Output]:
        changed = {"version": self.table.version, "shares": shares(self.table)}
        return [Tell(self.table, EVERYBODY), *self._beat(now), Log("info", "table.changed", changed)]

    def _learn_table(self, now: float, version: int, table: WorkerTable | None = None) -> list[Output]:
        """Somebody holds a table of an earlier start of this frame."""
        if not self.workers.learn(version, table):
            return []
        return self._send_table(now)

    # -- the other host -------------------------------------------------------------------------

    def _from_peer(self, message: Message, now: float) -> list[Output]:
        outputs: list[Output] = []
        if isinstance(message, Heartbeat):
            outputs = self._heartbeat(message, now)
        elif isinstance(message, CheckpointWanted) and self.primary:
            outputs = self.want(message, PEER, now)
        elif isinstance(message, CheckpointDone) and not self.primary:
            outputs = self._done(message)
        else:
            self.counters["ignored_messages"] += 1
        return outputs + self._advance(now)

    def _heartbeat(self, beat: Heartbeat, now: float) -> list[Output]:
        outputs: list[Output] = []
        kept = remembered(beat)
        if kept is None or not possible(Stand(beat.role, beat.incarnation, beat.count, beat.fence, beat.state)):
            self.counters["ignored_messages"] += 1
            return outputs
        self.counters["heartbeats_heard"] += 1
        appeared, restarted = self.peer.hear(kept, now)
        if appeared or restarted:
            event = "peer.restarted" if restarted and not appeared else "peer.found"
            outputs.append(Log("info", event, {"role": beat.role, "epoch": beat.epoch}))
            if restarted:
                self.counters["peer_restarts"] += 1
            if beat.role == self.config.side:
                self.counters["peer_role_conflicts"] += 1
                outputs.append(Log("error", "peer.conflicted", {"role": beat.role}))
        if beat.role == self.config.side:
            return outputs
        outputs += self.ownership.hear_link(beat.claim, now)
        if self.primary:
            if self.ownership.tenure.knows(beat.incarnation):
                self.ownership.tenure.found(now)
            self.checkpoints.learn(beat.epoch)
            table = read_table(beat.table, self.table) if beat.table else None
            outputs += self._learn_table(now, table.version if table else 0, table)
            if appeared and self._left_alone and self.config.resync == "auto":
                outputs += self.resync(now)
            return outputs
        return outputs + self._follow(beat, appeared, now)

    def _follow(self, beat: Heartbeat, appeared: bool, now: float) -> list[Output]:
        """Secondary: take epoch, table and mode from the primary."""
        outputs: list[Output] = []
        if beat.epoch > self.checkpoints.epoch:
            # CheckpointDone was lost with the link. The beat says when guests were last equal.
            copied = beat.body.get("copied_epoch", 0)
            equal = type(copied) is int and copied > self.checkpoints.epoch
            self.counters["checkpoints_caught_up"] += 1
            outputs += self._done(CheckpointDone(beat.epoch, equal))
        table = read_table(beat.table, self.table) if beat.table else None
        other = beat.incarnation != self._primary_incarnation
        if table is not None and (table.version > self.table.version or (other and table != self.table)):
            self.workers.table = table
            outputs.append(Tell(table, EVERYBODY))
            outputs.append(Log("info", "table.changed", {"version": table.version, "shares": shares(table)}))
        self._primary_incarnation = beat.incarnation
        ruled, before = beat.body.get("shadow_rules") is True, self._hasty.mode(self.mode)
        if beat.mode in Mode.ALL:
            self.mode, self._hasty.ruled = beat.mode, ruled
            outputs += self._hasty.tell(self.mode) if self._hasty.mode(self.mode) != before else []
        for key, (wish, sent) in list(self._outstanding.items()):
            if appeared or now - sent >= ASK_AGAIN:
                self._outstanding[key] = (wish, now)
                outputs.append(Tell(wish, PEER))
        return outputs

    def _done(self, done: CheckpointDone) -> list[Output]:
        """Secondary: a checkpoint of the primary is over."""
        self.checkpoints.epoch = max(self.checkpoints.epoch, done.epoch)
        if done.state_copied:
            self.checkpoints.copied_epoch = done.epoch
        self.counters["checkpoints_done"] += 1
        self._outstanding.clear()
        logged = Log("info", "checkpoint.completed", {"epoch": done.epoch, "copied": done.state_copied})
        return [Tell(done, EVERYBODY), logged]

    def _beat(self, now: float) -> list[Output]:
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
            "shadow_rules": self._hasty.ruled,
            "processes": len(self.registry.processes) - len(lost),
            "processes_lost": lost[:16],
        }
        table = to_dict(self.table) if self.table.version else None
        claim = self.ownership.claim(stand)
        beat = Heartbeat(
            self.config.side, self.incarnation, stand.count, self.checkpoints.epoch, stand.fence, self.mode, table,
            body, stand.state, claim=claim,
        )  # fmt: skip
        return [*outputs, Tell(beat, PEER), *self.ownership.say(claim, stand.count)]

    # -- time -----------------------------------------------------------------------------------

    def _advance(self, now: float) -> list[Output]:
        """What follows from what changed: checkpoints and what waits behind one, and who may write."""
        outputs: list[Output] = []
        if self.primary:
            outputs += self.checkpoints.advance(self._compares(), now)
            outputs += self._after_checkpoint(now)
        return outputs + self._tenured(now)

    def _after_checkpoint(self, now: float) -> list[Output]:
        if self.checkpoints.completed == self._applied_at:
            return []
        self._applied_at = self.checkpoints.completed
        outputs = self._new_table(now) if self.workers.covered else []
        return outputs + self._resynced(now)

    def _tenured(self, now: float) -> list[Output]:
        """Follow the tenure: its changes are said at once, and one of them is to be without a secondary."""
        ownership = self.ownership
        outputs: list[Output] = []
        if self.primary and self.peer.silent(now, ownership.tenure.since):
            ownership.tenure.lost(now)
        elif self.config.failover == "auto" and ownership.tenure.may_take(now):
            outputs.append(Log("warning", "failover.begun", {"silent_ms": ownership.silent_ms(now)}))
            ownership.tenure.take(now)
        outputs += ownership.settle(now)
        changes, ownership.changes = ownership.changes, []
        # A primary that never heard of a secondary has lost nobody: it may still be starting.
        alone = any(after == State.ALONE for _, after in changes) and ownership.tenure.other is not None
        if alone and self.config.on_loss == "bypass" and self.mode == Mode.ENFORCE:
            outputs += self.set_mode(Mode.BYPASS, now)
            self._left_alone = True
        elif changes or ownership.tenure.due(now):
            outputs += self._beat(now)
        return outputs

    def deadline(self) -> float | None:
        """When `on_timer` has something to do."""
        due = [self.peer.deadline(), self.registry.deadline(), self.ownership.deadline()]
        if self.primary:
            due += [self.checkpoints.deadline(), self.workers.deadline()]
            due.append(self._resync_asked + ASK_AGAIN if self._resync_epoch is not None else None)
        return min(when for when in due if when is not None)

    def on_timer(self, now: float) -> list[Output]:
        """Heartbeats, losses, and what waits for time to pass."""
        self._notice(now)
        outputs: list[Output] = []
        if self.peer.sweep(now):
            self.counters["peer_lost"] += 1
            silent = int((now - self.peer.heard) * 1000)
            outputs.append(Log("warning", "peer.lost", {"silent_ms": silent, "role": self._peer_role()}))
        lost = self.registry.sweep(now)
        for process in lost:
            self.counters["processes_lost"] += 1
            outputs.append(Log("warning", "process.lost", {"role": process.role, "id": process.id}))
            if process.role == "compare":
                outputs += self._gone(process.id)
        if self.primary:
            outputs += self._membership(now)
            outputs += [Tell(self.workers.table, worker) for worker in self.workers.remind(now)]
            outputs += self.checkpoints.on_timer(self._compares(), now)
            outputs += self._after_checkpoint(now)
            if self._resync_epoch is not None and now >= self._resync_asked + ASK_AGAIN:
                outputs += self.resync(now)
        return outputs + self._tenured(now)

    @property
    def table(self) -> WorkerTable:
        """The worker table in force: the primary makes it, the secondary repeats it."""
        return self.workers.table

    @property
    def fence(self) -> int:
        """Highest fencing token seen (given out at a failover)."""
        return self.ownership.tenure.fence

    def _peer_role(self) -> str:
        return "secondary" if self.primary else "primary"

    def drain(self, now: float) -> list[Output]:
        """The processes carry on without a frame: there is nothing to hand over."""
        return []

    # -- looking in -----------------------------------------------------------------------------

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
            "fence": self.fence,
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
            "fence": self.fence,
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
