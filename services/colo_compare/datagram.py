"""Flows without a byte stream: UDP, ICMP, SCTP and every other IP protocol.

A primary datagram is released when the secondary sent one with the same payload in the same flow. Within a bounded
window the order does not matter, because servers with several threads answer in any order. (QEMU matches the newest
first, and asks for needless checkpoints.)

::

      primary    [ o o | f f ]        o: overtaken - a later one has already found its equal
      secondary  [ o | f ]            f: fresh     - newer than every match so far

When both sides have had *fresh* datagrams for longer than `GRACE`, they differ: each side is in the order in which it
was sent, so a fresh one opposite a fresh one should have matched. An overtaken datagram of the secondary lost its
counterpart on the way, and expires. One of the primary waits for its own, until compare_timeout asks for a checkpoint.
"""

from typing import Any, ClassVar, Final

from colo_compare.arrival import Arrival
from colo_compare.evidence import CONTEXT_BYTES, SHOWN_FRAMES, first_difference
from colo_compare.flow import Flow
from colo_compare.ledger import Ledger
from colo_compare.tcp.history import PIECE_COST
from colo_compare.unit import HeldUnit, Unit, frames_in, frames_of
from colo_proto.compiled import mypyc_attr
from colo_proto.messages import Reason
from colo_proto.pcapng import Shown
from colo_proto.rules import Rule

GRACE: Final = 0.1
"""Seconds that both sides may hold unequal fresh datagrams before they count as different."""


@mypyc_attr(acyclic=True)
class HeldDatagram(HeldUnit):
    """A primary datagram that waits for its equal."""

    __slots__ = ("body", "index")

    def __init__(self, unit: Unit, body: bytes, at: float, index: int) -> None:
        self.unit = unit
        self.body = body
        self.at = at
        self.index = index
        self.out = False


def secondary_cost(kept: list[tuple[bytes, float, Unit]]) -> int:
    """Bytes of memory that datagrams of the secondary take."""
    return sum(2 * len(body) + PIECE_COST for body, _, _ in kept)


class DatagramFlow(Flow):
    """One flow of datagrams. `body` is what has to be equal: the payload, without a checksum."""

    __slots__ = (
        "count",
        "ledger",
        "matched_at",
        "pri",
        "pri_over",
        "sec",
        "sec_over",
        "suspect",
        "unkept",
        "unkept_at",
    )

    kept: ClassVar[str] = "datagrams"

    def __init__(self, ledger: Ledger, key: bytes, rule: Rule, now: float) -> None:
        super().__init__(key, rule, now)
        self.ledger = ledger
        # Lists and not deques: they are short, and an empty deque takes ten times the memory of a flow's other fields.
        self.pri: list[HeldDatagram] = []
        self.sec: list[tuple[bytes, float, Unit]] = []
        self.pri_over = 0
        """How many at the front of `pri` are overtaken; likewise `sec_over`."""
        self.sec_over = 0
        self.suspect = 0.0
        """Since when both sides have had fresh datagrams; 0 when they have not."""
        self.count = 0
        """Primary datagrams seen: the index of the next one."""
        self.matched_at = 0.0
        """When the secondary last sent the equal of a datagram that waited."""
        self.unkept = 0
        """Primary datagrams that were sent (shadow mode) and not kept, because there were too many. As many of the
        secondary's are accepted without comparing them."""
        self.unkept_at = 0.0
        """When the last of them arrived."""

    def primary(self, arrival: Arrival, now: float) -> None:
        """A datagram of the primary guest."""
        unit, body = arrival.unit, arrival.body
        if self.rule.masks:
            body = self.rule.normal(body)
        self.touched = now
        index = self.count
        self.count = index + 1
        ledger = self.ledger
        sec = self.sec
        if sec and not self.diverged:
            at = 0
            if sec[0][0] != body:
                at = next((at for at, entry in enumerate(sec) if entry[0] == body), -1)
            if at >= 0:
                del sec[at]
                self.sec_over = self.sec_over - 1 if at < self.sec_over else at
                self.pri_over = len(self.pri)
                ledger.held_secondary -= 1
                ledger.secondary_compared += 1
                size = len(body)
                ledger.secondary_bytes -= size + size + PIECE_COST
                ledger.bytes_compared += size
                ledger.sink.append(unit)
                if self.suspect:
                    self._clear_suspicion()
                return
        if self.unprotected:
            ledger.passed(unit, "unprotected")
            return
        held = HeldDatagram(unit, body, now, index)
        pri = self.pri
        if len(pri) >= ledger.max_queue_size or not ledger.room(self):
            if not ledger.ahead(self):
                ledger.refuse(self, held, len(pri))
            elif not self.optional():
                self.unkept += 1
                self.unkept_at = now
                ledger.counters["frames_unkept"] += frames_of(unit)
            return
        ledger.hold(self, held)
        pri.append(held)
        if sec and not self.suspect:
            self._suspect(now)

    def secondary(self, arrival: Arrival, now: float) -> None:
        """A datagram of the secondary guest."""
        unit, body = arrival.unit, arrival.body
        if self.rule.masks:
            body = self.rule.normal(body)
        self.touched = now
        ledger = self.ledger
        pri = self.pri
        if pri and not self.diverged:
            at = 0
            if pri[0].body != body:
                at = next((at for at, held in enumerate(pri) if held.body == body), -1)
            if at >= 0:
                held = pri[at]
                del pri[at]
                self.pri_over = self.pri_over - 1 if at < self.pri_over else at
                self.sec_over = len(self.sec)
                self.matched_at = now
                ledger.unhold(held)
                ledger.secondary_compared += 1
                ledger.bytes_compared += len(body)
                if held.out:
                    ledger.lag.found(held.at)
                else:
                    ledger.sink.append(held.unit)
                if self.suspect:
                    self._clear_suspicion()
                return
        if self.unprotected:
            ledger.secondary_gone(1, "unprotected")
            return
        if self.unkept and self._of_unkept(body, now):
            return
        if len(self.sec) >= ledger.secondary_quota:
            if not self.sec:
                ledger.secondary_gone(1, "queue_full")
                return
            self._forget(1, "queue_full")
        self.sec.append((body, now, unit))
        ledger.held_secondary += 1
        ledger.secondary_bytes += 2 * len(body) + PIECE_COST
        ledger.lingering[self] = None
        if pri and not self.suspect:
            self._suspect(now)

    def _of_unkept(self, body: bytes, now: float) -> bool:
        """May it be the equal of a datagram that was not kept? Then it counts as one."""
        if self.unkept_at < now - self.ledger.timeout:
            self.unkept = 0
            return False
        self.unkept -= 1
        self.ledger.counters["bytes_unjudged"] += len(body)
        self.ledger.secondary_gone(1, "unkept")
        return True

    def _forget(self, count: int, reason: str) -> None:
        """Drop the secondary's oldest `count` datagrams."""
        if count:
            ledger = self.ledger
            ledger.secondary_bytes -= secondary_cost(self.sec[:count])
            del self.sec[:count]
            self.sec_over = max(self.sec_over - count, 0)
            ledger.secondary_gone(count, reason, stored=True)

    # -- suspicion -----------------------------------------------------------------------------------

    def _fresh(self) -> bool:
        return len(self.pri) > self.pri_over and len(self.sec) > self.sec_over

    def _suspect(self, now: float) -> None:
        if self._fresh() and not self.diverged:
            self.suspect = now
            self.ledger.suspects[self] = now + GRACE

    def _clear_suspicion(self) -> None:
        # What is fresh now has been so only since the last match: the grace begins anew with the next datagram.
        self.suspect = 0.0
        self.ledger.suspects.pop(self, None)
        if self._fresh():
            self.suspect = max(self.pri[self.pri_over].at, self.sec[self.sec_over][1])
            self.ledger.suspects[self] = self.suspect + GRACE

    def judge(self, now: float) -> None:
        """The grace is over: the datagrams that are fresh on both sides differ."""
        self.suspect = 0.0
        if self._fresh() and not self.diverged:
            self._differ(self.pri[self.pri_over], self.sec[self.sec_over][0], now)

    def _differ(self, held: HeldDatagram, other: bytes, now: float) -> None:
        """`held` should have been equal to `other`: report a difference."""
        self.diverged = True
        self.ledger.counters["miscompares"] += 1
        self.ledger.want(self, Reason.DATAGRAM, held.index, self._explain(held, other, now), now)

    def _explain(self, held: HeldDatagram, other: bytes | None, now: float) -> dict[str, Any]:
        detail: dict[str, Any] = {
            "age_ms": round((now - held.at) * 1000),
            "held": len(self.pri),
            "secondary_pending": len(self.sec),
            "length": len(held.body),
        }
        at = 0 if other is None else first_difference(held.body, other)
        low, high = max(at - CONTEXT_BYTES, 0), at + CONTEXT_BYTES
        if other is not None:
            detail |= {"secondary_length": len(other), "byte": at, "context": at - low, "secondary_context": at - low}
            detail["secondary"] = other[low:high].hex()
        return detail | {"primary": held.body[low:high].hex()}

    # -- what the compare asks of every kind of flow -------------------------------------------------

    def held(self) -> list[HeldDatagram]:
        """The primary's datagrams that wait."""
        return self.pri

    def leftover(self) -> bool:
        """Does it keep something of the secondary that the primary has not sent?"""
        return bool(self.sec)

    def expire(self, limit: float, now: float) -> None:
        """Drop the secondary datagrams that arrived at or before `limit`: they have no counterpart."""
        self._forget(next((n for n, entry in enumerate(self.sec) if entry[1] > limit), len(self.sec)), "expired")
        if self.matched_at > limit and not self.pri_over:
            # The secondary still sends what the primary did, and in order: it is merely behind.
            return
        while self.pri and self.pri[0].out and self.pri[0].at <= limit:
            # It was sent long ago in shadow mode and never matched, so it is reported as a difference. In shadow mode
            # the report flushes the flow at once, so the queue may be another one afterwards.
            held = self.pri.pop(0)
            self.ledger.unhold(held)
            self.pri_over = max(self.pri_over - 1, 0)
            self.ledger.counters["miscompares"] += 1
            self.ledger.want(self, Reason.TIMEOUT, held.index, self._explain(held, None, now), now)

    def lingers(self) -> bool:
        """May `expire` still have something to do?"""
        return bool(self.sec) or super().lingers()

    def timed_out(self, now: float) -> None:
        """A datagram has waited longer than compare_timeout."""
        held = min(self.pri, key=lambda h: h.at)
        other = self.sec[self.sec_over][0] if len(self.sec) > self.sec_over else None
        self.ledger.want(self, Reason.TIMEOUT, held.index, self._explain(held, other, now), now)

    def flush(self, *, copied: bool) -> None:
        """A checkpoint is done: what is held leaves, in the order in which it arrived."""
        ledger = self.ledger
        held_frames, self.pri = self.pri, []
        self._forget(len(self.sec), "checkpoint")
        self.pri_over = self.sec_over = 0
        self.suspect = 0.0
        self.unkept = 0
        ledger.suspects.pop(self, None)
        for held in held_frames:
            ledger.unhold(held)
            if not held.out:
                ledger.passed(held.unit, "checkpoint")
        self.diverged = False
        self.wanted = 0.0
        self.unprotected = not copied

    def abandon(self, reason: str) -> None:
        """The flow is about to be forgotten: drop what it holds."""
        for held in self.pri:
            self.ledger.drop(held, reason)
        self.pri.clear()
        self._forget(len(self.sec), reason)
        self.ledger.suspects.pop(self, None)

    def let_out(self, cause: str) -> None:
        """Send what is held, but keep it for comparing (shadow mode begins)."""
        for held in self.pri:
            self.ledger.let_out(self, held, cause)

    def evidence(self, verdict: str) -> list[Shown]:
        """The waiting datagrams of both sides, or only the fresh ones if there are any. The verdict is the first's."""
        mine = self.pri[self.pri_over :][:SHOWN_FRAMES] or self.pri[:SHOWN_FRAMES]
        its = self.sec[self.sec_over :][:SHOWN_FRAMES] or self.sec[:SHOWN_FRAMES]
        shown = []
        for held in mine:
            comment = verdict if held is mine[0] else f"primary, packet {held.index} of its flow, unequal"
            shown += [Shown(0, held.at, frame, comment) for frame in frames_in(held.unit)]
        for _, at, unit in its:
            shown += [Shown(1, at, frame, "secondary, unequal") for frame in frames_in(unit)]
        return shown
