"""What this side knows about the third vote: a lease in a store that neither host is (`colo vote`). Pure.

Two hosts cannot tell a dead host from one that is cut off on both ways. With a third vote a side writes to the client
LAN only while it holds a key in that store, or while the other side agrees (`colo_frame.leadership`).

**The key.** The process `colo vote` of this host speaks to the store. The frame tells it whether it wants the key
(`VoteWanted`), and hears what came of it (`Voted`). It computes the end of the lease itself, and conservatively: from
the time at which the request was sent that the store granted, on the clock that all processes of this host share.

**To agree** is to promise, in a claim, not to write before the speaker of the repeated claim must have stopped. A side
in `standby` or `fenced` can promise that: before it takes over it waits for a silence that is longer than a lease, and
measured from that very claim on. So a store that is out of reach changes nothing while the pair is whole, and when both
ways are cut, the side without the key stops.
"""

from typing import Any, Final

from colo_proto.claim import State
from colo_proto.messages import Voted, VoteWanted

PART: Final = 2 / 3
"""The key counts as held for this part of its time to live. The rest allows for the differences of two clocks, for a
store that counts in whole seconds, and for a new leader of the store.
"""
MAX_TTL: Final = 3600.0
MAX_TOKEN: Final = 1 << 60
MAX_TEXT: Final = 200
NEVER: Final = float("-inf")


class ThirdVote:
    """See the module. Times are monotonic seconds. `timeout` is the silence of `colo vote` that counts as its death."""

    def __init__(self, side: str, incarnation: int, timeout: float, lease_time: float, now: float) -> None:
        self.side = side
        self.incarnation = incarnation
        self.timeout = timeout
        self.wanted = False
        self.count = 0
        """How often the wish has changed."""
        self.held_until = NEVER
        self.token = 0
        """The fencing token of the key that was held last: the store's number of its creation."""
        self.holder = ""
        """Who has the key, as the store said last; empty: nobody."""
        self.error = "colo vote has not said anything yet"
        """Why the store is out of reach; empty when it answers."""
        self.heard = NEVER
        """When `colo vote` last said something."""
        self._ours = False
        self._answered = NEVER
        """When the store last answered."""
        self._ttl = 0.0
        self._said = NEVER
        self.alone = ""
        """Who has last noted in the store that it goes on alone."""
        self._note = ""
        self._lease_time = lease_time
        self._agreed = NEVER
        """When we made the newest claim that the other side agrees to."""
        self._known_at = now + lease_time / 4
        """From then on all processes have said what they know of an earlier start of this frame."""
        self._leased_at = NEVER
        """When a process last had a valid lease from an earlier start, which had promoted this side."""

    # -- the other side ------------------------------------------------------------------------------

    def agreed(self, when: float | None, *, idle: bool) -> None:
        """The other side's newest claim agrees to our claim that was made at `when`; None: it says nothing of it.
        `idle`: it does not want to write, so what it has promised before still holds. A frame that was restarted keeps
        to it as well: it counts silence from its start on.
        """
        if when is not None:
            self._agreed = max(self._agreed, when)
        elif not idle:
            self._agreed = NEVER

    def may_agree(self, state: str, now: float, *, writing: bool) -> bool:
        """True when this side can promise not to write. A frame that has just started does not know yet whether an
        earlier start of it was promoted; after a promotion, leases may still be valid (`writing`).
        """
        return (state == State.STANDBY and now >= self._known_at) or (state == State.FENCED and not writing)

    def remember(self, now: float) -> None:
        """A process had a valid lease from an earlier start of this frame. Once we may have agreed, it is too late."""
        if now < self._known_at:
            self._leased_at = now

    def remembers(self, now: float) -> bool:
        """True when the other side cannot have begun to write since then: that takes it longer, and we have the key."""
        return self.held(now) and now < self._leased_at + self.timeout - self._lease_time

    @property
    def permits_until(self) -> float:
        """Until when this side may write: it has the key, or the other side agrees. That other side may have the key
        itself, as it gives the LAN over: what counts is what it promises.
        """
        return max(self.held_until, self._agreed + self._lease_time)

    # -- the wish ----------------------------------------------------------------------------------

    def want(self, wanted: bool) -> None:
        """Whether this side wants the key. It may be given up only when nobody of this host writes any more."""
        if wanted != self.wanted:
            self.wanted = wanted
            self.count += 1
            self._said = NEVER
            # What was said about the former wish does not count: the key may have been given up in between.
            self.held_until = NEVER

    def note(self, alone: str) -> None:
        """Whether to note in the store that this side goes on alone (`VoteWanted.alone`)."""
        if alone != self._note:
            self._note, self._said = alone, NEVER

    @property
    def noted(self) -> bool:
        """True when the store has that note of this side: the other one will not take itself for a replica."""
        return self.alone.partition(" ")[0] == self.side

    def due(self, now: float, interval: float) -> bool:
        """True when the wish must be said: it has changed, or was last said an interval ago."""
        return now >= self.due_at(interval)

    def due_at(self, interval: float) -> float:
        """When the wish must be said again."""
        return self._said + interval

    def say(self, now: float) -> VoteWanted:
        """The wish. `colo vote` keeps the key for no longer than `until` without hearing from us again."""
        self._said = now
        return VoteWanted(self.side, self.incarnation, self.count, self.wanted, now + self.timeout, self._note)

    def repeat(self) -> None:
        """Say the wish again at once: `colo vote` was restarted."""
        self._said = NEVER

    # -- what came of it ---------------------------------------------------------------------------

    def hear(self, voted: Voted, now: float) -> bool:
        """Take what `colo vote` says. False when it makes no sense, and then nothing changes."""
        if not (0 < voted.ttl <= MAX_TTL and 0 <= voted.token < MAX_TOKEN and voted.asked <= now):
            return False
        self.heard, self._ttl = now, voted.ttl
        self.error = voted.error[:MAX_TEXT]
        if self.error:
            return True
        self.holder, self._ours, self._answered = voted.holder[:MAX_TEXT], voted.held, now
        self.alone = voted.alone[:MAX_TEXT]
        if voted.held and self.wanted and (voted.incarnation, voted.count) == (self.incarnation, self.count):
            self.held_until = max(self.held_until, voted.asked + voted.ttl * PART)
            self.token = voted.token
        elif not voted.held:
            self.held_until = NEVER
        return True

    def held(self, now: float) -> bool:
        """True while this side certainly has the key."""
        return now < self.held_until

    def unheard(self, now: float) -> bool:
        """True when `colo vote` is silent for too long."""
        return now >= self.heard + max(self.timeout, self._ttl)

    def denied(self, now: float) -> bool:
        """True when the store has said that another one has the key, and may still say so."""
        return bool(self.holder) and not self._ours and now < self._answered + max(self.timeout, self._ttl)

    def answers(self, now: float) -> bool:
        """True when the store is in reach."""
        return not self.error and not self.unheard(now)

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of it. Ages are milliseconds."""
        error = "colo vote is silent" if self.unheard(now) and not self.error else self.error
        return {
            "wanted": self.wanted,
            "held": self.held(now),
            "held_ms": max(0, int((self.held_until - now) * 1000)) if self.held(now) else 0,
            "holder": self.holder,
            "alone": self.alone,
            "token": self.token,
            "store": self.answers(now),
            "error": error,
        }
