"""How the worker table follows the compare workers: `workers` decides, and this module carries it out.

A table that changes is sent to every process of this host and, in a heartbeat, to the other host. While flows are
handed over from one worker to another, the frame passes on what the two tell each other, and it lets a worker stop once
all of its flows are elsewhere. Only the primary makes tables; on the secondary most of this does nothing.
"""

from colo_frame.registry import EVERYBODY
from colo_frame.side import Side
from colo_frame.table import shares
from colo_proto.messages import CheckpointWanted, Drain, Handover, HandoverTaken, Leaving, Mode, Settled, WorkerTable

HandoverMessage = Leaving | Settled | Handover | HandoverTaken
"""What compares say while flows are handed over."""


class Scaling:
    """See the module."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._workers = side.workers
        self._out = side.out

    def follow(self, now: float) -> None:
        """Look at the workers that are there. A change of them may need a checkpoint; the first table needs none."""
        side, workers = self._side, self._workers
        if not side.leads:
            return
        compares = side.compares()
        known = [p.id for p in side.registry.processes.values() if p.role == "compare"]
        reason = workers.check(compares, known, side.registry.linked(), now)
        # Both hosts share frames out by the table: a planned change waits until the other host can hear of it.
        heard = side.peer.alive or not side.config.peer or side.modes.mode == Mode.BYPASS
        if workers.due(now) and (heard or not workers.table.version):
            self._make(now)
        elif reason is None:
            self._out.tell(Drain(), *(worker for worker in workers.may_leave(compares) if worker in compares))
        else:
            detail = {"workers": workers.wanted, "before": workers.table.workers}
            own = side.config.id
            request = CheckpointWanted(reason, detail=detail, source=own, epoch=side.checkpoints.epoch)
            side.requests.add(request, own, now)

    def hear(self, sender: str, message: HandoverMessage, now: float) -> None:
        """Take what a compare says to another one, or to the frame, while flows are handed over."""
        counters, compares = self._side.counters, self._side.compares()
        if isinstance(message, Handover):
            known = sender == message.source and message.target in compares
            counters["handovers" if known else "ignored_messages"] += 1
            if known:
                self._out.tell(message, message.target)
        elif isinstance(message, HandoverTaken):
            if sender == message.target and message.source in compares:
                self._out.tell(message, message.source)
        else:
            if isinstance(message, Leaving):
                self._workers.leaving.add(sender)
                self._out.log("info", "worker.leaving", id=sender)
            else:
                self._workers.settled(sender, message.version)
            self.follow(now)

    def gone(self, worker: str) -> None:
        """A compare was lost or restarted: nobody has to wait for what it would have handed over."""
        told = self._workers.gone(worker) if self._side.primary else None
        if told is not None:
            self._out.tell(told, *self._side.compares())

    def after_checkpoint(self, now: float) -> None:
        """A checkpoint is over: make a table that waited for one."""
        if self._workers.covered:
            self._make(now)

    def remind(self, now: float) -> None:
        """Send the table again to workers that should have handed their flows over by now."""
        late = self._workers.remind(now)
        self._out.tell(self._workers.table, *late)

    def lead(self, now: float) -> None:
        """Where roles change: this host has the LAN, so its own workers compare. An earlier start of this frame may
        have made a table of them already.
        """
        side, table = self._side, self._workers.table
        if table.version and self._own(table):
            return
        known = side.registry.processes
        expected = side.config.expected()
        names = [name for name in expected if name not in known or not known[name].lost]
        # If all of them are lost, the table waits for them: those of the other host are no help.
        if names := list(dict.fromkeys([*names, *side.compares()])) or list(expected):
            self._workers.begin(names)
            side.counters["table_changes"] += 1
            self._announce()

    def _own(self, table: WorkerTable) -> bool:
        """True when all workers of a table are those of this host."""
        own = {*self._side.config.expected(), *self._side.registry.of("compare")}
        return own.issuperset(table.workers)

    def learn(self, now: float, version: int, table: WorkerTable | None) -> None:
        """Somebody has a table that an earlier start of this frame made, or the other host when it led."""
        if self._side.config.changing and table is not None and not self._own(table):
            workers = self._workers
            workers.seen = max(workers.seen, version)
            if not self._side.leads:
                return
            # Two different tables may not have the same version, because a splitter keeps the one that it has.
            version, table = version + (version == workers.table.version), None
        if self._workers.learn(version, table):
            self._announce()
            self._side.beat(now)

    def take(self, table: WorkerTable) -> None:
        """Secondary: the primary has made another table, and our splitters use it from now on."""
        self._workers.table = table
        self._announce()

    def _make(self, now: float) -> None:
        self._workers.apply(self._side.compares(), now)
        self._side.counters["table_changes"] += 1
        self._announce()
        self._side.beat(now)

    def _announce(self) -> None:
        """Send the table to all processes of this host. A heartbeat tells the other host."""
        table = self._workers.table
        self._out.tell(table, EVERYBODY)
        self._out.log("info", "table.changed", version=table.version, shares=shares(table))
