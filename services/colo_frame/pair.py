"""What is heard from the other host's frame: heartbeats, requests for checkpoints, and checkpoints that are over.

The primary takes requests. If it was restarted, it also learns from a heartbeat which epoch and which table are in use.
The secondary follows the primary: it tells its processes of every checkpoint, its splitters (the processes that share
frames out to compares) use the primary's worker table, and its rewriters hear of the primary's mode.
"""

from dataclasses import dataclass
from typing import Final

from colo_frame.bounds import trim_heartbeat
from colo_frame.peer import PEER
from colo_frame.registry import EVERYBODY
from colo_frame.scaling import Scaling
from colo_frame.side import Side
from colo_frame.table import read_table
from colo_frame.verdict import read_causes, read_verdict
from colo_proto.claim import Stand, in_range
from colo_proto.messages import MAX_ASK, CheckpointDone, CheckpointWanted, Heartbeat, LanAsk, Message, Unprotected

CATCHES_UP: Final = 5.0
"""Seconds for which a resync waits at most until the secondary has caught up."""
NOT_BEHIND: Final = 512
"""Frames of a mirror that may be under way when a secondary has caught up."""


@dataclass
class Pair:
    """See the module."""

    _side: Side
    _scaling: Scaling
    _primary_incarnation: int | None = None
    """Secondary: the start of the primary's frame that was heard last."""
    _joins: float | None = None
    """Primary: since when a whole secondary waits for its resync."""

    def take_role(self) -> None:
        """Where roles change: this host leads from now on, or does not any more."""
        self._primary_incarnation = self._joins = None

    def hear(self, message: Message, now: float) -> None:
        """Take one message of the other host's frame; unknown ones are counted and ignored."""
        side = self._side
        if isinstance(message, Heartbeat):
            self._heartbeat(message, now)
        elif isinstance(message, CheckpointWanted) and side.primary:
            side.requests.add(message, PEER, now)
        elif isinstance(message, CheckpointDone) and not side.primary:
            self._done(message)
        elif isinstance(message, LanAsk) and side.primary:
            self._ask(message, now)
        elif isinstance(message, Unprotected) and not side.primary and side.unprotected.from_peer(message):
            pass
        else:
            side.counters["ignored_messages"] += 1

    def _ask(self, message: LanAsk, now: float) -> None:
        """Primary: have the mirror ask the client LAN, if this host may write there."""
        until = self._side.ownership.leadership.lease(now)
        if until and len(message.frame) <= MAX_ASK:
            self._side.counters["neighbours_asked"] += 1
            self._side.out.tell(LanAsk(message.frame, until), *self._side.registry.live("mirror"))

    def _heartbeat(self, beat: Heartbeat, now: float) -> None:
        side = self._side
        kept = trim_heartbeat(beat)
        if kept is None or not in_range(Stand(beat.role, beat.incarnation, beat.count, beat.fence, beat.state)):
            side.counters["ignored_messages"] += 1
            return
        side.counters["heartbeats_heard"] += 1
        appeared, restarted = side.peer.hear(kept, now)
        conflict = beat.role == side.config.side
        if appeared or restarted:
            event = "peer.restarted" if restarted and not appeared else "peer.found"
            side.out.log("info", event, role=beat.role, epoch=beat.epoch)
            if restarted:
                side.counters["peer_restarts"] += 1
            if conflict:
                side.counters["peer_role_conflicts"] += 1
                side.out.log("error", "peer.conflicted", role=beat.role)
        if conflict:
            return
        side.ownership.hear_link(beat.claim, now)
        side.peer.told, side.peer.broken = read_verdict(beat.verdict, now), read_causes(beat.broken, now)
        # The claim may just have shown that this host does not lead any more: its splitters need the table at once. One
        # that begins to lead takes the role first.
        if not side.ownership.leadership.primary:
            self._follow(beat, now, appeared=appeared)
        elif side.primary:
            self._lead(beat, now, appeared=appeared)

    def _lead(self, beat: Heartbeat, now: float, *, appeared: bool) -> None:
        """Primary: the secondary is there. It knows epoch and table, should this frame have been restarted."""
        side, leadership = self._side, self._side.ownership.leadership
        if leadership.fresh.believed == beat.incarnation:
            leadership.peer_found(now)
        side.checkpoints.learn(beat.epoch)
        side.unprotected.secondary_has(beat.body.get("unprotected"), side.welcome(), now)
        table = read_table(beat.table, side.table) if beat.table else None
        self._scaling.learn(now, table.version if table else 0, table)
        guest = beat.body.get("guest")
        if isinstance(guest, dict):
            side.judging.guests.hear_peer(guest.get("written"), guest.get("sent"), beat.incarnation, now)
        if appeared and side.modes.left_alone:
            # Its guest may have connections that are over by now. Whatever is replayed to it is not compared.
            side.unprotected.resynced(side.checkpoints.epoch, now)

    def caught_up(self, now: float, *, wanted: bool) -> bool:
        """Primary: has the other host got all that the mirrors have sent, now that its resync is `wanted`? While a
        mirror link replays what was missed, the secondary guest is behind, and whoever were compared with it now would
        have to wait. After `CATCHES_UP` it is not waited for.
        """
        if not wanted:
            self._joins = None
            return False
        self._joins = now if self._joins is None else self._joins
        processes = self._side.registry.processes
        reports = [processes[name].report for name in self._side.registry.live("mirror")]
        behind = [one.gauges.get("link.outdev.unacknowledged", 0) for one in reports if one is not None]
        return max(behind, default=0) <= NOT_BEHIND or now >= self._joins + CATCHES_UP

    def _follow(self, beat: Heartbeat, now: float, *, appeared: bool) -> None:
        """Secondary: take epoch, table and mode from the primary."""
        side = self._side
        if beat.epoch > side.checkpoints.epoch:
            # CheckpointDone was lost with the link. The heartbeat says when the guests were last equal.
            copied = beat.body.get("copied_epoch", 0)
            equal = type(copied) is int and copied > side.checkpoints.epoch
            side.counters["checkpoints_caught_up"] += 1
            self._done(CheckpointDone(beat.epoch, equal))
        table = read_table(beat.table, side.table) if beat.table else None
        restarted = beat.incarnation != self._primary_incarnation
        if table is not None and (table.version > side.table.version or (restarted and table != side.table)):
            self._scaling.take(table)
        self._primary_incarnation = beat.incarnation
        side.modes.follow(beat.mode, shadow_rules=beat.body.get("shadow_rules") is True)
        side.requests.repeat(now, appeared=appeared)

    def _done(self, done: CheckpointDone) -> None:
        """Secondary: a checkpoint of the primary is over."""
        side, checkpoints = self._side, self._side.checkpoints
        checkpoints.epoch = max(checkpoints.epoch, done.epoch)
        if done.state_copied:
            checkpoints.copied_epoch = done.epoch
        side.counters["checkpoints_done"] += 1
        side.requests.answered()
        side.out.tell(done, EVERYBODY)
        side.out.log("info", "checkpoint.completed", epoch=done.epoch, copied=done.state_copied)
