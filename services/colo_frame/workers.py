"""Which compare workers there are, when a change of them becomes a new table, and when that change is settled.

::

                 a worker was lost: a checkpoint first
    table v  ---------------------------------------------> table v + 1 --> flows are handed over --> settled
                 one joined, one wants to leave: at once         (by sources to targets)

The first table is made at once when an option names the workers, and otherwise when no worker has joined for a moment.
In every later change flows are handed over together with their state (`colo_compare.handover`), so a change has to wait
only for the one before it. The state of a worker that was lost is lost with it: its slots get another worker after a
checkpoint, and their flows are adopted in the middle. A frame that was restarted continues with the table in use.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from colo_frame.table import make_table
from colo_proto.messages import Reason, WorkerTable

FIRST_TABLE_DELAY = 0.5
"""Seconds that the first table waits after the first worker's hello."""
REQUEST_AGAIN = 2.0
"""Seconds after which a change requests its checkpoint again."""
HANDOVER_TIMEOUT = 8.0
"""Seconds after which a change counts as settled, even if some worker has not said so."""
REMIND_AFTER = 1.0
"""Seconds after which workers that have not settled are sent the table again."""


class Workers:
    """The worker table: the primary's own, or what the secondary has heard of it. `hello_time` is how long (seconds) a
    known worker may take to say hello after this frame's start.
    """

    def __init__(self, expected: Sequence[str], hello_time: float, now: float) -> None:
        self.table = make_table(1, expected) if expected else WorkerTable(0, [], [])
        self.leaving: set[str] = set()
        """Workers that want to stop."""
        self.unsettled: set[str] = set()
        """Workers that have not finished giving or taking flows in the last change."""
        self.seen = 0
        """The highest version of a table of the other host, where roles change."""
        self.wanted: list[str] = []
        """The workers of the next table; empty when the present one is right."""
        self._hellos_until = now + hello_time
        self._first_due: float | None = None
        self._planned = False
        """No worker is lost in the change that is wanted, so it needs no checkpoint."""
        self._requested = 0.0
        self._changed_at = 0.0

    def check(self, live: Sequence[str], known: Sequence[str], linked: Collection[str], now: float) -> str | None:
        """Compare the workers that are there with the table.

        `live` are the compares that are not lost, `known` those that have ever said hello, and `linked` those that the
        processes which share frames out can reach. Returns the reason for which a checkpoint is wanted, or None.
        Afterwards `due` says whether a table may be made at once.
        """
        table = self.table
        # Once there is a table, a new worker must be reachable before anything is sent to it.
        candidates = {*table.workers, *(w for w in live if not table.version or w in linked)}
        hellos = now < self._hellos_until
        there = sorted(w for w in candidates - self.leaving if w in live or (hellos and w not in known))
        if not there or there == table.workers:
            self.wanted = []
            return None
        if not table.version and self._first_due is None:
            self._first_due = now + FIRST_TABLE_DELAY
        self._planned = not set(table.workers) - set(there) - (self.leaving & set(live))
        if there == self.wanted and now < self._requested + REQUEST_AGAIN:
            return None
        self.wanted, self._requested = there, now
        return None if not table.version or self._planned else Reason.WORKER_LOST

    def due(self, now: float) -> bool:
        """True when the table that is wanted may be made now, without a checkpoint."""
        if not self.wanted:
            return False
        if not self.table.version:
            return self._first_due is not None and now >= self._first_due
        return self._planned and not self.unsettled

    @property
    def covered(self) -> bool:
        """True when the table that is wanted may be made now that a checkpoint is over: no flows are handed over."""
        return bool(self.wanted and self.table.version and not self.unsettled)

    def apply(self, live: Collection[str], now: float) -> None:
        """Make the table that is wanted. Of the workers that had slots, those in `live` hand their flows over."""
        before = self.table
        table = make_table(before.version + 1, self.wanted)
        sources: dict[str, int] = {}
        targets = set()
        moved = []
        for slot, index in enumerate(table.slots):
            had = before.workers[before.slots[slot]] if before.version else ""
            if had and had != table.workers[index] and had in live:
                moved.append(sources.setdefault(had, len(sources) + 1))
                targets.add(table.workers[index])
            else:
                moved.append(0)
        self.table = replace(table, sources=list(sources), moved=moved) if sources else table
        self.unsettled = {*sources, *targets}
        self._changed_at = now
        self.wanted = []

    def begin(self, names: Sequence[str]) -> None:
        """Begin to lead with these workers of this host. The version is above all that were seen."""
        self.table = make_table(max(self.table.version, self.seen) + 1, names)
        self.wanted = []
        self.leaving.clear()
        self.unsettled.clear()

    def settled(self, worker: str, version: int) -> None:
        """A worker has given and taken all flows that the table of `version` moves."""
        if version >= self.table.version:
            self.unsettled.discard(worker)
            self._finish_change()

    def gone(self, worker: str) -> WorkerTable | None:
        """A worker was lost or restarted, and what it had to hand over is gone. Returns the table to tell the others,
        if any.
        """
        self.leaving.discard(worker)
        self.unsettled.discard(worker)
        table, told = self.table, None
        if worker in table.sources:
            at = table.sources.index(worker) + 1
            moved = [0 if source == at else source - (source > at) for source in table.moved]
            told = self.table = replace(table, sources=[one for one in table.sources if one != worker], moved=moved)
        self._finish_change()
        return told

    def _finish_change(self) -> None:
        if not self.unsettled and self.table.sources:
            # Workers that hear of this table later have nothing to wait for.
            self.table = replace(self.table, sources=[], moved=[])

    def remind(self, now: float) -> list[str]:
        """The workers to be sent the table again. After `HANDOVER_TIMEOUT` nobody is waited for any more."""
        if not self.unsettled or now < self._changed_at + REMIND_AFTER:
            return []
        if now >= self._changed_at + HANDOVER_TIMEOUT:
            self.unsettled.clear()
            self._finish_change()
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
            self.table = replace(table, sources=[], moved=[])
            return True
        newer = 0 < self.table.version < version
        if newer:
            self.table = replace(self.table, version=version + 1)
        return newer

    def deadline(self) -> float | None:
        """When `check`, `due` or `remind` may have another result although nothing was heard."""
        due = []
        if self.wanted and not (self._planned and self.unsettled):
            due.append(self._requested + REQUEST_AGAIN if self.table.version else self._first_due or self._requested)
        if self.unsettled:
            due.append(self._changed_at + HANDOVER_TIMEOUT)
        return min(due, default=None)
