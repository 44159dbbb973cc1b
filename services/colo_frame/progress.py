"""What follows from messages that were heard, and from time that passes.

::

    a request is due        --> the checkpoint begins, and ends once all compares have answered
    a checkpoint is over    --> the worker table that waited for it; mode `enforce`, if that was ordered (resync)
    a process or the other
    host has been silent    --> it is lost
    the leadership changed  --> the other host is told at once; a primary that is alone goes into mode `bypass`
    none of these           --> the next heartbeat, when it is due
"""

from dataclasses import dataclass

from colo_frame.requests import REPEAT_AFTER
from colo_frame.scaling import Scaling
from colo_frame.side import Side
from colo_proto.claim import State
from colo_proto.messages import CheckpointWanted, Mode, Reason


@dataclass
class Progress:
    """See the module."""

    _side: Side
    _scaling: Scaling
    _completed: int = 0
    """How many checkpoints were completed when `_after_checkpoint` last looked."""
    _resync_epoch: int | None = None
    """The epoch that brings a lost secondary back; None: no resync is under way."""
    _resync_requested: float = 0.0
    """When the checkpoint for it was last requested."""

    def advance(self, now: float) -> None:
        """Do what follows from a message: checkpoints and what waits for one, and who may write."""
        side = self._side
        if side.primary:
            side.out += side.checkpoints.advance(side.compares(), now)
            self._after_checkpoint(now)
        self._lead(now)

    def on_timer(self, now: float) -> None:
        """Do what is due: heartbeats, losses, and what waits for time to pass."""
        side = self._side
        self._losses(now)
        if side.primary:
            self._scaling.follow(now)
            self._scaling.remind(now)
            side.out += side.checkpoints.on_timer(side.compares(), now)
            self._after_checkpoint(now)
            if self._resync_epoch is not None and now >= self._resync_requested + REPEAT_AFTER:
                self.resync(now)
        self._lead(now)

    def deadline(self) -> float:
        """When to call `on_timer`."""
        side = self._side
        due = [side.peer.deadline(), side.registry.deadline(), side.ownership.deadline()]
        if side.primary:
            due += [side.checkpoints.deadline(), side.workers.deadline()]
            due.append(self._resync_requested + REPEAT_AFTER if self._resync_epoch is not None else None)
        return min(when for when in due if when is not None)

    def resync(self, now: float) -> None:
        """Request a checkpoint, and compare again once it is over."""
        checkpoints, own = self._side.checkpoints, self._side.config.id
        request = CheckpointWanted(Reason.RESYNC, source=own, epoch=checkpoints.epoch)
        # A checkpoint that is under way began before the secondary was there, so the one after it counts.
        self._resync_epoch = checkpoints.epoch + (1 if checkpoints.idle else 2)
        self._resync_requested = now
        self._side.requests.add(request, own, now)
        self.advance(now)

    def _after_checkpoint(self, now: float) -> None:
        side, checkpoints, wanted = self._side, self._side.checkpoints, self._resync_epoch
        if checkpoints.completed == self._completed:
            return
        self._completed = checkpoints.completed
        self._scaling.after_checkpoint(now)
        if wanted is not None and checkpoints.epoch >= wanted and checkpoints.idle:
            self._resync_epoch = None
            copied = checkpoints.copied_epoch >= wanted
            side.counters["resyncs"] += 1
            side.modes.set(Mode.ENFORCE, resync=not copied)
            side.beat(now)
            side.out.log("info", "pair.resynced", epoch=checkpoints.epoch, copied=copied)

    def _lead(self, now: float) -> None:
        """Let the leadership change. A change is told to the other side at once, and a primary that is alone from now
        on goes into mode `bypass`.
        """
        side, ownership, leadership = self._side, self._side.ownership, self._side.ownership.leadership
        if side.primary and side.peer.silent(now, leadership.since):
            leadership.peer_lost(now)
        elif side.config.failover == "auto" and leadership.may_take_over(now):
            side.out.log("warning", "failover.begun", silent_ms=int((now - leadership.heard) * 1000))
            leadership.take_over(now)
        ownership.advance(now)
        changes, ownership.changes = ownership.changes, []
        # A primary that has never heard of a secondary has lost nobody: the secondary may still be starting.
        alone = any(after == State.ALONE for _, after in changes) and leadership.other is not None
        if alone and side.config.on_loss == "bypass" and side.modes.mode == Mode.ENFORCE:
            side.modes.go_alone()
        if changes or leadership.claim_due(now):
            side.beat(now)

    def _losses(self, now: float) -> None:
        """Who has been silent for too long: the other host, and processes of this one."""
        side = self._side
        if side.peer.sweep(now):
            side.counters["peer_lost"] += 1
            silent = int((now - side.peer.heard) * 1000)
            role = "secondary" if side.primary else "primary"
            side.out.log("warning", "peer.lost", silent_ms=silent, role=role)
        for process in side.registry.sweep(now):
            side.counters["processes_lost"] += 1
            side.out.log("warning", "process.lost", role=process.role, id=process.id)
            if process.role == "compare":
                self._scaling.gone(process.id)
