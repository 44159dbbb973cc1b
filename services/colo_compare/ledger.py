"""The books of one compare: what came in, what is held, what went out and why.

Flows write here; the compare reads. Hot counters are plain attributes (a `Counter` costs three times as
much a frame) and are folded into `counters` when somebody looks. The books balance at any moment::

    frames_primary    = released + sum(dropped.*) + held              + handed_over - taken_over
    frames_secondary  = sum(secondary_dropped.*) + held_secondary - secondary_split
                        + secondary_handed_over - secondary_taken_over
"""

from collections import Counter
from typing import Any, Final

from colo_compare.config import CompareConfig
from colo_compare.flow import Flow, HeldUnit, Unit, frames_of
from colo_compare.history import HISTORY_BYTES, History
from colo_proto.core import Log, Output, Save, Tell
from colo_proto.messages import CheckpointWanted, Reason
from colo_proto.pcapng import Capture
from colo_proto.rules import DEFAULT, Rules

ASK_AGAIN: Final = 3.0
"""Seconds after which a flow repeats a request that no checkpoint answered (the frame may have been
restarted); QEMU repeats on every scan and every packet."""

ASK_MOST: Final = 16
"""Requests repeated at one scan. A checkpoint may be put off for longer than `ASK_AGAIN`, for many flows."""

EVIDENCE_BYTES: Final = 1 << 19
"""Frames of each side in one evidence file."""

EVIDENCE_EVERY: Final = 1.0
"""Seconds between two evidence files: when everything differs at once, the first differences tell most."""

LAST: Final = 16
"""Differences kept for `colo status`."""


def _asked_at(flow: Flow) -> float:
    return flow.wanted


class Ledger:
    """Accounts, limits and the way out, shared by all flows of a compare."""

    def __init__(self, config: CompareConfig) -> None:
        self.source = config.id
        self.timeout = config.compare_timeout / 1000
        self.max_queue_size = config.max_queue_size
        self.max_ahead = max(config.max_queue_size, config.max_held_mib << 8)
        """Frames of a flow that are kept though they have gone: a quarter of `max-held-mib` if they are empty."""
        self.max_stream_bytes = config.max_stream_mib << 20
        self.max_held_bytes = config.max_held_mib << 20
        self.max_secondary_bytes = config.max_secondary_mib << 20
        self.room = config.max_queue_size
        """Secondary frames that a flow may keep: `max_queue_size`, or none while all flows together keep too much."""
        self.history = History(min(HISTORY_BYTES, self.max_secondary_bytes // 4))
        # There from the start: Prometheus sees no increase in a counter that begins with its first event.
        self.counters: Counter[str] = Counter(miscompares=0)
        self.epoch = 0
        self.shadow = False
        self.reached = 0.0
        """When the primary sent the newest of what had left unverified and was found equal since (shadow mode)."""
        self.sink: list[Unit] = []
        """Units released by comparing, in order; the compare empties it after every call."""
        self.outputs: list[Output] = []
        self.holding: dict[Flow, None] = {}
        """Flows that may hold primary frames."""
        self.lingering: dict[Flow, None] = {}
        """Flows that may keep what expires: secondary datagrams, and in shadow mode primary frames."""
        self.suspects: dict[Flow, float] = {}
        """Datagram flows with unequal fresh datagrams on both sides, and when to judge them."""
        self.stuck: dict[Flow, float] = {}
        """Connections of which a held segment is equal in part, and when to let that part go; the first due first."""
        self.asked: dict[Flow, None] = {}
        """Flows that wait for a checkpoint."""
        self.unprotected: set[bytes] = set()
        self.unjudged: set[bytes] = set()
        """Flows of shadow mode of which nothing can be said any more, for the secondary could not follow."""
        self.strangers = False
        """The secondary does not know connections that were open before it came: those seen from the middle are
        unprotected, for it never had them."""
        self.frames_primary = 0
        self.frames_secondary = 0
        self.released = 0
        self.held = 0
        self.held_bytes = 0
        """Of all primary frames that are kept, those that have gone already (shadow mode) included."""
        self.held_secondary = 0
        self.secondary_bytes = 0
        """What all secondary frames cost that are kept, history included."""
        self.secondary_compared = 0
        self.bytes_compared = 0
        self.last: list[dict[str, Any]] = []
        self.rules = Rules()
        self.evidence_dir = config.evidence_dir
        self.evidence_files = config.evidence_files
        self._evidence_at = 0.0
        """When the next evidence file may be written."""

    # -- primary frames ------------------------------------------------------------------------------

    def hold(self, flow: Flow, held: HeldUnit) -> None:
        """`held` stays until its flow lets it go (in shadow mode it has gone already)."""
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

    def verified(self, held: HeldUnit) -> None:
        """The secondary has sent the same as `held`, so it has come as far as the primary had when that was sent."""
        if held.out and held.at > self.reached:
            self.reached = held.at

    def let_out(self, flow: Flow, held: HeldUnit, cause: str, rest: Unit | None = None) -> None:
        """Send `held`, or the rest of it, but keep it for comparing."""
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
        """Send `unit` without having found it equal; `cause` says what allows that."""
        if self.shadow:
            return
        self.counters["released." + cause] += frames_of(unit)
        self.sink.append(unit)

    def synthesize(self, frame: bytes) -> None:
        """Send a frame that no guest sent (a window update)."""
        self.counters["synthesized"] += 1
        self.sink.append(frame)

    def full(self, flow: Flow, held: HeldUnit, queued: int) -> bool:
        """Apply the bounds before `held` is queued; True when it was refused."""
        # In shadow mode a guest may run ahead of the other as far as there is memory: its client waits for neither.
        room = queued < (self.max_ahead if self.ahead(flow) else self.max_queue_size)
        if room and self.held_bytes < self.max_held_bytes and not self.crowded(flow):
            return False
        self.refuse(flow, held, queued)
        return True

    def crowded(self, flow: Flow) -> bool:
        """Does `flow` wait for a checkpoint while half of the memory for held frames is used? The rest is for others:
        the frame may put the checkpoint off, and what the flow sends meanwhile it would only send again.
        """
        return bool(flow.wanted) and self.held_bytes >= self.max_held_bytes >> 1

    def ahead(self, flow: Flow) -> bool:
        """Does what the primary sends leave at once? Then it may be ahead by any amount, which is no difference."""
        return self.shadow or flow.shadow

    def refuse(self, flow: Flow, held: HeldUnit, queued: int) -> None:
        """A bound is reached: ask for a checkpoint, drop the newest, count it.

        Not so where it has gone already: then it is left uncompared.
        """
        if self.ahead(flow):
            return
        optional = flow.optional()
        self.counters["dropped.unmatched" if optional else "dropped.queue_full"] += frames_of(held.unit)
        if optional:
            return
        self.want(flow, Reason.QUEUE_FULL, None, {"held": queued, "held_bytes": self.held_bytes}, held.at)

    # -- secondary frames ----------------------------------------------------------------------------

    def secondary_gone(self, count: int, reason: str, *, stored: bool = False) -> None:
        """`count` secondary frames are done with; `stored` when they had been kept."""
        if count:
            self.counters["secondary_dropped." + reason] += count
            if stored:
                self.held_secondary -= count

    def secondary_pieces(self, pieces: int) -> None:
        """A stored frame became `pieces` pieces instead of one."""
        if pieces == 0:
            self.counters["secondary_dropped.duplicate"] += 1
        else:
            self.counters["secondary_split"] += pieces - 1

    def squeeze(self) -> None:
        """All flows together keep too much of the secondary: history goes, and then nothing more is taken.

        History serves retransmissions of the primary alone (without it they go unverified, and are counted);
        what is refused was not acknowledged by any client, so the guest sends it again.
        """
        saved = self.history.clear()
        if saved:
            self.secondary_bytes -= saved
            self.counters["history_cut"] += 1
        self.relax()

    def relax(self) -> None:
        """There may be memory again."""
        self.room = self.max_queue_size if self.secondary_bytes <= self.max_secondary_bytes else 0

    # -- checkpoints ---------------------------------------------------------------------------------

    def want(self, flow: Flow, reason: str, offset: int | None, detail: dict[str, Any], now: float) -> None:
        """Ask for a checkpoint on behalf of `flow`, once until it comes."""
        if flow.wanted:
            return
        flow.wanted = now or 1e-9
        text = flow.describe()
        self.counters["checkpoints_wanted." + reason] += 1
        seen = {"reason": reason, "flow": text, "offset": offset, **detail}
        if flow.rule is not DEFAULT:
            seen["rule"] = flow.rule.text
        if self.evidence_dir and self.evidence_files:
            self._evidence(flow, seen, now)
        self.last = [*self.last[-LAST + 1 :], seen]
        self.outputs.append(Log("warning", "miscompare.found" if flow.diverged else "checkpoint.wanted", seen))
        if self.shadow or flow.shadow:
            # Nothing is held and no checkpoint will come: the flow was reported and is left alone now.
            flow.flush(copied=False)
            self.unprotected.add(flow.key)
            return
        self.asked[flow] = None
        self.outputs.append(Tell(CheckpointWanted(reason, text, offset, detail, self.epoch, self.source)))

    def give_up(self, flow: Flow) -> None:
        """Judge `flow` no more: the secondary did not get all that its client sent (`colo_rewriter.pace`)."""
        self.counters["flows_given_up"] += 1
        self.outputs.append(Log("warning", "flow.unjudged", {"flow": flow.describe()}))
        flow.flush(copied=False)
        self.unjudged.add(flow.key)

    def _evidence(self, flow: Flow, seen: dict[str, Any], now: float) -> None:
        """Put the frames around a difference into a pcapng file, and its path into `seen`."""
        if now < self._evidence_at:
            self.counters["evidence_skipped"] += 1
            return
        self._evidence_at = now + EVIDENCE_EVERY
        number = self.counters["evidence_files"] % self.evidence_files
        self.counters["evidence_files"] += 1
        seen["evidence"] = path = f"{self.evidence_dir}/{self.source}-{number:04}.pcapng"
        room = [EVIDENCE_BYTES, EVIDENCE_BYTES]
        verdict = ", ".join(f"{name} {value}" for name, value in seen.items() if name != "evidence")
        shown = []
        for one in flow.evidence(verdict):
            room[one.interface] -= len(one.frame)
            if room[one.interface] >= 0:
                shown.append(one)
        shown.sort(key=lambda one: one.when)
        self.outputs.append(Save(path, Capture(("primary", "secondary"), tuple(shown), verdict)))

    def ask_again(self, now: float) -> None:
        """Repeat requests that nobody answered, the oldest of them: one checkpoint answers them all."""
        waiting = [flow for flow in self.asked if flow.wanted and now - flow.wanted >= ASK_AGAIN]
        if waiting:
            for flow in sorted(waiting, key=_asked_at)[:ASK_MOST]:
                flow.wanted = now
                self.outputs.append(
                    Tell(CheckpointWanted(Reason.REPEATED, flow.describe(), None, {}, self.epoch, self.source))
                )

    def protect(self, flow: Flow) -> None:
        """A new connection began on the key of a flow that had diverged."""
        self.asked.pop(flow, None)
        self.unprotected.discard(flow.key)
        self.unjudged.discard(flow.key)

    def folded(self) -> Counter[str]:
        """All counters, the hot ones included."""
        all_counters = Counter(self.counters)
        for name in ("frames_primary", "frames_secondary", "released", "bytes_compared"):
            all_counters[name] = getattr(self, name)
        all_counters["secondary_dropped.compared"] += self.secondary_compared
        causes = sum(n for name, n in self.counters.items() if name.startswith("released."))
        all_counters["released.compared"] = self.released - causes
        return all_counters
