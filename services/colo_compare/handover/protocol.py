"""Flows that are handed over to other workers while everything keeps running: no frame is lost, compared twice, or not
compared.

::

    the guests' frames, in each worker's stream of them:

      primary    a b c d | e f g          | a barrier: from here on the splitter uses the new worker table
      secondary  a b | c d e f g            the secondary's splitter does so later, or earlier

    source   handles everything before its barrier on either input. When both barriers have come, so has everything that
             will ever reach it, and it sends the flows away, with all that they hold (`handover.state`).
    target   parks frames that come behind its barriers and belong to slots whose flows are not here yet. When the flows
             have come, it continues where the source stopped: first with what was parked, then with what arrives.

So for each flow the frames of the source and those of the target are one sequence, as if there were one worker. The
COLO frame says which slots each worker hands over to which other (`WorkerTable.sources`, `moved`), and begins no other
change before this one is finished everywhere. A source that was lost hands over nothing: then its connections are
adopted from the middle (`tcp.opening.adopt`), behind a checkpoint. If a barrier or a source does not come within
`HANDOVER_TIMEOUT`, the target continues without it, and counts that.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

from colo_compare.handover.state import pack, unpack
from colo_compare.table import Table
from colo_proto.core import Log, Tell
from colo_proto.errors import WireError
from colo_proto.messages import Handover, HandoverTaken, Leaving, Message, Settled, WorkerTable
from colo_proto.net.flow import SLOTS
from colo_proto.shard import Slots, slot_of

HANDOVER_TIMEOUT: Final = 3.0
"""Seconds without any progress after which a handover is given up."""
RESEND_AFTER: Final = 0.5
"""Seconds after which a part that was not acknowledged is sent again."""
PART_BYTES: Final = 512 * 1024
"""Bytes of flow state in one `Handover` message."""
NO_BARRIER: Final = -2
"""No barrier has come on an input yet: nobody shares it out."""


class _Outgoing:
    """Flow state on its way to one target, one part at a time."""

    def __init__(self, data: bytes, now: float) -> None:
        self.parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
        self.at = 0
        self.sent_at = now


class Handovers:
    """Which slots have their flows here, and the handovers under way. Outputs are appended to the ledger's."""

    def __init__(self, id_: str, table: Table, handle: Callable[[str, Sequence[bytes], float], None]) -> None:
        self._flows = table
        self._ledger = table.ledger
        self._handle = handle
        """Takes frames that were parked, as if they arrived just now: `(port, frames, now)`."""
        self.id = id_
        self.busy = False
        """A handover is under way, so each arriving frame has to be looked at (`sift`)."""
        self.finished = 0
        """Version of the last worker table whose handovers are over."""
        self._workers: WorkerTable | None = None
        self._mine: set[int] = set()
        """Slots whose flows are here."""
        self._barriers = {"primary_in": NO_BARRIER, "secondary_in": NO_BARRIER}
        """Version of the worker table by which each input is shared out now."""
        self._slots = {port: Slots() for port in self._barriers}
        self._progress_at = 0.0
        self._handed_over = 0
        """Version of the last table for which we have sent our flows away."""
        self._missing: set[str] | None = None
        """Sources whose flows have not all come yet; None until the worker table is known."""
        self._done: set[tuple[int, str]] = set()
        """Versions of tables, and sources whose flows for them have come."""
        self._incoming: dict[tuple[int, str], list[bytes]] = {}
        self._outgoing: dict[str, _Outgoing] = {}
        self._parked: list[tuple[str, bytes, int]] = []
        """Port, frame and slot, in the order of arrival."""
        self.parked_bytes = 0
        self._leaving = False

    @property
    def linked(self) -> bool:
        """Are both inputs shared out, by splitters that know this worker?"""
        return min(self._barriers.values()) > NO_BARRIER

    @property
    def workers(self) -> list[str]:
        """Of the finished table, for a COLO frame that was restarted; empty while a newer table is not finished."""
        table = self._workers
        return table.workers if table is not None and table.version == self.finished else []

    @property
    def parked(self) -> int:
        """How many frames wait for their flows."""
        return len(self._parked)

    # -- what arrives -----------------------------------------------------------------------------

    def barrier(self, port: str, version: int, now: float) -> None:
        """What comes on `port` from here on was shared out by the worker table `version`."""
        # A splitter that was restarted has no table at first. It will get at least the one that it had.
        if version <= self._barriers[port]:
            return
        self._barriers[port] = version
        if version > self.finished:
            self._progress(now)
            self._step(now)

    def table_changed(self, table: WorkerTable, now: float) -> None:
        """The COLO frame's worker table. It comes again with the same version when a source was lost."""
        if self._workers is not None and table.version < self._workers.version:
            return
        if self._workers is None or table.version > self._workers.version:
            self._missing = None
        elif self._missing is not None:
            self._missing &= set(table.sources)
        self._workers = table
        if self.busy:
            self._step(now)

    def sift(self, port: str, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Of frames that arrive, those whose flows are here. The others are parked."""
        if self._barriers[port] <= self.finished:
            return frames
        mine, of = self._mine, self._slots[port].of
        ours = []
        for frame in frames:
            # A fragment whose first one was never seen here may belong to a flow that is being handed over.
            slot = of(frame, unknown=-1)
            if slot in mine:
                ours.append(frame)
            else:
                self._park(port, frame, slot)
        return ours

    def _park(self, port: str, frame: bytes, slot: int) -> None:
        ledger = self._ledger
        if self.parked_bytes + len(frame) > ledger.max_held_bytes:
            if port == "primary_in":
                ledger.frames_primary += 1
                ledger.counters["dropped.parked"] += 1
            else:
                ledger.frames_secondary += 1
                ledger.secondary_gone(1, "parked")
            return
        self._parked.append((port, frame, slot))
        self.parked_bytes += len(frame)

    def part_arrived(self, part: Handover, now: float) -> None:
        """A part of the flow state of a source."""
        if part.target != self.id:
            return
        self._say(HandoverTaken(part.version, part.source, part.target, part.part))
        if part.version <= self.finished:
            self._ledger.counters["handovers_late"] += part.last
            return
        key = (part.version, part.source)
        parts = self._incoming.setdefault(key, [])
        if part.part != len(parts) or key in self._done:
            return
        parts.append(part.data)
        self._progress(now)
        if part.last:
            try:
                unpack(self._flows, b"".join(self._incoming.pop(key)), now)
            except WireError as error:
                self._ledger.counters["handovers_malformed"] += 1
                self._log("error", "handover.refused", source=part.source, error=str(error))
            self._done.add(key)
            if self._missing is not None and self._workers is not None and self._workers.version == part.version:
                self._missing.discard(part.source)
            self._step(now)

    def part_taken(self, message: HandoverTaken, now: float) -> None:
        """A target acknowledges a part of ours: send the next one."""
        out = self._outgoing.get(message.target)
        if message.source != self.id or out is None or message.part != out.at or message.version != self._handed_over:
            return
        out.at += 1
        self._progress(now)
        if out.at < len(out.parts):
            self._send(message.target, now)
        else:
            del self._outgoing[message.target]
            self._step(now)

    # -- a handover -------------------------------------------------------------------------------

    def _progress(self, now: float) -> None:
        """Record progress, and restart the timer of giving up."""
        self.busy = True
        self._progress_at = now

    def _step(self, now: float) -> None:
        """Do what can be done by now: send flows away, take slots over, or finish."""
        table = self._workers
        if not self.busy or table is None or table.version <= self.finished:
            return
        owned = _slots_of(table, self.id)
        if self._missing is None:
            done = {source for version, source in self._done if version == table.version}
            self._missing = {_source(table, slot) for slot in owned} - {"", self.id} - done
        # An input that nobody distributes never has a barrier: the primary's tap in the lean wiring. Where no flows are
        # handed over, there is nothing that such an input could still bring for another worker.
        awaited = [at for at in self._barriers.values() if at > NO_BARRIER or table.sources]
        complete = all(at >= table.version for at in awaited)
        if complete and self._handed_over < table.version:
            self._hand_over(table, owned, now)
        if not self._missing:
            self._mine |= owned
            self._unpark(now)
            if complete and not self._outgoing:
                self._finish(table, now)

    def _hand_over(self, table: WorkerTable, owned: set[int], now: float) -> None:
        """All frames that will reach us by the old table have come: send away the flows that are not ours now."""
        self._handed_over = table.version
        lost = self._mine - owned
        self._mine -= lost
        targets: dict[str, set[int]] = {}
        for slot in range(len(table.moved)):
            if _source(table, slot) == self.id:
                targets.setdefault(table.workers[table.slots[slot]], set()).add(slot)
        for target, slots in targets.items():
            chosen = slots & lost
            data = pack(self._flows, lambda key, chosen=chosen: slot_of(key) in chosen, now)  # type: ignore[misc]
            self._outgoing[target] = _Outgoing(data, now)
            self._send(target, now)
        # Nobody is told to expect these flows from us, because we were believed to be lost: they are useless.
        forgotten = lost.difference(*targets.values())
        if forgotten:
            for key, flow in list(self._flows.flows.items()):
                if slot_of(key) in forgotten:
                    self._flows.forget(flow, "moved")

    def _send(self, target: str, now: float) -> None:
        out = self._outgoing[target]
        out.sent_at = now
        last = out.at == len(out.parts) - 1
        self._say(Handover(self._handed_over, self.id, target, out.at, last, out.parts[out.at]))

    def _unpark(self, now: float) -> None:
        """Handle the parked frames whose flows are here now, in the order of arrival; at the end, all of them."""
        parked, self._parked, self.parked_bytes = self._parked, [], 0
        ready = []
        for one in parked:
            if self.busy and one[2] not in self._mine:
                self._parked.append(one)
                self.parked_bytes += len(one[1])
            else:
                ready.append(one)
        for port, group in groupby(ready, key=itemgetter(0)):
            self._handle(port, [frame for _, frame, _ in group], now)

    def _finish(self, table: WorkerTable, now: float) -> None:
        self.finished = table.version
        self._mine = _slots_of(table, self.id)
        self._done = {one for one in self._done if one[0] > table.version}
        self._incoming = {one: parts for one, parts in self._incoming.items() if one[0] > table.version}
        self._missing = None
        self.busy = max(self._barriers.values()) > self.finished
        self._unpark(now)
        self._say(Settled(self.id, table.version))
        self._log("info", "table.settled", version=table.version, slots=len(self._mine))

    # -- time -------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `on_timer` has something to do."""
        if not self.busy:
            return None
        return min(
            [self._progress_at + HANDOVER_TIMEOUT, *(out.sent_at + RESEND_AFTER for out in self._outgoing.values())]
        )

    def on_timer(self, now: float) -> None:
        """Send again what was not acknowledged, and give up what makes no progress."""
        if not self.busy:
            return
        for target, out in list(self._outgoing.items()):
            if now >= out.sent_at + RESEND_AFTER:
                self._send(target, now)
        if now >= self._progress_at + HANDOVER_TIMEOUT:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        self._ledger.counters["handovers_given_up"] += 1
        missing, table = sorted(self._missing or ()), self._workers
        self._log(
            "warning", "table.unsettled", barriers=dict(self._barriers), missing=missing, parked=len(self._parked)
        )
        self._progress_at = now
        if table is None or table.version <= self.finished:
            # The COLO frame has not sent the table that the barriers are about. A wrong worker is better than none.
            self.finished = max(self._barriers.values())
            self.busy = False
            self._unpark(now)
            return
        owned = _slots_of(table, self.id)
        if self._handed_over < table.version:
            self._hand_over(table, owned, now)
        else:
            self._outgoing.clear()
        self._mine |= owned
        self._missing = set()
        self._incoming.clear()
        if not self._outgoing:
            self._finish(table, now)
        else:
            self._unpark(now)

    # -- the end ----------------------------------------------------------------------------------

    def leave(self) -> None:
        """Ask the COLO frame to have our flows handed over before we stop. When no input is shared out, there is nobody
        who could take them over.
        """
        if self.linked and not self._leaving:
            self._leaving = True
            self._say(Leaving(self.id))

    def _say(self, message: Message) -> None:
        self._ledger.outputs.append(Tell(message))

    def _log(self, level: str, event: str, **fields: object) -> None:
        self._ledger.outputs.append(Log(level, event, fields))


def _slots_of(table: WorkerTable, worker: str) -> set[int]:
    if worker not in table.workers or len(table.slots) != SLOTS:
        return set()
    mine = table.workers.index(worker)
    return {slot for slot, index in enumerate(table.slots) if index == mine}


def _source(table: WorkerTable, slot: int) -> str:
    """Who hands the flows of `slot` over; empty when nobody does."""
    at = table.moved[slot] if slot < len(table.moved) else 0
    return table.sources[at - 1] if 0 < at <= len(table.sources) else ""
