r"""Decides who may write to the client LAN: one side alone, whatever dies, stands still, or is cut off. Pure.

::

    PRIMARY                                              SECONDARY

    ASKING --an answer to what it asked--> HOLDING       STANDBY --operator, or silence on both ways--> TAKING
      ^  \\--nobody answers--> ALONE         |  ^            ^                                              |
      |                         ^  nothing  |  | heard      | the primary has a higher fence               |
      |  stood still            |   heard   v  | again      +----------------------------------------------+
      +--(any that writes)      +---------LEAVING           |                           the primary yields,
                              told, or nobody hears it      |                           or must have stopped
    any --the secondary's fence is higher--> YIELDING       |                                              v
    ASKING <--nobody has it-- FENCED <--permissions over    FENCED <--the primary's fence is higher-- PROMOTED
                                                                                stood still: TAKING again --^

**Fences** order promotions. The primary takes even numbers and the secondary odd ones, each the next number above all
that it has seen. So no two are equal, and a side that hears of a higher one stops.

**Permission** to write (`lease`) is given to the filters of a host for a time shorter than the silence
after which the other side may take over, and on the host's own clock, so it runs out in a process that is
stopped. It counts from when the other side could hear us last. A side that did not run for that long, or
that could not be heard, cannot know what has happened meanwhile, so it asks before it permits again. So does a side
that was promoted by an earlier start of this frame, unless a permission still runs.

**Two ways to hear**: the link between the hosts, and the client LAN (`colo_proto.claim`). On both only what proves that
it is new counts (`colo_frame.freshness`): a recording is no sign of life. The secondary takes over by itself only when
both were silent while its own ear on the LAN worked, and when the primary's last word was that all it had sent was
compared. So it takes over when the primary's host is dead, because both ways are silent then. It stays where it is when
only the link is cut, because it still hears the primary on the LAN. No rule of two sides can tell a dead host from one
that is cut off on both ways.
"""

from typing import Final

from colo_frame.freshness import NEWS, UNPROVEN, Freshness
from colo_proto.claim import Stand, State

PRIMARY: Final = "primary"
GRACE: Final = 2
"""A side that has lost the other asks on the LAN for so many intervals before it acts on the silence."""
LEASE: Final = 2 / 3
"""A permission runs for this part of the time after which silence counts as death. The rest is for differences of
clocks, for queues and for a slow machine.
"""
PATIENCE: Final = 0.9
"""What may be older than this part of the time after which silence counts as death is not believed. A side that has
said that it does not write needs longer than this before it writes again, unless it has been heard since.
"""
MARGIN: Final = 1.25
"""A secondary waits at least this much longer than the primary's permissions run."""
URGENT: Final = 4
"""A side speaks so many times as often as usual while it waits for the other side's word."""

HURRY: Final = 16
"""It speaks at most so many times as often as usual to answer somebody who has proved nothing yet."""

WRITES: Final = frozenset({State.HOLDING, State.LEAVING, State.ALONE, State.PROMOTED})
_URGENT: Final = frozenset({State.ASKING, State.LEAVING, State.TAKING, State.YIELDING})


class Tenure:
    """See the module. All times are monotonic seconds; every method first notices that it stood still."""

    def __init__(self, side: str, incarnation: int, interval: float, timeout: float, now: float, *, peer: bool) -> None:
        self.side = side
        self.primary = side == PRIMARY
        self.incarnation = incarnation
        self.interval = interval
        self.timeout = timeout
        self.lease_time = timeout * LEASE
        self.fence = 0
        """Highest fencing token that this side has seen or taken."""
        self.count = 0
        self.heard = now
        """When the other side last spoke on either way, or the time since which this side could have heard it."""
        self.other: Stand | None = None
        self.fit = False
        """Secondary: the primary's last word was that nothing left uncompared."""
        self.said = float("-inf")
        """When we were last told that a claim of ours is on the LAN. It shows that our voice and our ear there work."""
        self.proven = now
        """When we said the latest word that the other side has heard, or that is on the LAN."""
        self.ear_since = now
        self.ran = now
        self.since = now
        """When the present state began."""
        self.stalls = 0
        self.again = False
        """Secondary, taking: it had the LAN before, and cannot know whether it still has it."""
        self._careful = False
        """Taking: silence counts only while our own ear on the LAN works."""
        self._forced = False
        """The operator wants this side to write though nobody can hear it on the LAN."""
        self._unclaimed: tuple[int, float] | None = None
        """Primary, fenced: the start of the other side that says it does not have the LAN, and since when it says so.
        """
        self._alone = not peer
        self._asked_from = 1
        """Only answers to words with this number or a higher one prove anything."""
        self._spoken = float("-inf")
        self._urged = False
        """Somebody spoke who needs an answer of ours to prove who it is."""
        self.fresh = Freshness(incarnation, timeout * PATIENCE, now)
        if self.primary:
            self.state = State.ASKING if peer else State.ALONE
        else:
            self.state = State.STANDBY

    # -- what may be written -------------------------------------------------------------------------

    def lease(self, now: float) -> float:
        """Until when the filters of this host may write to the client LAN; 0: they may not."""
        self.notice(now)
        if self.state not in WRITES:
            return 0.0
        if not self._heeded:
            return now + self.lease_time
        # It counts from when the other side could hear us last, for that is when its patience begins.
        until = self.proven + self.lease_time
        return until if until > now else 0.0

    @property
    def _heeded(self) -> bool:
        """True when there is a way on which the other side should hear us. Where a secondary has no process with a port
        for claims, the primary never goes on alone either.
        """
        return not self._alone and (self.primary or (self.said >= 0 and not self._forced))

    @property
    def takeover(self) -> float:
        """Seconds of silence after which the primary certainly writes no more."""
        lease = self.other.lease_ms / 1000 if self.other is not None else 0.0
        return max(self.timeout, lease * MARGIN)

    # -- hearing and speaking --------------------------------------------------------------------------

    def notice(self, now: float) -> bool:
        """True when this process stood still for so long that permissions ran out and words were missed."""
        gap, self.ran = now - self.ran, max(now, self.ran)
        if gap < self.lease_time:
            return False
        self.stalls += 1
        self.heard = max(self.heard, now)
        self.ear_since = now
        if self.state in WRITES and not self._alone:
            self._ask(now)
        return True

    def _ask(self, now: float) -> None:
        """Write no more before the other side has been heard, or has been silent for long enough. A secondary that had
        the LAN asks as well: a primary that was restarted may have heard nothing meanwhile, and gone on alone.
        """
        self._asked_from = self.count + 1
        self._enter(State.ASKING if self.primary else State.TAKING, now)
        self.again = self._careful = not self.primary

    def _enter(self, state: str, now: float) -> None:
        self.state, self.since, self.again = state, now, False
        self._forced &= state == State.PROMOTED
        self._spoken = float("-inf")

    def hear(self, stand: Stand, now: float) -> str:
        """The other side spoke, or somebody repeats what it said once; which of the two, as `Freshness` judges it. What
        is not news changes nothing, neither who may write nor whether there is silence.
        """
        self.notice(now)
        before = self.other
        verdict = self.fresh.judge(stand, now)
        self._urged |= verdict == UNPROVEN
        if verdict != NEWS:
            return verdict
        self.heard = now
        self.other = stand
        if before is None or before.incarnation != stand.incarnation:
            # Let it know at once that it is believed from now on.
            self._spoken = float("-inf")
        if stand.echo_of == self.incarnation:
            self._prove(stand.echo, now)
        if stand.ask:
            self._spoken = float("-inf")
        if self.primary:
            self._primary_hears(stand, now)
        else:
            self._secondary_hears(stand, now)
        return verdict

    def doubt(self, now: float) -> None:
        """The other side lives, but what it claims cannot be read (it has another secret, or is of another version)."""
        self.notice(now)
        self.heard = now

    def knows(self, incarnation: int) -> bool:
        """True when this is the start of the other side that is believed."""
        return self.fresh.believed == incarnation

    def _primary_hears(self, stand: Stand, now: float) -> None:
        owns = stand.state in (State.TAKING, State.PROMOTED)
        # An odd token that this side knows already was the secondary's before this frame was restarted. And who only
        # asks yields to whoever has the LAN: its own token may be one that it took when nobody could hear it.
        known = stand.fence == self.fence and stand.fence & 1
        if owns and (stand.fence > self.fence or known or self.state == State.ASKING):
            self.fence = max(self.fence, stand.fence)
            self._unclaimed = None
            if self.state not in (State.YIELDING, State.FENCED):
                self._enter(State.YIELDING, now)
        elif self.state == State.ASKING and self.told():
            self.fence = max(self.fence, stand.fence)
            self._enter(State.HOLDING, now)
        elif not owns:
            self.fence = max(self.fence, stand.fence)
            if self.state == State.FENCED:
                self._nobody_has_it(stand, now)

    def _nobody_has_it(self, stand: Stand, now: float) -> None:
        """Fenced, and the other side does not have the LAN either: it was restarted on the way, or since, or each gave
        way to the other. When it has said so for longer than any permission of before can run, ask.
        """
        idle = stand.state in (State.STANDBY, State.FENCED)
        if not idle or self._unclaimed is None or self._unclaimed[0] != stand.incarnation:
            self._unclaimed = (stand.incarnation, now) if idle else None
        elif now >= self._unclaimed[1] + self.takeover:
            self._unclaimed = None
            self.fence += 2 - self.fence % 2
            self._ask(now)

    def _secondary_hears(self, stand: Stand, now: float) -> None:
        owns = stand.state in (State.HOLDING, State.LEAVING, State.ALONE)
        if owns and stand.fence > self.fence and self.state in (State.TAKING, State.PROMOTED):
            # Who had the LAN has gone another way than the primary since.
            had = self.state == State.PROMOTED or self.again
            self._enter(State.FENCED if had else State.STANDBY, now)
        self.fence = max(self.fence, stand.fence)
        if self.state == State.TAKING and stand.state == State.FENCED and stand.fence == self.fence:
            self._enter(State.PROMOTED, now)
        # While it asks, the primary says nothing about what left before.
        if stand.state in (State.LEAVING, State.ALONE):
            self.fit = False
        elif stand.state == State.HOLDING:
            self.fit = stand.protected

    def told(self) -> bool:
        """Primary: true when the other side has heard what was said since the present state began."""
        other = self.other
        return other is not None and other.echo_of == self.incarnation and other.echo >= self._asked_from

    def on_lan(self, count: int, now: float) -> None:
        """Our claim number `count` is out on the LAN."""
        if now - self.said > 3 * self.interval:
            self.ear_since = now
        self.said = now
        self._prove(count, now)

    def _prove(self, count: int, now: float) -> None:
        """The other side has heard our word number `count`, or could have."""
        when = self.fresh.when(count)
        if when is None:
            return
        if self._forced:
            # The other side can hear us again, so the rules hold again.
            self._forced = False
        elif now >= self.proven + self.lease_time and self.state in WRITES and self._heeded:
            # Permissions have run out, for the other side could not hear us: it may have taken over.
            self._ask(now)
        self.proven = max(self.proven, when)

    def due(self, now: float) -> bool:
        """True when it is time to speak."""
        return now >= self._spoken + self._pause

    def compose(self, now: float, *, protected: bool) -> Stand:
        """What is to be said now, on both ways. `protected`: all that leaves is compared."""
        self._spoken, self._urged = now, False
        self.count += 1
        self.fresh.said(self.count, now)
        other = self.other
        return Stand(
            self.side, self.incarnation, self.count, self.fence, self.state,
            protected=protected, ask=self.state in (State.ASKING, State.LEAVING, State.TAKING),
            lease_ms=int(self.lease_time * 1000), echo_of=other.incarnation if other else 0,
            echo=other.count if other else 0, sent_ms=self.fresh.clock(now), answers=self.fresh.answers(now),
        )  # fmt: skip

    # -- time ------------------------------------------------------------------------------------------

    def lost(self, now: float) -> None:
        """Primary: the link between the hosts has been silent for too long."""
        if self.state == State.HOLDING:
            self.fence += 2 - self.fence % 2
            self._asked_from = self.count + 1
            self._enter(State.LEAVING, now)

    def found(self, now: float) -> None:
        """Primary: the link between the hosts speaks again."""
        if self.state in (State.LEAVING, State.ALONE):
            self._enter(State.HOLDING, now)

    def take(self, now: float, *, force: bool = False) -> None:
        """Secondary: the operator wants it to take over, or nobody else is there. Silence of a primary that cannot be
        heard means nothing; `force`: it does to the operator.
        """
        if self.state in (State.STANDBY, State.FENCED):
            self.fence += 1 + self.fence % 2
            self._enter(State.TAKING, now)
            # Where no process has a port for claims there never was an ear.
            self._careful, self._forced = not force and self.said >= 0, force
        elif self.state == State.TAKING and force:
            self._careful, self._forced = False, True

    def silent(self, now: float, *, ear: bool) -> bool:
        """Secondary: has the primary been silent for long enough to have stopped writing? `ear`: count only the
        time for which this side could hear the LAN.
        """
        if not ear:
            return now >= self.heard + self.takeover
        deaf = now - self.said > 3 * self.interval
        return not deaf and now >= max(self.heard, self.ear_since) + self.takeover

    def may_take(self, now: float) -> bool:
        """Secondary: true when it may take over without being asked to."""
        return self.state == State.STANDBY and self.other is not None and self.fit and self.silent(now, ear=True)

    def tick(self, now: float, *, writing: bool) -> None:
        """Let time pass. `writing`: permissions that were given may still run."""
        self.notice(now)
        if self.state == State.ASKING:
            # Silence of the LAN means something only if we have asked there.
            if now >= self.since + self.timeout and self.said >= self.since:
                self.fence += 2 - self.fence % 2
                self._enter(State.ALONE, now)
        elif self.state == State.LEAVING:
            if self.told() or (now >= self.since + GRACE * self.interval and self.said >= self.since):
                self._enter(State.ALONE, now)
        elif self.state == State.YIELDING:
            if not writing:
                self._enter(State.FENCED, now)
        elif self.state == State.TAKING and self.silent(now, ear=self._careful):
            self._enter(State.PROMOTED, now)

    def deadline(self) -> float:
        """When to call `tick`, or to speak."""
        due = [self._spoken + self._pause]
        if self.state in (State.STANDBY, State.TAKING):
            ear = self.state == State.STANDBY or self._careful
            due.append(max(self.heard, self.ear_since if ear else self.heard) + self.takeover)
        elif self.state == State.ASKING:
            due.append(self.since + self.timeout)
        elif self.state == State.LEAVING:
            due.append(self.since + GRACE * self.interval)
        return min((when for when in due if when > self.ran), default=self.ran)

    @property
    def _pause(self) -> float:
        return self.interval / (HURRY if self._urged else URGENT if self.state in _URGENT else 1)

    def learn(self, fence: int, *, promoted: bool, leased: bool, now: float) -> None:
        """A process of this host was told `fence` by an earlier start of this frame. `leased`: and may still write,
        so this side has not been silent for long enough for the other to have taken over.
        """
        other, had = self.other, promoted and not self.primary
        # What the primary has taken back since is not ours any more, whatever a process believes.
        if had and not (other is not None and other.state in WRITES and other.fence > fence):
            if leased and (self.state == State.STANDBY or self.again):
                self._enter(State.PROMOTED, now)
            elif self.state == State.STANDBY:
                self._ask(now)
        self.fence = max(self.fence, fence)
