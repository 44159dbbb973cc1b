"""The frame's dealings with the filters that may write to the client LAN: leases, promotion, claims.

`leadership` decides which side may write; this module carries it out::

    lease    --> Lease(until) to every process that could write, and again with each heartbeat
    stop     --> Lease(0), which each of them confirms with Yielded
    promote  --> Promote to every process of the host
    demote   --> Demote to every process of the host
    the next claim --> LanSay to every process that has a port for claims
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from colo_frame.changing import ChangingLeadership
from colo_frame.config import FrameConfig
from colo_frame.fixed import FixedLeadership
from colo_frame.freshness import NEWS
from colo_frame.leadership import Leadership
from colo_frame.outbox import Outbox
from colo_frame.registry import EVERYBODY, Process, Registry
from colo_frame.transitions import EITHER, FOLLOWING, IDLE, WRITING, Said, role_of, said
from colo_frame.votes import Votes
from colo_proto.claim import Stand, State, derive, read_claim, write_claim
from colo_proto.core import Log
from colo_proto.errors import WireError
from colo_proto.messages import Demote, LanSay, Lease, Promote, Report

WRITERS: Final = ("redirector", "compare", "rewriter")
"""Roles that have a port to the client LAN in one wiring or the other."""
CLAIM_SENDERS: Final = ("mirror", "redirector", "rewriter")
"""Roles that have a port for claims in one wiring or the other."""
CHANGED: Final = "leadership.changed"
"""The log event of each change of state."""
REFUSED_EVERY: Final = 60.0
"""Seconds between two log lines about a peer whose claims cannot be read."""
_LEVEL: Final = {State.FENCED: "error", State.YIELDING: "warning", State.ALONE: "warning"}


class Ownership:
    """See the module. `changes` collects the changes of state (before, after) until `Frame` has dealt with them."""

    def __init__(self, config: FrameConfig, registry: Registry, out: Outbox, incarnation: int, now: float) -> None:
        interval = config.heartbeat_interval / 1000
        kind = ChangingLeadership if config.changing else FixedLeadership
        self.leadership: Leadership = kind(
            config.side, incarnation, interval, interval * config.heartbeat_missed, now, peer=bool(config.peer),
            vote=config.vote,
        )  # fmt: skip
        self._table = EITHER if config.changing else config.side
        self._demoted = 0
        """The token with which the processes were last told that this host does not lead, where roles change."""
        self.on_promote: Callable[[float], None] = lambda _now: None
        """Called before the processes hear that this host leads: what the rewriter sends at once must have a worker."""
        self.changes: list[tuple[str, str]] = []
        self.promoted_at: float | None = None
        self.silence = 0.0
        """Seconds for which the primary had been silent when this side was promoted."""
        self._config = config
        self._registry = registry
        self._out = out
        self._state = self.leadership.state
        """The state that was carried out last."""
        # Leases that a former start of this frame granted may still be valid.
        self._lease_until = now + self.leadership.lease_time if config.peer else now
        self._yielded: set[str] = set()
        self._keys = [derive(b"", config.pair)]
        self.sealed = False
        """True when there is a secret that only the pair knows."""
        self.votes = Votes(config, self.leadership, registry, out) if config.vote else None
        """What is said to and of the third vote; None where there is none."""
        self.mismatch = False
        """One side has a third vote and the other one has none: two can write when both ways between them are cut."""
        self._refused_at = float("-inf")
        self._dropped: dict[tuple[int, str], int] = {}
        """By incarnation of netdev and tap: how many frames the kernel had dropped at the last report."""

    def use_secrets(self, secrets: Sequence[bytes]) -> None:
        """Seal claims with the first of these secrets, and believe claims that are sealed with any of them."""
        self._keys = [derive(secret, self._config.pair) for secret in secrets]
        self.sealed = True

    # -- hearing -----------------------------------------------------------------------------------

    def hear_lan(self, frame: bytes, now: float) -> None:
        """A claim came from the client LAN."""
        try:
            stand = read_claim(frame, self._keys)
        except WireError:
            self._out.counters["claims_refused"] += 1
            return
        if stand.side == self._config.side:
            if stand.incarnation != self.leadership.incarnation:
                self._out.counters["claims_of_our_side"] += 1
            return
        verdict = self._hear(stand, now)
        self._out.counters["claims_heard" if verdict == NEWS else "claims_" + verdict] += 1

    def hear_link(self, claim: bytes, now: float) -> None:
        """A heartbeat brought a claim. If it cannot be read, the peer has another secret or another version: that shows
        that it is alive, and nothing else.
        """
        try:
            stand = read_claim(claim, self._keys)
        except WireError as error:
            self._out.counters["claims_refused"] += 1
            self.leadership.hear_unreadable(now)
            if now >= self._refused_at + REFUSED_EVERY:
                self._refused_at = now
                self._out.log("error", "pair.refused", why=str(error), bytes=len(claim))
            return
        if stand.side != self._config.side:
            self._hear(stand, now)

    def _hear(self, stand: Stand, now: float) -> str:
        verdict = self.leadership.hear(stand, now)
        if verdict == NEWS and stand.vote != self._config.vote and not self.mismatch:
            self._out.log("error", "vote.mismatched", ours=self._config.vote, theirs=stand.vote)
        if verdict == NEWS:
            self.mismatch = stand.vote != self._config.vote
        return verdict

    def hear_report(self, process: Process, report: Report, now: float) -> None:
        """Learn from netdev's report whether a tap through which this host hears claims has dropped frames: a claim of
        the other side may have been among them.
        """
        if process.role != "netdev":
            return
        reports = [one.report for one in self._registry.processes.values() if one.role in CLAIM_SENDERS]
        taps = {_claims_tap(one) for one in reports if one is not None} - {""}
        dropped = {(process.incarnation, tap): report.counters.get(f"tap.{tap}.dropped", 0) for tap in taps}
        # What was dropped before this frame knew the tap is over: it counts from the first report on.
        if any(number > self._dropped.get(tap, number) for tap, number in dropped.items()):
            self._out.counters["lan_overflows"] += 1
            self.leadership.lan_dropped_at = now
        self._dropped = dropped

    def yielded(self, sender: str) -> None:
        """A process has confirmed that it no longer writes to the client LAN."""
        self._yielded.add(sender)

    def writing(self, now: float) -> bool:
        """True when a filter of this host may still be writing."""
        if now >= self._lease_until:
            return False
        leased = {p.id for p in self._registry.processes.values() if not p.lost and p.leased}
        return not leased or not leased <= self._yielded

    # -- doing -------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Let the leadership change as often as it can now, and carry out what each change means."""
        leadership = self.leadership
        while True:
            before, after = self._state, leadership.state
            if before == after:
                leadership.tick(now, writing=self.writing(now))
                if leadership.state == before:
                    break
                continue
            self._state = after
            self.changes.append((before, after))
            self._out.counters["leadership." + after] += 1
            self._changed(before, after, now)
        if self._config.changing and leadership.state in FOLLOWING and leadership.fence > self._demoted:
            # The token with which they were told to lead may be as high as the one before.
            self._demote(leadership.fence)
        if self.votes is not None:
            self.votes.advance(now, writing=self.writing(now))

    def _changed(self, before: str, after: str, now: float) -> None:
        """Tell the processes of this host what follows (`transitions.said`)."""
        fence, words = self.leadership.fence, said(self._table, before, after)
        if Said.LEASE in words:
            self.grant(now)
        if Said.PROMOTE in words:
            if self.promoted_at is None and before in FOLLOWING:
                self.promoted_at, self.silence = now, now - self.leadership.heard
            self.on_promote(now)
            self._out.tell(Promote(fence, self._config.side, replica=self.leadership.replica), EVERYBODY)
        if Said.DEMOTE in words:
            self.promoted_at = None
            self._demote(fence)
        if Said.STOP in words:
            self._yielded.clear()
            self._out.tell(Lease(0.0, fence), *self._registry.live(*WRITERS))
        text = {"before": before, "after": after, "on": self.leadership.because, "fence": fence}
        if after == State.FENCED:
            text["why"] = "the other side has taken the client LAN over; this side does not write to it"
        self._out.append(Log(_LEVEL.get(after, "info"), CHANGED, text))

    def _demote(self, fence: int) -> None:
        self._demoted = fence
        self._out.tell(Demote(fence), EVERYBODY)

    def grant(self, now: float) -> None:
        """Give a lease to every process that could write, if this side may write."""
        self._grant(now, *self._registry.live(*WRITERS))

    def _grant(self, now: float, *to: str) -> None:
        until = self.leadership.lease(now)
        if until:
            self._lease_until = max(self._lease_until, until)
            self._out.tell(Lease(until, self.leadership.fence), *to)

    def claim(self, stand: Stand) -> bytes:
        """The frame that claims `stand`, sealed."""
        return write_claim(stand, self._config.pair, self._keys[0])

    def say(self, claim: bytes, count: int) -> None:
        """Have a claim sent to the client LAN."""
        self._out.tell(LanSay(claim, count, [one.gate for one in self._keys]), *self._registry.live(*CLAIM_SENDERS))

    def welcome(self, sender: str, role: str, now: float, *, promoted: bool) -> None:
        """Tell a process that has just come what it must know. `promoted`: an earlier Promote has reached it."""
        state, fence = self.leadership.state, self.leadership.fence
        if state == State.PROMOTED or (self._config.changing and state in WRITING):
            self._out.tell(Promote(fence, self._config.side), sender)
        elif promoted and state in IDLE:
            self._out.tell(Demote(fence), sender)
        if role in WRITERS and self._state in WRITING:
            self._grant(now, sender)

    def deadline(self) -> float:
        """When to call `advance`, or to make the next claim."""
        due = self.leadership.deadline()
        if self.votes is not None:
            due = min(due, self.votes.deadline())
        if self.leadership.state == State.YIELDING and self._lease_until > self.leadership.ran:
            due = min(due, self._lease_until)
        return due

    # -- looking in --------------------------------------------------------------------------------

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of it. Ages are milliseconds; `at` is monotonic seconds of this host."""
        leadership = self.leadership
        known: dict[str, Any] = {
            "state": leadership.state,
            "since_ms": int((now - leadership.since) * 1000),
            "writes": leadership.state in WRITING,
            "lan_age_ms": int((now - leadership.lan_sent) * 1000) if leadership.lan_sent >= 0 else None,
            "stalls": leadership.stalls,
            "sealed": self.sealed,
            "proven": leadership.fresh.believed,
            "vote_mismatch": self.mismatch,
        }
        if self._config.changing:
            known["role"] = role_of(leadership.state)
        if self.votes is not None:
            known["vote"] = self.votes.status(now)
        if not leadership.primary:
            failover = "auto" if self._config.automatic else "manual"
            known |= {"promotable": leadership.promotable, "failover": failover}
        if self.promoted_at is not None:
            known["promotion"] = {
                "at": self.promoted_at,
                "age_ms": int((now - self.promoted_at) * 1000),
                "silence_ms": int(self.silence * 1000),
            }
        return known


def _claims_tap(report: Report) -> str:
    """The name of the tap at the port for claims of the filter that sent this report; empty if it has none."""
    endpoints = report.status.get("endpoints")
    endpoint = endpoints.get("claims") if isinstance(endpoints, dict) else None
    if not isinstance(endpoint, str) or not endpoint.startswith("tap://"):
        return ""
    return endpoint.removeprefix("tap://").partition("?")[0]
