"""What follows from what was heard, and from time that passes.

::

    a wish is due           --> the checkpoint begins, and ends once all compares have answered
    a checkpoint is over    --> the worker table that waited for it; back to comparing, if that was wanted (resync)
    a process, or the other
    host, has been silent   --> it is lost
    the tenure has changed  --> the other host is told at once; a primary that is alone goes into mode `bypass`
    nothing                 --> the next heartbeat, when it is due
"""

from colo_frame.modes import Modes
from colo_frame.scaling import Scaling
from colo_frame.standing import Standing
from colo_frame.wishes import ASK_AGAIN, Wishes
from colo_proto.claim import State
from colo_proto.core import Log, Output
from colo_proto.messages import CheckpointWanted, Mode, Reason


class Progress:
    """See the module."""

    def __init__(self, standing: Standing, wishes: Wishes, scaling: Scaling, modes: Modes) -> None:
        self._standing = standing
        self._wishes = wishes
        self._scaling = scaling
        self._modes = modes
        self._applied_at = 0
        """How many checkpoints were completed when `_after_checkpoint` last looked."""
        self._resync_epoch: int | None = None
        """The epoch that brings a lost secondary back; None: no resync is under way."""
        self._resync_asked = 0.0
        """When the checkpoint for it was last asked for."""

    def advance(self, now: float) -> list[Output]:
        """What follows from what changed: checkpoints and what waits behind one, and who may write."""
        standing = self._standing
        outputs: list[Output] = []
        if standing.primary:
            outputs += standing.checkpoints.advance(standing.compares(), now)
            outputs += self._after_checkpoint(now)
        return outputs + self._tenured(now)

    def resync(self, now: float) -> list[Output]:
        """Compare again behind the next checkpoint."""
        checkpoints, own = self._standing.checkpoints, self._standing.config.id
        wish = CheckpointWanted(Reason.RESYNC, source=own, epoch=checkpoints.epoch)
        # A checkpoint that is under way began before the secondary was there, so the one behind it counts.
        self._resync_epoch = checkpoints.epoch + (1 if checkpoints.idle else 2)
        self._resync_asked = now
        return [*self._wishes.want(wish, own, now), *self.advance(now)]

    def _resynced(self, now: float) -> list[Output]:
        wanted, checkpoints = self._resync_epoch, self._standing.checkpoints
        if wanted is None or checkpoints.epoch < wanted or not checkpoints.idle:
            return []
        self._resync_epoch = None
        copied = checkpoints.copied_epoch >= wanted
        self._standing.counters["resyncs"] += 1
        outputs = self._modes.set(Mode.ENFORCE, now, resync=not copied)
        return [*outputs, Log("info", "pair.resynced", {"epoch": checkpoints.epoch, "copied": copied})]

    def _after_checkpoint(self, now: float) -> list[Output]:
        completed = self._standing.checkpoints.completed
        if completed == self._applied_at:
            return []
        self._applied_at = completed
        return [*self._scaling.after_checkpoint(now), *self._resynced(now)]

    def _tenured(self, now: float) -> list[Output]:
        """Follow the tenure: its changes are said at once, and one of them is to be without a secondary."""
        standing, ownership = self._standing, self._standing.ownership
        outputs: list[Output] = []
        if standing.primary and standing.peer.silent(now, ownership.tenure.since):
            ownership.tenure.lost(now)
        elif standing.config.failover == "auto" and ownership.tenure.may_take(now):
            outputs.append(Log("warning", "failover.begun", {"silent_ms": ownership.silent_ms(now)}))
            ownership.tenure.take(now)
        outputs += ownership.settle(now)
        changes, ownership.changes = ownership.changes, []
        # A primary that never heard of a secondary has lost nobody: it may still be starting.
        alone = any(after == State.ALONE for _, after in changes) and ownership.tenure.other is not None
        if alone and standing.config.on_loss == "bypass" and standing.mode == Mode.ENFORCE:
            outputs += self._modes.go_alone(now)
        elif changes or ownership.tenure.due(now):
            outputs += standing.beat(now)
        return outputs

    def deadline(self) -> float:
        """When `on_timer` has something to do."""
        standing = self._standing
        due = [standing.peer.deadline(), standing.registry.deadline(), standing.ownership.deadline()]
        if standing.primary:
            due += [standing.checkpoints.deadline(), standing.workers.deadline()]
            due.append(self._resync_asked + ASK_AGAIN if self._resync_epoch is not None else None)
        return min(when for when in due if when is not None)

    def on_timer(self, now: float) -> list[Output]:
        """Heartbeats, losses, and what waits for time to pass."""
        standing = self._standing
        outputs = self._losses(now)
        if standing.primary:
            outputs += self._scaling.follow(now)
            outputs += self._scaling.remind(now)
            outputs += standing.checkpoints.on_timer(standing.compares(), now)
            outputs += self._after_checkpoint(now)
            if self._resync_epoch is not None and now >= self._resync_asked + ASK_AGAIN:
                outputs += self.resync(now)
        return outputs + self._tenured(now)

    def _losses(self, now: float) -> list[Output]:
        """Who has been silent for too long: the other host, and processes of this one."""
        standing = self._standing
        outputs: list[Output] = []
        if standing.peer.sweep(now):
            standing.counters["peer_lost"] += 1
            silent = int((now - standing.peer.heard) * 1000)
            role = "secondary" if standing.primary else "primary"
            outputs.append(Log("warning", "peer.lost", {"silent_ms": silent, "role": role}))
        for process in standing.registry.sweep(now):
            standing.counters["processes_lost"] += 1
            outputs.append(Log("warning", "process.lost", {"role": process.role, "id": process.id}))
            if process.role == "compare":
                outputs += self._scaling.gone(process.id)
        return outputs
