"""Which compare workers there are, when a change of them becomes a new table, and when that is settled.

::

                 a worker was lost: a checkpoint first
    table v  ---------------------------------------------> table v + 1 --> flows on their way --> settled
                 one joined, one wants to leave: at once         (givers hand over to takers)

The first table is made at once when an option names the workers, and otherwise when no worker has joined for a moment.
In every later change flows move with their state (`colo_compare.handover`), so a change has to wait only for the
one before it. The state of a worker that was lost is lost with it: its slots move behind a checkpoint, and their flows
are adopted in the middle. A frame that was restarted continues with the table that is in use.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from colo_frame.table import make_table
from colo_proto.messages import Reason, WorkerTable

SETTLE = 0.5
"""Seconds that the first table waits after the first worker's hello."""
ASK_AGAIN = 2.0
"""Seconds after which a change asks for its checkpoint again."""
PATIENCE = 8.0
"""Seconds after which a change counts as settled, even if some worker has not said so."""
SAY_AGAIN = 1.0
"""Seconds after which workers that have not settled are told the table again."""


class Workers:
    """The worker table: the primary's own, or what the secondary has heard of it. `patience` is how long (seconds) a
    known worker may take to say hello.
    """

    def __init__(self, expected: Sequence[str], patience: float, now: float) -> None:
        self.table = make_table(1, expected) if expected else WorkerTable(0, [], [])
        self.leaving: set[str] = set()
        """Workers that want to stop."""
        self.unsettled: set[str] = set()
        """Workers that have not finished giving or taking flows in the last change."""
        self._patient_until = now + patience
        self._settled_at: float | None = None
        self._wanted: list[str] = []
        self._planned = False
        """No worker is lost in the change that is wanted, so it needs no checkpoint."""
        self._asked = 0.0
        self._moving_since = 0.0

    def check(self, live: Sequence[str], known: Sequence[str], linked: Collection[str], now: float) -> str | None:
        """Compare the workers that are there with the table.

        `live` are the compares that are not lost, `known` those that have ever said hello, and `linked` those that the
        processes which share frames out can reach. Returns the reason for which a checkpoint is wanted, or None.
        Afterwards `due` says whether a table may be made at once.
        """
        table = self.table
        # Once there is a table, a new worker must be reachable before anything is sent to it.
        candidates = {*table.workers, *(w for w in live if not table.version or w in linked)}
        patient = now < self._patient_until
        there = sorted(w for w in candidates - self.leaving if w in live or (patient and w not in known))
        if not there or there == table.workers:
            self._wanted = []
            return None
        if not table.version and self._settled_at is None:
            self._settled_at = now + SETTLE
        self._planned = not set(table.workers) - set(there) - (self.leaving & set(live))
        if there == self._wanted and now < self._asked + ASK_AGAIN:
            return None
        self._wanted, self._asked = there, now
        return None if not table.version or self._planned else Reason.WORKER_LOST

    @property
    def wanted(self) -> list[str]:
        """The workers of the next table; empty when the present one is right."""
        return self._wanted

    def due(self, now: float) -> bool:
        """True when the table that is wanted may be made now, without a checkpoint."""
        if not self._wanted:
            return False
        if not self.table.version:
            return self._settled_at is not None and now >= self._settled_at
        return self._planned and not self.unsettled

    @property
    def covered(self) -> bool:
        """True when the table that is wanted may be made now that a checkpoint is over, because no flows are moving."""
        return bool(self._wanted and self.table.version and not self.unsettled)

    def apply(self, live: Collection[str], now: float) -> None:
        """Make the table that is wanted. Of the workers that had slots, those in `live` hand their flows over."""
        before = self.table
        table = make_table(before.version + 1, self._wanted)
        givers: dict[str, int] = {}
        moved = []
        takers = set()
        for slot, index in enumerate(table.slots):
            had = before.workers[before.slots[slot]] if before.version else ""
            if had and had != table.workers[index] and had in live:
                moved.append(givers.setdefault(had, len(givers) + 1))
                takers.add(table.workers[index])
            else:
                moved.append(0)
        if givers:
            table = replace(table, givers=list(givers), moved=moved)
        self.table = table
        self.unsettled = {*givers, *takers}
        self._moving_since = now
        self._wanted = []

    def settled(self, worker: str, version: int) -> None:
        """A worker has given and taken all flows that the table of `version` moves."""
        if version >= self.table.version:
            self.unsettled.discard(worker)
            self._rest()

    def gone(self, worker: str) -> WorkerTable | None:
        """A worker was lost or restarted, and what it had to hand over is gone. Returns the table to tell the others,
        if any.
        """
        self.leaving.discard(worker)
        self.unsettled.discard(worker)
        table = self.table
        if worker not in table.givers:
            self._rest()
            return None
        at = table.givers.index(worker) + 1
        moved = [0 if giver == at else giver - (giver > at) for giver in table.moved]
        self.table = replace(table, givers=[g for g in table.givers if g != worker], moved=moved)
        told = self.table
        self._rest()
        return told

    def _rest(self) -> None:
        if not self.unsettled and self.table.givers:
            # Whoever hears of this table later has nothing to wait for.
            self.table = replace(self.table, givers=[], moved=[])

    def remind(self, now: float) -> list[str]:
        """The workers to be told the table again. After `PATIENCE` seconds nobody is waited for any more."""
        if not self.unsettled or now < self._moving_since + SAY_AGAIN:
            return []
        if now >= self._moving_since + PATIENCE:
            self.unsettled.clear()
            self._rest()
        return sorted(self.unsettled)

    def may_leave(self, live: Collection[str]) -> list[str]:
        """Workers that want to leave and may: their flows are elsewhere now, or there is nobody to take them over."""
        table = self.table
        # A worker that is here but cannot be reached yet will be reachable in a moment.
        others = set(live) - self.leaving
        return [worker for worker in sorted(self.leaving - self.unsettled) if worker not in table.workers or not others]

    def learn(self, version: int, table: WorkerTable | None = None) -> bool:
        """A table of `version` is in use, so continue from it. True when our table must be sent again."""
        if table is not None and table.version > self.table.version:
            self.table = replace(table, givers=[], moved=[])
            return True
        if not self.table.version:
            return False
        if version > self.table.version:
            self.table = replace(self.table, version=version + 1)
            return True
        return False

    def deadline(self) -> float | None:
        """When `check`, `due` or `remind` may have another result although nothing was heard."""
        due = []
        if self._wanted and not (self._planned and self.unsettled):
            due.append(self._asked + ASK_AGAIN if self.table.version else self._settled_at or self._asked)
        if self.unsettled:
            due.append(self._moving_since + PATIENCE)
        return min(due, default=None)
