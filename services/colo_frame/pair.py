"""What is heard from the other host's frame: heartbeats, wishes for checkpoints, and checkpoints that are over.

The primary takes wishes. It also learns from a heartbeat which epoch and which table are in use, should it have been
restarted. The secondary follows the primary: its processes hear of every checkpoint, its splitters use the primary's
worker table, and its rewriters hear of the primary's mode.
"""

from colo_frame.bounds import remembered
from colo_frame.modes import Modes
from colo_frame.peer import PEER
from colo_frame.progress import Progress
from colo_frame.registry import EVERYBODY
from colo_frame.scaling import Scaling
from colo_frame.standing import Standing
from colo_frame.table import read_table
from colo_frame.wishes import Wishes
from colo_proto.claim import Stand, possible
from colo_proto.core import Log, Output, Tell
from colo_proto.messages import CheckpointDone, CheckpointWanted, Heartbeat, Message, Mode


class Pair:
    """See the module."""

    def __init__(self, standing: Standing, wishes: Wishes, scaling: Scaling, modes: Modes, progress: Progress) -> None:
        self._standing = standing
        self._wishes = wishes
        self._scaling = scaling
        self._modes = modes
        self._progress = progress
        self._primary_incarnation: int | None = None
        """Secondary: the start of the primary's frame that was heard last."""

    def hear(self, message: Message, now: float) -> list[Output]:
        """One message of the other host's frame; unknown ones are counted and ignored."""
        primary = self._standing.primary
        if isinstance(message, Heartbeat):
            return self._heartbeat(message, now)
        if isinstance(message, CheckpointWanted) and primary:
            return self._wishes.want(message, PEER, now)
        if isinstance(message, CheckpointDone) and not primary:
            return self._done(message)
        self._standing.counters["ignored_messages"] += 1
        return []

    def _heartbeat(self, beat: Heartbeat, now: float) -> list[Output]:
        standing = self._standing
        kept = remembered(beat)
        if kept is None or not possible(Stand(beat.role, beat.incarnation, beat.count, beat.fence, beat.state)):
            standing.counters["ignored_messages"] += 1
            return []
        standing.counters["heartbeats_heard"] += 1
        appeared, restarted = standing.peer.hear(kept, now)
        outputs = self._noted(beat, appeared=appeared, restarted=restarted)
        if beat.role == standing.config.side:
            return outputs
        outputs += standing.ownership.hear_link(beat.claim, now)
        if standing.primary:
            return outputs + self._lead(beat, now, appeared=appeared)
        return outputs + self._follow(beat, now, appeared=appeared)

    def _noted(self, beat: Heartbeat, *, appeared: bool, restarted: bool) -> list[Output]:
        """Count and log what is new about the other frame."""
        counters, side = self._standing.counters, self._standing.config.side
        outputs: list[Output] = []
        if appeared or restarted:
            event = "peer.restarted" if restarted and not appeared else "peer.found"
            outputs.append(Log("info", event, {"role": beat.role, "epoch": beat.epoch}))
            if restarted:
                counters["peer_restarts"] += 1
            if beat.role == side:
                counters["peer_role_conflicts"] += 1
                outputs.append(Log("error", "peer.conflicted", {"role": beat.role}))
        return outputs

    def _lead(self, beat: Heartbeat, now: float, *, appeared: bool) -> list[Output]:
        """Primary: the secondary is there. It knows the epoch and the table that an earlier start of us has made."""
        standing = self._standing
        if standing.ownership.tenure.knows(beat.incarnation):
            standing.ownership.tenure.found(now)
        standing.checkpoints.learn(beat.epoch)
        table = read_table(beat.table, standing.table) if beat.table else None
        outputs = self._scaling.learn(now, table.version if table else 0, table)
        if appeared and self._modes.left_alone and standing.config.resync == "auto":
            outputs += self._progress.resync(now)
        return outputs

    def _follow(self, beat: Heartbeat, now: float, *, appeared: bool) -> list[Output]:
        """Secondary: take epoch, table and mode from the primary."""
        standing, hasty = self._standing, self._standing.hasty
        outputs: list[Output] = []
        if beat.epoch > standing.checkpoints.epoch:
            # CheckpointDone was lost with the link. The beat says when guests were last equal.
            copied = beat.body.get("copied_epoch", 0)
            equal = type(copied) is int and copied > standing.checkpoints.epoch
            standing.counters["checkpoints_caught_up"] += 1
            outputs += self._done(CheckpointDone(beat.epoch, equal))
        table = read_table(beat.table, standing.table) if beat.table else None
        other = beat.incarnation != self._primary_incarnation
        if table is not None and (table.version > standing.table.version or (other and table != standing.table)):
            outputs += self._scaling.take(table)
        self._primary_incarnation = beat.incarnation
        ruled, before = beat.body.get("shadow_rules") is True, hasty.mode(standing.mode)
        if beat.mode in Mode.ALL:
            standing.mode, hasty.ruled = beat.mode, ruled
            outputs += hasty.tell(standing.mode) if hasty.mode(standing.mode) != before else []
        return outputs + self._wishes.repeat(now, appeared=appeared)

    def _done(self, done: CheckpointDone) -> list[Output]:
        """Secondary: a checkpoint of the primary is over."""
        standing = self._standing
        standing.checkpoints.epoch = max(standing.checkpoints.epoch, done.epoch)
        if done.state_copied:
            standing.checkpoints.copied_epoch = done.epoch
        standing.counters["checkpoints_done"] += 1
        self._wishes.answered()
        logged = Log("info", "checkpoint.completed", {"epoch": done.epoch, "copied": done.state_copied})
        return [Tell(done, EVERYBODY), logged]
