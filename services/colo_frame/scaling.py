"""How the worker table follows the compare workers: `workers` decides, and this module carries it out.

A table that changes is sent to every process of this host and, in a heartbeat, to the other host. While flows are
handed over from one worker to another, the frame passes on what the two tell each other, and it lets a worker stop once
all of its flows are elsewhere. Only the primary makes tables; on the secondary most of this does nothing.
"""

from colo_frame.registry import EVERYBODY
from colo_frame.side import Side
from colo_frame.table import shares
from colo_proto.core import Log, Output, Tell
from colo_proto.messages import CheckpointWanted, Drain, Handover, HandoverTaken, Leaving, Mode, Settled, WorkerTable

HandoverMessage = Leaving | Settled | Handover | HandoverTaken
"""What compares say while flows are handed over."""


class Scaling:
    """See the module."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._workers = side.workers

    def follow(self, now: float) -> list[Output]:
        """Look at the workers that are there. A change of them may need a checkpoint; the first table needs none."""
        side, workers = self._side, self._workers
        if not side.primary:
            return []
        compares = side.compares()
        known = [p.id for p in side.registry.processes.values() if p.role == "compare"]
        reason = workers.check(compares, known, side.registry.linked(), now)
        # Both hosts share frames out by the table: a planned change waits until the other host can hear of it.
        heard = side.peer.alive or not side.config.peer or side.modes.mode == Mode.BYPASS
        if workers.due(now) and (heard or not workers.table.version):
            return self._make(now)
        if reason is None:
            return [Tell(Drain(), worker) for worker in workers.may_leave(compares) if worker in compares]
        detail = {"workers": workers.wanted, "before": workers.table.workers}
        own = side.config.id
        request = CheckpointWanted(reason, detail=detail, source=own, epoch=side.checkpoints.epoch)
        return side.requests.add(request, own, now)

    def hear(self, sender: str, message: HandoverMessage, now: float) -> list[Output]:
        """Take what a compare says to another one, or to the frame, while flows are handed over."""
        counters, compares = self._side.counters, self._side.compares()
        if isinstance(message, Handover):
            known = sender == message.giver and message.taker in compares
            counters["handovers" if known else "ignored_messages"] += 1
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
        """A compare was lost or restarted: nobody has to wait for what it would have handed over."""
        told = self._workers.gone(worker) if self._side.primary else None
        return [Tell(told, compare) for compare in self._side.compares()] if told is not None else []

    def after_checkpoint(self, now: float) -> list[Output]:
        """A checkpoint is over: make a table that waited for one."""
        return self._make(now) if self._workers.covered else []

    def remind(self, now: float) -> list[Output]:
        """Send the table again to workers that should have handed their flows over by now."""
        late = self._workers.remind(now)
        return [Tell(self._workers.table, worker) for worker in late]

    def learn(self, now: float, version: int, table: WorkerTable | None) -> list[Output]:
        """Somebody has a table that an earlier start of this frame made."""
        return self._send(now) if self._workers.learn(version, table) else []

    def take(self, table: WorkerTable) -> list[Output]:
        """Secondary: the primary has made another table, and our splitters use it from now on."""
        self._workers.table = table
        return [Tell(table, EVERYBODY), self._changed()]

    def _make(self, now: float) -> list[Output]:
        self._workers.apply(self._side.compares(), now)
        self._side.counters["table_changes"] += 1
        return self._send(now)

    def _send(self, now: float) -> list[Output]:
        return [Tell(self._workers.table, EVERYBODY), *self._side.beat(now), self._changed()]

    def _changed(self) -> Log:
        table = self._workers.table
        return Log("info", "table.changed", {"version": table.version, "shares": shares(table)})
