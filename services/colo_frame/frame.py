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
    |             judging      the verdict: would the pair survive a failure now?  |
    +------------------------------------------------------------------------------+
          |  Welcome, CheckpointDone, SetMode, WorkerTable, Promote, Lease, LanSay, Answer
          v

Each of these uses what is below it and nothing that is above. What they want to be sent and logged they put into one
outbox, which `hear` and `on_timer` return. `hear` takes every message: `sender` is the routing id of a process of this
host, or `PEER`. The frame tells `to` a routing id, `PEER`, or `EVERYBODY` of this host. `Frame` itself does what
follows from a message, and from time that passes::

    a request is due        --> the checkpoint begins, and ends once all compares have answered
    a checkpoint is over    --> the worker table that waited for it; mode `enforce`, if that was ordered (resync)
    a process or the other
    host has been silent    --> it is lost
    the leadership changed  --> the other host is told at once; a primary that is alone goes into mode `bypass`
    the verdict says that the secondary is none, for the timeout --> the same; and back when it is whole
    none of these           --> the next heartbeat, when it is due
"""

from collections.abc import Sequence
from typing import Any, Final

from colo_frame.config import FrameConfig
from colo_frame.drivers import Driver
from colo_frame.host import Host
from colo_frame.pair import Pair
from colo_frame.peer import PEER
from colo_frame.queries import Queries
from colo_frame.requests import REPEAT_AFTER
from colo_frame.scaling import Scaling
from colo_frame.side import Side
from colo_frame.transitions import FOLLOWING, WRITING, On
from colo_proto.claim import State
from colo_proto.core import Log, Output
from colo_proto.messages import CheckpointWanted, Message, Mode, Query, Reason

STARTING: Final = 60.0
"""Seconds that a primary waits for the filters of a secondary that was never whole: it may still be starting."""


class Frame:
    """See the module. `incarnation` tells this start of the frame from the one before."""

    def __init__(
        self, config: FrameConfig, incarnation: int = 0, now: float = 0.0, driver: Driver | None = None
    ) -> None:
        side = self.side = Side(config, incarnation, now, driver)
        self.counters = side.counters
        self._scaling = scaling = Scaling(side)
        if config.changing:
            side.ownership.on_promote = scaling.lead
        self._host = Host(side, scaling)
        self._pair = Pair(side, scaling)
        self._queries = Queries(side, self._order_resync)
        self._completed = 0
        """How many checkpoints were completed when `_after_checkpoint` last looked."""
        self._resync_epoch: int | None = None
        """The epoch that brings a lost secondary back; None: no resync is under way."""
        self._resync_requested = 0.0
        """When the checkpoint for it was last requested."""
        self._resync_ordered = False
        """An operator wants the secondary back as soon as it is whole."""
        self._was_whole = False
        """The secondary was whole once, so it is not just starting."""
        self._gave_up = False
        """The secondary is none although its frame is alive, and this primary goes on without it."""

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
        self._advance(now)
        return self.side.out.take()

    def deadline(self) -> float:
        """When to call `on_timer`."""
        side = self.side
        due = [side.peer.deadline(), side.registry.deadline(), side.ownership.deadline()]
        if side.primary:
            due += [side.checkpoints.deadline(), side.workers.deadline()]
            due.append(self._resync_requested + REPEAT_AFTER if self._resync_epoch is not None else None)
        return min(when for when in due if when is not None)

    def on_timer(self, now: float) -> list[Output]:
        """Do what is due: heartbeats, losses, and what waits for time to pass."""
        side = self.side
        side.notice_stall(now)
        self._losses(now)
        if side.primary:
            self._scaling.follow(now)
            self._scaling.remind(now)
            side.out += side.checkpoints.on_timer(side.compares(), now)
            self._after_checkpoint(now)
            if self._resync_epoch is not None and now >= self._resync_requested + REPEAT_AFTER:
                self.resync(now)
        self._lead(now)
        return side.out.take()

    # -- what follows ---------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Do what follows from a message: checkpoints and what waits for one, and who may write."""
        side = self.side
        if side.primary:
            side.out += side.checkpoints.advance(side.compares(), now)
            self._after_checkpoint(now)
        self._lead(now)

    def resync(self, now: float) -> None:
        """Request a checkpoint, and compare again once it is over."""
        checkpoints, own = self.side.checkpoints, self.side.config.id
        request = CheckpointWanted(Reason.RESYNC, source=own, epoch=checkpoints.epoch)
        # A checkpoint that is under way began before the secondary was there, so the one after it counts.
        self._resync_epoch = checkpoints.epoch + (1 if checkpoints.idle else 2)
        self._resync_requested = now
        self._resync_ordered = False
        self.side.judging.resyncing = True
        self.side.requests.add(request, own, now)
        self._advance(now)

    def _order_resync(self, now: float) -> None:
        """An operator wants the secondary back: now, or as soon as it is whole."""
        judging, leadership = self.side.judging, self.side.ownership.leadership
        judging.judge(now)
        if judging.whole and leadership.state == State.HOLDING:
            self.resync(now)
        else:
            self._resync_ordered = True

    def _after_checkpoint(self, now: float) -> None:
        side, checkpoints, wanted = self.side, self.side.checkpoints, self._resync_epoch
        if checkpoints.completed == self._completed:
            return
        self._completed = checkpoints.completed
        self._scaling.after_checkpoint(now)
        if wanted is not None and checkpoints.epoch >= wanted and checkpoints.idle:
            self._resync_epoch = None
            side.judging.resynced(now)
            copied = checkpoints.copied_epoch >= wanted
            side.counters["resyncs"] += 1
            if not copied:
                # Before the compares: what they tell of new connections comes behind it.
                side.unprotected.resynced(checkpoints.epoch, now)
            side.modes.set(Mode.ENFORCE, resync=not copied)
            side.beat(now)
            side.out.log("info", "pair.resynced", epoch=checkpoints.epoch, copied=copied)

    def _lead(self, now: float) -> None:
        """Let the leadership change. A change is told to the other side at once, and a primary that is alone from now
        on goes into mode `bypass`.
        """
        side, ownership, leadership = self.side, self.side.ownership, self.side.ownership.leadership
        if side.primary and side.peer.silent(now, leadership.since):
            leadership.peer_lost(now)
        elif side.config.automatic and leadership.may_take_over(now) and side.promotable(now):
            side.out.log("warning", "failover.begun", silent_ms=int((now - leadership.heard) * 1000))
            leadership.take_over(now, On.SILENT)
        ownership.advance(now)
        changes, ownership.changes = ownership.changes, []
        if side.config.changing:
            self._take_role(changes, now)
        self._note_takeover(changes, now)
        # A primary that has never heard of a secondary has lost nobody: the secondary may still be starting.
        alone = any(after == State.ALONE for _, after in changes) and leadership.other is not None
        if alone and side.config.on_loss == "bypass" and side.modes.mode == Mode.ENFORCE:
            side.modes.go_alone()
        if changes or leadership.claim_due(now):
            side.beat(now)
            if side.primary and leadership.state == State.HOLDING:
                self._mind_secondary(now)

    def _take_role(self, changes: Sequence[tuple[str, str]], now: float) -> None:
        """Where roles change: this host may lead from now on, or not any more."""
        side, leadership = self.side, self.side.ownership.leadership
        if side.primary != leadership.primary:
            self._resync_epoch, self._resync_ordered, self._was_whole, self._gave_up = None, False, False, False
            side.take_role(primary=leadership.primary)
            self._pair.take_role()
            if leadership.primary:
                self._begin_to_lead()
            else:
                side.modes.follow_other()
        if changes and leadership.because == On.VACANT and leadership.primary:
            # The other host has had the LAN, or wanted it: nobody knows what it released.
            side.modes.go_alone()
        if any(after in WRITING and before not in WRITING for before, after in changes):
            self._scaling.lead(now)

    def _begin_to_lead(self) -> None:
        """In which mode the new leader goes on. A frame that was restarted changes nothing. When the former leader has
        yielded and this guest was a replica, so is that of the former leader, and comparison goes on from the middle of
        each connection. Otherwise the other guest is no replica, and a resync is needed.
        """
        side, leadership = self.side, self.side.ownership.leadership
        if leadership.began == On.YIELDED and leadership.replica and side.modes.mode != Mode.BYPASS:
            side.modes.set(side.modes.mode)
        elif leadership.began != On.LED:
            side.modes.go_alone()

    def _note_takeover(self, changes: Sequence[tuple[str, str]], now: float) -> None:
        """Remember which side has taken over, for `colo status`."""
        side = self.side
        for before, after in changes:
            if side.config.changing:
                if before in FOLLOWING and after in WRITING:
                    side.takeover = (side.config.side, now)
                elif (before, after) == (State.FENCED, State.STANDBY):
                    side.takeover = ("secondary" if side.config.side == "primary" else "primary", now)
            elif after == State.PROMOTED or (after == State.FENCED and side.primary):
                side.takeover = ("secondary", now)
            elif after == State.FENCED:
                side.takeover = ("primary", now)

    def _mind_secondary(self, now: float) -> None:
        """Primary with a secondary whose frame is alive: go on alone if its chain has been broken for the timeout, and
        bring it back once it is whole. The secondary has heard since the break that it is no replica.
        """
        side, judging = self.side, self.side.judging
        cause = judging.given_up(now, side.peer.timeout if self._was_whole else STARTING)
        wanted = self._resync_ordered or (side.modes.left_alone and side.config.resync == "auto")
        if self._pair.caught_up(now, wanted=judging.whole and wanted and self._resync_epoch is None):
            self.resync(now)
        if judging.whole:
            self._gave_up, self._was_whole = False, True
        elif cause is not None and not self._gave_up:
            self._gave_up = True
            if side.config.on_loss == "bypass" and side.modes.mode == Mode.ENFORCE:
                side.out.log("warning", "secondary.given_up", reason=cause.reason, why=cause.text)
                side.counters["secondaries_given_up"] += 1
                side.modes.go_alone()
                side.beat(now)

    def _losses(self, now: float) -> None:
        """Who has been silent for too long: the other host, and processes of this one."""
        side = self.side
        if side.peer.sweep(now):
            side.counters["peer_lost"] += 1
            silent = int((now - side.peer.heard) * 1000)
            role = "secondary" if side.config.side == "primary" else "primary"
            side.out.log("warning", "peer.lost", silent_ms=silent, role=role)
        for process in side.registry.sweep(now):
            side.counters["processes_lost"] += 1
            side.out.log("warning", "process.lost", role=process.role, id=process.id)
            if process.role == "compare":
                self._scaling.gone(process.id)

    def unreachable(self, name: str, now: float) -> None:
        """The shell could not send to a process, because its connection has ended."""
        process = self.side.registry.unreachable(name, now)
        if process is not None:
            self.side.out.log("warning", "process.gone", role=process.role, id=process.id)

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
