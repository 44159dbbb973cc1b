"""Decides which side of the pair may write to the client LAN, so that never two do. Pure: no I/O, no clock.

`colo_frame.transitions` has the states and what changes them, as one table for each side. This module decides which
event of a table has happened: `hear` from a claim of the other side, `tick` from time that has passed, and the other
methods from orders and from what processes say.

**Fencing tokens** (`fence`) order promotions. The primary takes even numbers and the secondary odd ones. Each takes the
next number above all that it has seen, so no two are equal. A side that hears of a higher one stops writing.

**Leases**: the filters of a host may write for a time that is shorter than the silence after which the other side may
take over. It is measured on the host's own clock, so the lease also ends in a process that is stopped. It begins when
the other side could last hear us. A side that did not run for as long as a lease (it stalled), or that could not be
heard for as long, does not know what has happened meanwhile, so it asks before it grants leases again. So does a side
that an earlier start of this frame promoted, unless a lease of that time is still valid.

**Two ways to hear the other side**: the link between the hosts, and the client LAN (the LAN heartbeat,
`colo_proto.claim`). On both, only a message that proves to be new counts (`colo_frame.freshness`): a recording is no
sign of life. The secondary takes over by itself only when both ways were silent while its own LAN heartbeat worked, and
when the primary has last said that everything it had sent was compared. So it does when the primary's host is dead, and
not when only the link is cut, because then it hears the primary on the LAN. No rule for two sides can tell a dead host
from one that is cut off on both ways. A third vote can (`colo_frame.thirdvote`): with it a side writes only while that
permits it. Where roles change, `colo_frame.changing` follows another table.
"""

from abc import ABC, abstractmethod

from colo_frame import timing, transitions
from colo_frame.freshness import NEWS, UNPROVEN, Freshness
from colo_frame.thirdvote import ThirdVote
from colo_frame.transitions import ASKS, FIRST, IDLE, TABLES, TOKEN, WRITING, On
from colo_proto.claim import Stand, State


class Leadership(ABC):
    """See the module. Times are monotonic seconds. Methods that take `now` first check whether this process stalled.

    `interval` is the time between two heartbeats, `timeout` the silence that counts as death, and `peer` tells whether
    there is another side at all.
    """

    def __init__(
        self, side: str, incarnation: int, interval: float, timeout: float, now: float, *, peer: bool, vote: bool
    ) -> None:
        self.side = side
        self.even = self.primary = side == "primary"
        self.incarnation = incarnation
        self.interval = interval
        self.timeout = timeout
        self.lease_time = timeout * timing.LEASE_PART
        self.fence = 0
        """The highest fencing token that this side has seen or taken."""
        self.count = 0
        """How many claims this side has made."""
        self.heard = now
        """When the other side last spoke on either way, or since when this side could have heard it."""
        self.other: Stand | None = None
        """The newest claim of the other side that was believed."""
        self.promotable = False
        """Secondary: the primary has last said that everything it sent was compared, so this guest is a replica."""
        self.lan_sent = float("-inf")
        """When a filter last told us that it has sent a claim of ours to the LAN: our LAN heartbeat works."""
        self.lan_since = now
        """Since when the LAN heartbeat has worked without a break."""
        self.lan_dropped_at = float("-inf")
        """When the kernel had last dropped frames that our LAN heartbeat should have heard: silence proves nothing."""
        self.reached = now
        """When we made the latest claim that the other side has heard, or that was sent to the LAN."""
        self.ran = now
        """When this process last did something."""
        self.since = now
        """When the present state began."""
        self.stalls = 0
        self.had_lan = False
        """Secondary in TAKING: it had the LAN before, and does not know whether it still has it."""
        self._lan_required = False
        """TAKING: silence of the primary counts only while our own LAN heartbeat works."""
        self._forced = False
        """The operator wants this side to write although the other side cannot hear it on the LAN."""
        self._vacant: tuple[int, float] | None = None
        """Primary in FENCED: which start of the other side says that it does not have the LAN, and since when."""
        self.vote = ThirdVote(side, incarnation, timeout, self.lease_time, now) if vote else None
        self._single = not peer
        self._asked_from = 1
        """Only an answer to a claim with this number or a higher one proves anything."""
        self._spoke = float("-inf")
        """When we last made a claim; minus infinity when the next one is due at once."""
        self._proof_wanted = False
        """A speaker was heard that needs a claim of ours to prove who it is."""
        self.fresh = Freshness(incarnation, timeout * timing.BELIEVED_PART, now)
        self._table = TABLES[side]
        self.state = State.ALONE if self.primary and not peer else FIRST[side]
        self.began = ""
        """Where roles change: the event by which this side began to lead last."""
        self.because = ""
        """The event that brought this side into its present state; empty at the start."""

    # -- what may be written -------------------------------------------------------------------------

    def lease(self, now: float) -> float:
        """Until when the filters of this host may write to the client LAN; 0 when they may not."""
        self.notice_stall(now)
        if self.state not in WRITING:
            return 0.0
        # The other side begins to wait when it last could hear us, so the lease begins then.
        until = min((self.reached if self._audible else now) + self.lease_time, self.permitted_until)
        return until if until > now else 0.0

    @property
    def permitted_until(self) -> float:
        """Until when the third vote lets this side write; infinity where there is none."""
        return self.vote.permits_until if self.vote is not None else float("inf")

    def take_token(self, least: int) -> None:
        """The token of the third vote: ours is not lower. It is even on the primary and odd on the secondary."""
        own = least + (not self.even)
        if self.fence < own:
            self.fence, self._spoke = own, float("-inf")

    @property
    @abstractmethod
    def _audible(self) -> bool:
        """True when the other side should be able to hear us."""

    @property
    def takeover_after(self) -> float:
        """Seconds of silence after which the primary has certainly stopped writing."""
        lease = self.other.lease_ms / 1000 if self.other is not None else 0.0
        return max(self.timeout, lease * timing.LEASE_MARGIN)

    # -- hearing and speaking --------------------------------------------------------------------------

    def notice_stall(self, now: float) -> bool:
        """True when this process did not run for so long that leases ended and messages were missed."""
        gap, self.ran = now - self.ran, max(now, self.ran)
        if gap < self.lease_time:
            return False
        self.stalls += 1
        self.heard = max(self.heard, now)
        self.lan_since = now
        if not self._single:
            self._happen(On.UNSURE, now)
        return True

    def _happen(self, event: str, now: float) -> bool:
        """Follow the table: an event that it does not have for the present state changes nothing (False)."""
        row = self._table.get((self.state, event))
        if row is None:
            return False
        if TOKEN in row.besides:
            self._next_token()
        asks = ASKS in row.besides
        if asks:
            self._asked_from = self.count + 1
        self.state, self.since, self.because = row.next, now, event
        # A primary that was restarted may have heard nothing of us and gone on alone: count the silence we could hear.
        self.had_lan = self._lan_required = asks and row.next == State.TAKING
        self._forced &= row.next in WRITING
        self._spoke = float("-inf")
        return True

    def _next_token(self) -> None:
        """Take the next token above all that were seen."""
        self.fence += 2 - (self.fence + (not self.even)) % 2

    def hear(self, stand: Stand, now: float) -> str:
        """A claim of the other side was heard. Returns how `Freshness` judges it. One that is no news changes nothing:
        neither who may write nor how long the other side has been silent.
        """
        self.notice_stall(now)
        before = self.other
        verdict = self.fresh.judge(stand, now)
        self._proof_wanted |= verdict == UNPROVEN
        if verdict != NEWS:
            return verdict
        self.heard = now
        self.other = stand
        if stand.ask or before is None or before.incarnation != stand.incarnation:
            # It waits for our answer, or should know at once that it is believed.
            self._spoke = float("-inf")
        if stand.echo_of == self.incarnation:
            self._note_reached(stand.echo, now)
        if self.vote is not None:
            when = self.fresh.when(stand.echo) if stand.agrees and stand.echo_of == self.incarnation else None
            self.vote.agreed(when, idle=stand.state in IDLE)
        self._hears(stand, now)
        return verdict

    @abstractmethod
    def _hears(self, stand: Stand, now: float) -> None:
        """What follows from a claim that is news."""

    def hear_unreadable(self, now: float) -> None:
        """The other side is alive, but its claim cannot be read: it has another secret, or another version."""
        self.notice_stall(now)
        self.heard = now

    def _hear_vacant(self, stand: Stand, now: float) -> None:
        """Fenced, and the other side does not have the LAN either: it was restarted meanwhile, or each gave way to the
        other. When it has said so for longer than any earlier lease can last, ask for the LAN.
        """
        idle = stand.state in IDLE
        if not idle or self._vacant is None or self._vacant[0] != stand.incarnation:
            self._vacant = (stand.incarnation, now) if idle else None
        elif now >= self._vacant[1] + self.takeover_after:
            self._vacant = None
            self._happen(On.VACANT, now)

    def acknowledged(self) -> bool:
        """True when the other side has heard a claim that we made since we asked."""
        other = self.other
        return other is not None and other.echo_of == self.incarnation and other.echo >= self._asked_from

    def _answered(self) -> bool:
        """ASKING: the other side has heard what was asked, and does not have the LAN."""
        return self.acknowledged()

    @property
    def replica(self) -> bool:
        """Whether the guest of this side could continue when the side was promoted."""
        return self.promotable

    def claim_sent(self, count: int, now: float) -> None:
        """A filter has sent our claim number `count` to the LAN."""
        if not self.lan_works(now):
            self.lan_since = now
        self.lan_sent = now
        self._note_reached(count, now)

    def _note_reached(self, count: int, now: float) -> None:
        """The other side has heard our claim number `count`, or could have heard it."""
        when = self.fresh.when(count)
        if when is None:
            return
        if self._forced:
            # The other side can hear us again, so the ordinary rules hold again.
            self._forced = False
        elif now >= self.reached + self.lease_time and self._audible:
            # The other side could not hear us until our leases ended, so it may have taken over.
            self._happen(On.UNSURE, now)
        self.reached = max(self.reached, when)

    def claim_due(self, now: float) -> bool:
        """True when it is time to make the next claim."""
        return now >= self._spoke + self._pause

    def compose(self, now: float, *, protected: bool, writing: bool) -> Stand:
        """The claim to be made now, on both ways. `protected`: everything that is released has been compared.
        `writing`: leases that were granted may still be valid.
        """
        self._spoke, self._proof_wanted = now, False
        self.count += 1
        self.fresh.said(self.count, now)
        other = self.other
        return Stand(
            self.side, self.incarnation, self.count, self.fence, self.state,
            protected=protected, ask=self._wants_answer(now),
            lease_ms=int(self.lease_time * 1000), echo_of=other.incarnation if other else 0,
            echo=other.count if other else 0, sent_ms=self.fresh.clock(now), vote=self.vote is not None,
            agrees=self.vote is not None and self.vote.may_agree(self.state, now, writing=writing),
            answers=self.fresh.answers(now),
        )  # fmt: skip

    # -- time ------------------------------------------------------------------------------------------

    def peer_lost(self, now: float) -> None:
        """Who leads: the link between the hosts has been silent for too long."""
        self._happen(On.LINK_LOST, now)

    def peer_found(self, now: float) -> None:
        """Primary: the secondary speaks on the link between the hosts again."""
        self._happen(On.LINK_BACK, now)

    def take_over(self, now: float, event: str = On.ORDERED, *, force: bool = False) -> None:
        """Secondary: ask for the LAN, because the operator says so or the primary seems dead. While we could not hear
        the primary on the LAN, its silence proves nothing, unless the operator says so with `force`.
        """
        if (self.state, event) in self._table:
            self._happen(event, now)
            # Without a process that can send claims to the LAN there has never been a LAN heartbeat to require.
            self._lan_required, self._forced = not force and self.lan_sent >= 0, force
        elif self.state == State.TAKING and force:
            self._lan_required, self._forced = False, True

    def lan_works(self, now: float) -> bool:
        """True when our LAN heartbeat works: a claim of ours was sent there a short while ago."""
        return now - self.lan_sent <= timing.LAN_MISSED * self.interval

    def silent(self, now: float, *, lan_required: bool) -> bool:
        """Secondary: has the primary been silent for so long that it must have stopped writing? `lan_required`: count
        only the time in which our own LAN heartbeat worked.
        """
        return (not lan_required or self.lan_works(now)) and now >= self._silence_due(lan_required=lan_required)

    def _silence_due(self, *, lan_required: bool) -> float:
        """When the primary will have been silent for long enough, if nothing is heard until then."""
        since = max(self.heard, self.lan_since, self.lan_dropped_at) if lan_required else self.heard
        return since + self.takeover_after

    def may_take_over(self, now: float) -> bool:
        """Secondary: true when it may take over without an order."""
        return self.ready(now) and now < self.permitted_until

    def ready(self, now: float) -> bool:
        """Secondary: true when nothing but the third vote can keep it from taking over without an order."""
        standby = self.state == State.STANDBY and self.other is not None
        return standby and self.promotable and self.silent(now, lan_required=True)

    def tick(self, now: float, *, writing: bool) -> None:
        """Do what is due at `now`. `writing`: leases that were granted may still be valid."""
        self.notice_stall(now)
        permitted = now < self.permitted_until
        if not permitted:
            self._happen(On.UNVOTED, now)
        if self.state == State.YIELDING and not writing:
            self._happen(On.STOPPED, now)
        elif self.state == State.LEAVING:
            announced = now >= self.since + timing.LEAVING_INTERVALS * self.interval and self.lan_sent >= self.since
            # Alone, we release what no secondary has seen. It must know that, or be able to read it in the store.
            if (announced and (self.vote is None or self.vote.noted)) or self.acknowledged():
                self._happen(On.ANNOUNCED, now)
        elif self.state == State.ASKING and permitted:
            if self.vote is not None and self._answered():
                self._happen(On.ANSWERED, now)
            # Silence on the LAN proves something only if our question was sent there and no answer was dropped.
            elif self.asked_in_vain(now) and (self.vote is None or self.vote.noted):
                self._happen(On.UNANSWERED, now)
        elif self.state == State.TAKING and permitted:
            if self.silent(now, lan_required=self._lan_required):
                self._happen(On.SILENT, now)
            elif self.vote is not None:
                self._take_with_vote(self.vote, now)

    def _take_with_vote(self, vote: ThirdVote, now: float) -> None:
        """Secondary in TAKING that has just got the third vote: what it waited for besides may have come before."""
        other = self.other
        if other is not None and (other.state, other.fence) == (State.FENCED, self.fence) and self.acknowledged():
            self._happen(On.YIELDED, now)
        elif self.had_lan and vote.remembers(now):
            self._happen(On.REMEMBERED, now)

    def deadline(self) -> float:
        """When to call `tick`, or to make the next claim."""
        due = [self._spoke + self._pause]
        if self.state in WRITING:
            due.append(self.permitted_until)
        if self.state in (State.STANDBY, State.TAKING):
            due.append(self._silence_due(lan_required=self.state == State.STANDBY or self._lan_required))
        elif self.state == State.ASKING:
            due.append(self._asked_in_vain_at)
        elif self.state == State.LEAVING:
            due.append(self.since + timing.LEAVING_INTERVALS * self.interval)
        return min((when for when in due if when > self.ran), default=self.ran)

    def asked_in_vain(self, now: float) -> bool:
        """Primary in ASKING: nobody has answered for long enough, although our question was sent to the LAN."""
        return now >= self._asked_in_vain_at and self.lan_sent >= self.since

    @property
    def _asked_in_vain_at(self) -> float:
        """Primary in ASKING: when nobody has answered for long enough, if nobody does until then."""
        return max(self.since, self.lan_dropped_at) + self.timeout

    @property
    def _pause(self) -> float:
        """Seconds from our last claim to the next."""
        waits = self.state == State.YIELDING or self._wants_answer(self.ran)
        return self.interval / (timing.PROOF_RATE if self._proof_wanted else timing.WAITING_RATE if waits else 1)

    def _wants_answer(self, now: float) -> bool:
        agreed = self.vote is not None and self.state in WRITING and not self.vote.held(now)
        return agreed or self.state in transitions.ANSWER_WANTED

    @abstractmethod
    def restore(self, fence: int, *, promoted: bool, leased: bool, now: float) -> None:
        """A process had heard of `fence` from an earlier start of this frame, which had perhaps promoted it.
        `leased`: its lease is still valid, so the other side cannot have taken over meanwhile.
        """
