"""The frame's dealings with the filters that may write to the client LAN: permissions, promotion, claims.

`tenure` decides who may; this carries it out::

    tenure in a state that writes --> Lease(until) to every process that could write, again and again
                      leaves it   --> Lease(0), and Yielded back from each
                      PROMOTED    --> Promote to everybody of the host;  FENCED --> Demote
    what is to be said            --> LanSay to whoever has a port for claims
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from colo_frame.config import FrameConfig
from colo_frame.freshness import NEWS
from colo_frame.registry import EVERYBODY, Registry
from colo_frame.tenure import WRITES, Tenure
from colo_proto.claim import Stand, State, derive, read_claim, write_claim
from colo_proto.core import Log, Output, Tell
from colo_proto.errors import WireError
from colo_proto.messages import Demote, LanSay, Lease, Promote

WRITERS: Final = ("redirector", "compare", "rewriter")
"""Roles that have a port to the client LAN in one wiring or the other."""
VOICES: Final = ("mirror", "redirector", "rewriter")
COMPLAIN: Final = 60.0
"""Seconds between two log lines about a peer whose claims cannot be read."""
_LEVEL: Final = {State.FENCED: "error", State.YIELDING: "warning", State.ALONE: "warning", State.ASKING: "info"}


class Ownership:
    """See the module. `changes` collects the tenure's changes (before, after) until `progress` has looked at them."""

    def __init__(
        self, config: FrameConfig, registry: Registry, counters: Counter[str], incarnation: int, now: float
    ) -> None:
        interval = config.heartbeat_interval / 1000
        self.tenure = Tenure(
            config.side, incarnation, interval, interval * config.heartbeat_missed, now, peer=bool(config.peer)
        )
        self.changes: list[tuple[str, str]] = []
        self.promoted_at: float | None = None
        self.silence = 0.0
        """Seconds for which the primary had been silent when this side was promoted."""
        self._config = config
        self._registry = registry
        self._counters = counters
        self._state = self.tenure.state
        # Permissions of a former start of this frame may still run.
        self._lease_until = now + self.tenure.lease_time if config.peer else now
        self._yielded: set[str] = set()
        self._keys = [derive(b"", config.pair)]
        self.sealed = False
        """True when there is a secret that nobody but the pair knows."""
        self._complained = float("-inf")

    def use_secrets(self, secrets: Sequence[bytes]) -> None:
        """Claims are sealed with the first of these, and believed with any."""
        self._keys = [derive(secret, self._config.pair) for secret in secrets]
        self.sealed = True

    # -- hearing -----------------------------------------------------------------------------------

    def hear_lan(self, frame: bytes, now: float) -> None:
        """A claim came from the client LAN."""
        try:
            stand = read_claim(frame, self._keys)
        except WireError:
            self._counters["claims_refused"] += 1
            return
        if stand.side == self._config.side:
            if stand.incarnation != self.tenure.incarnation:
                self._counters["claims_of_our_side"] += 1
            return
        verdict = self.tenure.hear(stand, now)
        self._counters["claims_heard" if verdict == NEWS else "claims_" + verdict] += 1

    def hear_link(self, claim: bytes, now: float) -> list[Output]:
        """A heartbeat brought a claim. A claim that cannot be read comes from a peer with another secret, or of another
        version. It shows that this peer lives, and nothing else.
        """
        try:
            stand = read_claim(claim, self._keys)
        except WireError as error:
            self._counters["claims_refused"] += 1
            self.tenure.doubt(now)
            if now < self._complained + COMPLAIN:
                return []
            self._complained = now
            return [Log("error", "pair.refused", {"why": str(error), "bytes": len(claim)})]
        if stand.side != self._config.side:
            self.tenure.hear(stand, now)
        return []

    def yielded(self, sender: str) -> None:
        """A process has confirmed that it no longer writes to the client LAN."""
        self._yielded.add(sender)

    def writing(self, now: float) -> bool:
        """True when a filter of this host may still be writing."""
        if now >= self._lease_until:
            return False
        live = self._registry.processes.values()
        leased = {p.id for p in live if not p.lost and p.leased}
        return not leased or not leased <= self._yielded

    # -- doing -------------------------------------------------------------------------------------

    def settle(self, now: float) -> list[Output]:
        """Let the tenure move as far as it can, and carry out what that means."""
        outputs: list[Output] = []
        tenure = self.tenure
        while True:
            before, after = self._state, tenure.state
            if before == after:
                tenure.tick(now, writing=self.writing(now))
                if tenure.state == before:
                    return outputs
                continue
            self._state = after
            self.changes.append((before, after))
            self._counters["tenure." + after] += 1
            outputs += self._changed(before, after, now)

    def _changed(self, before: str, after: str, now: float) -> list[Output]:
        fence = self.tenure.fence
        outputs: list[Output] = []
        if after in WRITES:
            outputs += self.grant(now)
        if after == State.PROMOTED:
            if self.promoted_at is None:
                self.promoted_at, self.silence = now, now - self.tenure.heard
            outputs.append(Tell(Promote(fence), EVERYBODY))
        elif after == State.FENCED and not self.tenure.primary:
            self.promoted_at = None
            outputs.append(Tell(Demote(fence), EVERYBODY))
        if after not in WRITES and (before in WRITES or after == State.YIELDING):
            self._yielded.clear()
            outputs += [Tell(Lease(0.0, fence), one) for one in self._live(WRITERS)]
        text = {"before": before, "after": after, "fence": fence}
        if after == State.FENCED:
            text["why"] = "the other side has taken the client LAN over; this side does not write to it"
        outputs.append(Log(_LEVEL.get(after, "info"), "tenure.changed", text))
        return outputs

    def grant(self, now: float) -> list[Output]:
        """Give a permission to every process that could write, if this side may give any."""
        until = self.tenure.lease(now)
        if not until:
            return []
        self._lease_until = until
        return [Tell(Lease(until, self.tenure.fence), one) for one in self._live(WRITERS)]

    def claim(self, stand: Stand) -> bytes:
        """Seal what is to be said."""
        return write_claim(stand, self._config.pair, self._keys[0])

    def say(self, claim: bytes, count: int) -> list[Output]:
        """Put what is said on the client LAN as well."""
        message = LanSay(claim, count, [one.gate for one in self._keys])
        return [Tell(message, one) for one in self._live(VOICES)]

    def welcome(self, sender: str, role: str, now: float, *, promoted: bool) -> list[Output]:
        """What a process that has just come must know. `promoted`: this frame, or its start before, has promoted it."""
        outputs: list[Output] = []
        if self.tenure.state == State.PROMOTED:
            outputs.append(Tell(Promote(self.tenure.fence), sender))
        elif promoted and self.tenure.state in (State.FENCED, State.STANDBY):
            outputs.append(Tell(Demote(self.tenure.fence), sender))
        if role in WRITERS and self._state in WRITES:
            until = self.tenure.lease(now)
            if until:
                self._lease_until = max(self._lease_until, until)
                outputs.append(Tell(Lease(until, self.tenure.fence), sender))
        return outputs

    def silent_ms(self, now: float) -> int:
        """For how long the other side has been silent."""
        return int((now - self.tenure.heard) * 1000)

    def _live(self, roles: tuple[str, ...]) -> list[str]:
        return [one for role in roles for one in self._registry.live(role)]

    def deadline(self) -> float:
        """When `settle` or the next word is due."""
        due = self.tenure.deadline()
        if self.tenure.state == State.YIELDING and self._lease_until > self.tenure.ran:
            due = min(due, self._lease_until)
        return due

    # -- looking in --------------------------------------------------------------------------------

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of it. Ages are milliseconds; `at` is monotonic seconds of this host."""
        tenure = self.tenure
        known: dict[str, Any] = {
            "state": tenure.state,
            "since_ms": int((now - tenure.since) * 1000),
            "writes": tenure.state in WRITES,
            "lan_age_ms": int((now - tenure.said) * 1000) if tenure.said >= 0 else None,
            "stalls": tenure.stalls,
            "sealed": self.sealed,
            "proven": tenure.fresh.believed,
        }
        if not tenure.primary:
            known["fit"] = tenure.fit
            known["failover"] = self._config.failover
        if self.promoted_at is not None:
            known["promotion"] = {
                "at": self.promoted_at,
                "age_ms": int((now - self.promoted_at) * 1000),
                "silence_ms": int(self.silence * 1000),
            }
        return known
