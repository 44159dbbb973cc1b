"""Flows that move to other workers while everything runs: nothing is lost, compared twice, or not compared.

::

    the guests' frames, in each worker's stream of them:

      primary    a b c d | e f g          | is where the splitter took the new table over (a mark in the stream)
      secondary  a b | c d e f g            the secondary's splitter does so later, or sooner

    giver    handles everything before its mark on either input; when both marks are there, everything that
             will ever reach it has, and the flows go on their way, with all that is held (`luggage`)
    taker    parks what comes behind its marks for slots that are not its own yet; when the flows have come,
             it goes on where the giver stopped: first what was parked, then what arrives

So per flow the frames of the giver and of the taker are one sequence, as if there were one worker. The COLO frame
says who gives what to whom (`WorkerTable.givers`, `moved`) and begins no other change before this one is settled.
A giver that was lost gives nothing: then flows are adopted from the middle (`TcpFlow`), behind a checkpoint.
If a mark or a giver does not come within `PATIENCE`, the taker goes on without, and counts it.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

from colo_compare import luggage
from colo_compare.dispatch import Dispatch
from colo_proto.core import Log, Tell
from colo_proto.errors import WireError
from colo_proto.messages import Handover, HandoverTaken, Leaving, Settled, WorkerTable
from colo_proto.net.flow import SLOTS
from colo_proto.shard import Slots, slot_of

PATIENCE: Final = 3.0
"""Seconds without any progress after which a move is given up."""
AGAIN: Final = 0.5
"""Seconds after which a part that nobody acknowledged is sent again."""
PART: Final = 512 * 1024
"""Bytes of one `Handover`."""
NEVER: Final = -2
"""No mark was seen on an input: nobody shares it out."""


class _Outgoing:
    """Parts on their way to one taker, one at a time."""

    def __init__(self, data: bytes, now: float) -> None:
        self.parts = [data[at : at + PART] for at in range(0, len(data), PART)]
        self.at = 0
        self.began = self.sent = now


class Moving:
    """Whose flows are here, and those that come and go. Outputs are appended to the ledger's."""

    def __init__(self, compare: Dispatch, handle: Callable[[str, Sequence[bytes], float], None]) -> None:
        self.compare = compare
        self._handle = handle
        """Takes frames that were parked, as if they came just now: `(port, frames, now)`."""
        self.id = compare.config.id
        self.busy = False
        """A move is under way: frames have to be looked at one by one."""
        self.settled = 0
        """Version of the last table whose moves are over."""
        self._table: WorkerTable | None = None
        self._mine: set[int] = set()
        """Slots whose flows are here."""
        self._marks = {"primary_in": NEVER, "secondary_in": NEVER}
        self._slots = {port: Slots() for port in self._marks}
        self._since = 0.0
        self._given = 0
        """Version of the last table for which we gave."""
        self._missing: set[str] | None = None
        """Givers that are not done yet; None until the table is known."""
        self._done: set[tuple[int, str]] = set()
        """Givers that are done, with the version of the table."""
        self._incoming: dict[tuple[int, str], list[bytes]] = {}
        self._outgoing: dict[str, _Outgoing] = {}
        self._parked: list[tuple[str, bytes, int]] = []
        """Port, frame, slot; in the order they came."""
        self.parked_bytes = 0
        self._left = False

    @property
    def linked(self) -> bool:
        """Both inputs are shared out, and whoever does it knows us."""
        return min(self._marks.values()) > NEVER

    @property
    def workers(self) -> list[str]:
        """Of the table that is settled, for a frame that was restarted; empty while another is on its way."""
        table = self._table
        return table.workers if table is not None and table.version == self.settled else []

    @property
    def parked(self) -> int:
        """Frames that wait for their flows."""
        return len(self._parked)

    # -- what comes -----------------------------------------------------------------------------

    def mark(self, port: str, version: int, now: float) -> None:
        """What comes on `port` from here on was shared out by the table `version`."""
        # One that was restarted has none at first; it will get at least the table that it had.
        if version <= self._marks[port]:
            return
        self._marks[port] = version
        if version > self.settled:
            self._stir(now)
            self._step(now)

    def table(self, table: WorkerTable, now: float) -> None:
        """The COLO frame's table; the same version again when a giver was lost."""
        if self._table is not None and table.version < self._table.version:
            return
        if self._table is None or table.version > self._table.version:
            self._missing = None
        elif self._missing is not None:
            self._missing &= set(table.givers)
        self._table = table
        if self.busy:
            self._step(now)

    def sift(self, port: str, frames: Sequence[bytes]) -> Sequence[bytes]:
        """Of frames that arrive, those whose flows are here; the others are parked."""
        if self._marks[port] <= self.settled:
            return frames
        mine, of = self._mine, self._slots[port].of
        ours = []
        for frame in frames:
            # A fragment whose first was never seen here may belong to a flow that is on its way.
            slot = of(frame, unknown=-1)
            if slot in mine:
                ours.append(frame)
            else:
                self._park(port, frame, slot)
        return ours

    def _park(self, port: str, frame: bytes, slot: int) -> None:
        ledger = self.compare.ledger
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

    def handed(self, part: Handover, now: float) -> None:
        """A piece of somebody's flows."""
        if part.taker != self.id:
            return
        self._say(HandoverTaken(part.version, part.giver, part.taker, part.part))
        if part.version <= self.settled:
            self.compare.ledger.counters["handovers_late"] += part.last
            return
        key = (part.version, part.giver)
        parts = self._incoming.setdefault(key, [])
        if part.part != len(parts) or key in self._done:
            return
        parts.append(part.data)
        self._stir(now)
        if part.last:
            data = b"".join(self._incoming.pop(key))
            try:
                luggage.unpack(self.compare, data, now)
            except WireError as error:
                self.compare.ledger.counters["handovers_malformed"] += 1
                self._log("error", "handover.refused", giver=part.giver, error=str(error))
            self._done.add(key)
            if self._missing is not None and self._table is not None and self._table.version == part.version:
                self._missing.discard(part.giver)
            self._step(now)

    def taken(self, message: HandoverTaken, now: float) -> None:
        """A piece of ours has arrived."""
        out = self._outgoing.get(message.taker)
        if message.giver != self.id or out is None or message.part != out.at or message.version != self._given:
            return
        out.at += 1
        self._stir(now)
        if out.at < len(out.parts):
            self._send(message.taker, now)
        else:
            del self._outgoing[message.taker]
            self._step(now)

    # -- a move ---------------------------------------------------------------------------------

    def _stir(self, now: float) -> None:
        """It goes on."""
        self.busy = True
        self._since = now

    def _step(self, now: float) -> None:
        table = self._table
        if not self.busy or table is None or table.version <= self.settled:
            return
        owned = _slots_of(table, self.id)
        if self._missing is None:
            done = {giver for version, giver in self._done if version == table.version}
            self._missing = {_giver(table, slot) for slot in owned} - {"", self.id} - done
        cut = min(self._marks.values()) >= table.version
        if cut and self._given < table.version:
            self._give(table, owned, now)
        if not self._missing:
            self._mine |= owned
            self._unpark(now)
            if cut and not self._outgoing:
                self._settle(table, now)

    def _give(self, table: WorkerTable, owned: set[int], now: float) -> None:
        """Everything that will ever reach us by the old table has: let go of what is not ours any more."""
        self._given = table.version
        compare = self.compare
        lost = self._mine - owned
        self._mine -= lost
        takers: dict[str, set[int]] = {}
        for slot in range(len(table.moved)):
            if _giver(table, slot) == self.id:
                takers.setdefault(table.workers[table.slots[slot]], set()).add(slot)
        for taker, slots in takers.items():
            chosen = slots & lost
            data = luggage.pack(compare, lambda key, chosen=chosen: slot_of(key) in chosen, now)  # type: ignore[misc]
            self._outgoing[taker] = _Outgoing(data, now)
            self._send(taker, now)
        # What nobody is told to expect from us (we were taken for lost) is of no use to anybody.
        kept = lost.difference(*takers.values())
        if kept:
            for key, flow in list(compare.flows.items()):
                if slot_of(key) in kept:
                    compare.forget(flow, "moved")

    def _send(self, taker: str, now: float) -> None:
        out = self._outgoing[taker]
        out.sent = now
        last = out.at == len(out.parts) - 1
        self._say(Handover(self._given, self.id, taker, out.at, last, out.parts[out.at]))

    def _unpark(self, now: float) -> None:
        """Handle what was parked and whose flows are here now, in the order it came; all of it at the end."""
        parked, self._parked, self.parked_bytes = self._parked, [], 0
        ready = []
        for one in parked:
            if self.busy and one[2] not in self._mine:
                self._parked.append(one)
                self.parked_bytes += len(one[1])
            else:
                ready.append(one)
        for port, group in groupby(ready, key=_port):
            self._handle(port, [frame for _, frame, _ in group], now)

    def _settle(self, table: WorkerTable, now: float) -> None:
        self.settled = table.version
        self._mine = _slots_of(table, self.id)
        self._done = {one for one in self._done if one[0] > table.version}
        self._incoming = {one: parts for one, parts in self._incoming.items() if one[0] > table.version}
        self._missing = None
        self.busy = max(self._marks.values()) > self.settled
        self._unpark(now)
        self._say(Settled(self.id, table.version))
        self._log("info", "table.settled", version=table.version, slots=len(self._mine))

    # -- time -----------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When `on_timer` has something to do."""
        if not self.busy:
            return None
        return min([self._since + PATIENCE, *(out.sent + AGAIN for out in self._outgoing.values())])

    def on_timer(self, now: float) -> None:
        """Repeat what was not acknowledged; give up what does not get on."""
        if not self.busy:
            return
        for taker, out in list(self._outgoing.items()):
            if now >= out.sent + AGAIN:
                self._send(taker, now)
        if now >= self._since + PATIENCE:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        ledger, table = self.compare.ledger, self._table
        ledger.counters["moves_given_up"] += 1
        missing = sorted(self._missing or ())
        self._log("warning", "table.unsettled", marks=dict(self._marks), missing=missing, parked=len(self._parked))
        self._since = now
        if table is None or table.version <= self.settled:
            # The frame has not told us what the marks speak of. Better a wrong worker than none.
            self.settled = max(self._marks.values())
            self.busy = False
            self._unpark(now)
            return
        owned = _slots_of(table, self.id)
        if self._given < table.version:
            self._give(table, owned, now)
        else:
            self._outgoing.clear()
        self._mine |= owned
        self._missing = set()
        self._incoming.clear()
        if not self._outgoing:
            self._settle(table, now)
        else:
            self._unpark(now)

    # -- the end --------------------------------------------------------------------------------

    def leave(self) -> bool:
        """Ask the frame to move our flows before we stop. False when there is nobody who could take them."""
        if not self.linked:
            return False
        if not self._left:
            self._left = True
            self._say(Leaving(self.id))
        return True

    def _say(self, message: Handover | HandoverTaken | Leaving | Settled) -> None:
        self.compare.ledger.outputs.append(Tell(message))

    def _log(self, level: str, event: str, **fields: object) -> None:
        self.compare.ledger.outputs.append(Log(level, event, fields))


def _port(parked: tuple[str, bytes, int]) -> str:
    return parked[0]


def _slots_of(table: WorkerTable, worker: str) -> set[int]:
    if worker not in table.workers or len(table.slots) != SLOTS:
        return set()
    mine = table.workers.index(worker)
    return {slot for slot, index in enumerate(table.slots) if index == mine}


def _giver(table: WorkerTable, slot: int) -> str:
    """Who hands the flows of `slot` over; empty when nobody does."""
    at = table.moved[slot] if slot < len(table.moved) else 0
    return table.givers[at - 1] if 0 < at <= len(table.givers) else ""
