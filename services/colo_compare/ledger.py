"""The accounts of one compare: what came in, what is held, what went out and why.

All flows write here, and compare reads. Counters that change with every frame are plain attributes, because a `Counter`
costs three times as much a frame; `folded` adds them when somebody asks. The accounts balance at any moment::

    frames_primary    = released + sum(dropped.*) + held              + handed_over - taken_over
    frames_secondary  = sum(secondary_dropped.*) + held_secondary - secondary_split
                        + secondary_handed_over - secondary_taken_over
"""

from collections import Counter
from typing import Any

from colo_compare.config import CompareConfig
from colo_compare.flow import Flow
from colo_compare.lag import Lag
from colo_compare.requests import Requests
from colo_compare.tcp.history import HISTORY_BYTES, History
from colo_compare.telling import Telling
from colo_compare.unit import HeldUnit, Unit, frames_in, frames_of
from colo_proto.core import Log, Output
from colo_proto.messages import Reason
from colo_proto.rules import Rules
from colo_proto.share import Share


class Ledger:
    """Accounts, bounds and the way out, shared by all flows of a compare."""

    def __init__(self, config: CompareConfig) -> None:
        self.timeout = config.compare_timeout / 1000
        self.max_queue_size = config.max_queue_size
        self.max_ahead = max(config.max_queue_size, config.max_held_mib << 8)
        """Frames of a stream that are kept though they have left: if they are empty, a quarter of `max-held-mib`."""
        self.max_stream_bytes = config.max_stream_mib << 20
        self.max_held_bytes = config.max_held_mib << 20
        self.max_secondary_bytes = config.max_secondary_mib << 20
        self.secondary_quota = config.max_queue_size
        """Frames of the secondary that a flow may keep: `max_queue_size`, or none while all flows together keep too
        many bytes."""
        self.history = History(min(HISTORY_BYTES, self.max_secondary_bytes // 4))
        # There from the start, because Prometheus sees no increase in a counter that begins with its first event.
        self.counters: Counter[str] = Counter(miscompares=0)
        self.shadow = False
        """What is released goes nowhere, because it was sent already: in shadow mode, and for flows under such a rule.
        """
        self.lag = Lag(self.timeout)
        self.share = Share(config.max_windows_mib << 20)
        """What each connection on which clients send may have under way."""
        self.sink: list[Unit] = []
        """Units released by comparing, in order. Compare empties it after every call."""
        self.outputs: list[Output] = []
        """Messages, log entries and files, likewise."""
        self.requests = Requests(config, self.counters, self.outputs)
        self.telling = Telling(config.id, self.outputs)
        self.holding: dict[Flow, None] = {}
        """Flows that may hold primary frames."""
        self.lingering: dict[Flow, None] = {}
        """Flows that may keep what expires: secondary datagrams, and in shadow mode primary frames."""
        self.suspects: dict[Flow, float] = {}
        """Datagram flows with unequal fresh datagrams on both sides, and when to judge them."""
        self.stuck: dict[Flow, float] = {}
        """Connections with a held segment that is equal in part, and when to release that part; the first due first."""
        self.unprotected: set[bytes] = set()
        self.unjudged: set[bytes] = set()
        """Keys of flows in shadow mode that are not compared any more, because the secondary could not follow."""
        self.strangers = False
        """The secondary never had the connections that were open before it came: those seen from the middle are
        unprotected."""
        self.frames_primary = 0
        self.frames_secondary = 0
        self.released = 0
        self.held = 0
        self.held_bytes = 0
        """Bytes of all primary frames that are kept, including those that were sent already (shadow mode)."""
        self.held_secondary = 0
        self.secondary_bytes = 0
        """Memory that all kept frames of the secondary take, including the history."""
        self.secondary_compared = 0
        self.bytes_compared = 0
        self.rules = Rules()

    # -- primary frames ------------------------------------------------------------------------------

    def hold(self, flow: Flow, held: HeldUnit) -> None:
        """`held` stays until its flow releases it. In shadow mode it was sent already."""
        unit = held.unit
        if self.shadow or flow.shadow:
            held.out = True
            self.lingering[flow] = None
        else:
            self.holding[flow] = None
            self.held += len(unit) if type(unit) is tuple else 1
        self.held_bytes += sum(map(len, unit)) if type(unit) is tuple else len(unit)

    def unhold(self, held: HeldUnit) -> None:
        """`held` leaves its queue."""
        unit = held.unit
        if not held.out:
            self.held -= len(unit) if type(unit) is tuple else 1
        self.held_bytes -= sum(map(len, unit)) if type(unit) is tuple else len(unit)

    def hand_over(self, held: HeldUnit) -> None:
        """`held` leaves its queue for another worker's."""
        self.unhold(held)
        if not held.out:
            self.counters["handed_over"] += frames_of(held.unit)

    def take_over(self, flow: Flow, held: HeldUnit) -> None:
        """`held` comes from another worker's queue. It stays `out` if it was, whatever the mode is here."""
        if held.out:
            self.lingering[flow] = None
        else:
            self.holding[flow] = None
            self.held += frames_of(held.unit)
            self.counters["taken_over"] += frames_of(held.unit)
        self.held_bytes += sum(map(len, frames_in(held.unit)))

    def let_out(self, flow: Flow, held: HeldUnit, cause: str, rest: Unit | None = None) -> None:
        """Send `held`, or only `rest` of it, but keep it for comparing."""
        if not held.out:
            held.out = True
            self.held -= frames_of(held.unit)
            self.lingering[flow] = None
            self.passed(held.unit if rest is None else rest, cause)

    def drop(self, held: HeldUnit, reason: str) -> None:
        """`held` leaves its queue and is not sent."""
        self.unhold(held)
        if not held.out:
            self.counters["dropped." + reason] += frames_of(held.unit)

    def passed(self, unit: Unit, cause: str) -> None:
        """Send `unit` though it was not found equal; `cause` says what allows that."""
        if self.shadow:
            return
        self.counters["released." + cause] += frames_of(unit)
        self.sink.append(unit)

    def synthesize(self, frame: bytes) -> None:
        """Send a frame that no guest sent (a window update)."""
        self.counters["synthesized"] += 1
        self.sink.append(frame)

    # -- bounds --------------------------------------------------------------------------------------

    def ahead(self, flow: Flow) -> bool:
        """Do the primary's frames leave at once? Then it may be ahead by any amount, which is no difference."""
        return self.shadow or flow.shadow

    def room(self, flow: Flow) -> bool:
        """Is there memory for more of `flow`? One that waits for a checkpoint may use half of it: the rest is for
        others, because the COLO frame may put the checkpoint off, and what the flow sends meanwhile it would only send
        again.
        """
        return self.held_bytes < (self.max_held_bytes >> 1 if flow.wanted else self.max_held_bytes)

    def refuse(self, flow: Flow, held: HeldUnit, queued: int, *, ask: bool = True) -> None:
        """There is no room for `held`: drop it, and ask for a checkpoint unless it may be missing or comes again."""
        optional = flow.optional()
        self.counters["dropped.unmatched" if optional else "dropped.queue_full"] += frames_of(held.unit)
        if ask and not optional:
            self.want(flow, Reason.QUEUE_FULL, None, {"held": queued, "held_bytes": self.held_bytes}, held.at)

    def squeeze(self) -> None:
        """All flows together keep too much of the secondary: forget the history, and then accept nothing more.

        The history is only for retransmissions of the primary (without it they are released unverified, and counted).
        What is refused was not acknowledged by any client, so the guest sends it again.
        """
        saved = self.history.clear()
        if saved:
            self.secondary_bytes -= saved
            self.counters["history_cut"] += 1
        self.relax()

    def relax(self) -> None:
        """Look again whether frames of the secondary may be kept."""
        self.secondary_quota = self.max_queue_size if self.secondary_bytes <= self.max_secondary_bytes else 0

    # -- secondary frames ----------------------------------------------------------------------------

    def secondary_gone(self, count: int, reason: str, *, stored: bool = False) -> None:
        """`count` frames of the secondary are dropped; `stored` when they had been kept."""
        if count:
            self.counters["secondary_dropped." + reason] += count
            if stored:
                self.held_secondary -= count

    def secondary_handed_over(self, count: int, size: int) -> None:
        """`count` kept frames of the secondary leave for another worker; with the history they took `size` bytes."""
        self.held_secondary -= count
        self.secondary_bytes -= size
        self.counters["secondary_handed_over"] += count

    def secondary_taken_over(self, count: int, size: int) -> None:
        """`count` kept frames of the secondary come from another worker."""
        self.held_secondary += count
        self.secondary_bytes += size
        self.counters["secondary_taken_over"] += count

    def secondary_pieces(self, pieces: int) -> None:
        """A stored frame became `pieces` pieces instead of one."""
        if pieces == 0:
            self.counters["secondary_dropped.duplicate"] += 1
        else:
            self.counters["secondary_split"] += pieces - 1

    # -- checkpoints ---------------------------------------------------------------------------------

    def want(self, flow: Flow, reason: str, offset: int | None, detail: dict[str, Any], now: float) -> None:
        """`flow` needs a checkpoint: report why, and ask for it, once until it comes."""
        if flow.wanted:
            return
        flow.wanted = now or 1e-9
        self.requests.report(flow, reason, offset, detail, now)
        if self.ahead(flow):
            # Nothing is held and no checkpoint will come: the flow was reported and is left alone now.
            self.unprotect(flow)
        else:
            # Before the request, so that the rewriter knows it when it hears of the checkpoint.
            self.telling.doubtful(flow.key)
            self.telling.flush()
            self.requests.ask(flow, reason, offset, detail)

    def unprotect(self, flow: Flow) -> None:
        """Stop comparing `flow`, until a checkpoint copies state or the flow ends."""
        flow.flush(copied=False)
        self.unprotected.add(flow.key)
        self.telling.lost(flow.key)

    def give_up(self, flow: Flow) -> None:
        """Stop comparing `flow`: the secondary did not get all that its client sent (`colo_rewriter.pace`)."""
        self.counters["flows_given_up"] += 1
        self.outputs.append(Log("warning", "flow.unjudged", {"flow": flow.describe()}))
        flow.flush(copied=False)
        self.unjudged.add(flow.key)
        self.telling.lost(flow.key)

    def protect(self, flow: Flow) -> None:
        """A new connection began on the key of a flow that had diverged."""
        self.telling.renewed(flow.key)
        self._clear(flow)

    def _clear(self, flow: Flow) -> None:
        self.requests.waiting.pop(flow, None)
        self.unprotected.discard(flow.key)
        self.unjudged.discard(flow.key)

    def forget(self, flow: Flow) -> None:
        """`flow` is no more, and holds nothing."""
        for table in (self.holding, self.lingering, self.suspects, self.stuck):
            table.pop(flow, None)
        self._clear(flow)

    def folded(self) -> Counter[str]:
        """All counters, including the plain attributes."""
        all_counters = Counter(self.counters)
        for name in ("frames_primary", "frames_secondary", "released", "bytes_compared"):
            all_counters[name] = getattr(self, name)
        all_counters["secondary_dropped.compared"] += self.secondary_compared
        causes = sum(n for name, n in self.counters.items() if name.startswith("released."))
        all_counters["released.compared"] = self.released - causes
        return all_counters
