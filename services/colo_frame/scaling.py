"""How the worker table follows the compare workers: `workers` decides, and this carries it out.

A table that changes is sent to every process of this host and, in a heartbeat, to the other host. While flows move
from one worker to another, the frame passes on what the two say to each other, and it lets a worker stop once all of
its flows are elsewhere. Only the primary makes tables; on the secondary most of this does nothing.
"""

from colo_frame.registry import EVERYBODY
from colo_frame.standing import Standing
from colo_frame.table import shares
from colo_frame.wishes import Wishes
from colo_proto.core import Log, Output, Tell
from colo_proto.messages import (
    CheckpointWanted,
    Drain,
    Handover,
    HandoverTaken,
    Leaving,
    Mode,
    Settled,
    WorkerTable,
)

Moving = Leaving | Settled | Handover | HandoverTaken
"""What compares say while flows move between them."""


class Scaling:
    """See the module."""

    def __init__(self, standing: Standing, wishes: Wishes) -> None:
        self._standing = standing
        self._workers = standing.workers
        self._wishes = wishes

    def follow(self, now: float) -> list[Output]:
        """Look at the workers that are there. A change of them asks for a checkpoint; the first table needs none."""
        standing, workers = self._standing, self._workers
        if not standing.primary:
            return []
        known = [p.id for p in standing.registry.processes.values() if p.role == "compare"]
        reason = workers.check(standing.compares(), known, standing.registry.linked(), now)
        # Both hosts share out by the table: a planned change waits until the other one hears of it, if that matters.
        heard = standing.peer.alive or not standing.config.peer or standing.mode == Mode.BYPASS
        if workers.due(now) and (heard or not workers.table.version):
            return self._make(now)
        if reason is None:
            return self._let_leave()
        detail = {"workers": workers.wanted, "before": workers.table.workers}
        own = standing.config.id
        wish = CheckpointWanted(reason, detail=detail, source=own, epoch=standing.checkpoints.epoch)
        return self._wishes.want(wish, own, now)

    def hear(self, sender: str, message: Moving, now: float) -> list[Output]:
        """What compares say to each other and to us while flows move."""
        compares = self._standing.compares()
        if isinstance(message, Handover):
            known = sender == message.giver and message.taker in compares
            self._standing.counters["handovers" if known else "ignored_messages"] += 1
            return [Tell(message, message.taker)] if known else []
        if isinstance(message, HandoverTaken):
            known = sender == message.taker and message.giver in compares
            return [Tell(message, message.giver)] if known else []
        outputs: list[Output] = []
        if isinstance(message, Leaving):
            self._workers.leaving.add(sender)
            outputs.append(Log("info", "worker.leaving", {"id": sender}))
        else:
            self._workers.settled(sender, message.version)
        return outputs + self.follow(now)

    def gone(self, worker: str) -> list[Output]:
        """A compare was lost or restarted: nobody is to wait for what it would have handed over."""
        if not self._standing.primary:
            return []
        told = self._workers.gone(worker)
        return [Tell(told, compare) for compare in self._standing.compares()] if told is not None else []

    def after_checkpoint(self, now: float) -> list[Output]:
        """A checkpoint is over: a change that waited for one is made now."""
        return self._make(now) if self._workers.covered else []

    def remind(self, now: float) -> list[Output]:
        """Tell the table again to those who should have moved their flows by now."""
        late = self._workers.remind(now)
        return [Tell(self._workers.table, worker) for worker in late]

    def learn(self, now: float, version: int, table: WorkerTable | None) -> list[Output]:
        """Somebody holds a table of an earlier start of this frame."""
        return self._send(now) if self._workers.learn(version, table) else []

    def take(self, table: WorkerTable) -> list[Output]:
        """Secondary: the primary has made another table, and our splitters share out by it from now on."""
        self._workers.table = table
        return [Tell(table, EVERYBODY), self._changed()]

    def _make(self, now: float) -> list[Output]:
        self._workers.apply(self._standing.compares(), now)
        self._standing.counters["table_changes"] += 1
        return self._send(now)

    def _send(self, now: float) -> list[Output]:
        return [Tell(self._workers.table, EVERYBODY), *self._standing.beat(now), self._changed()]

    def _changed(self) -> Log:
        table = self._workers.table
        return Log("info", "table.changed", {"version": table.version, "shares": shares(table)})

    def _let_leave(self) -> list[Output]:
        """Workers that wanted to leave may, once their flows are elsewhere."""
        compares = self._standing.compares()
        return [Tell(Drain(), worker) for worker in self._workers.may_leave(compares) if worker in compares]
