"""The leadership where roles change: both hosts follow one table, and which of them leads is a state. Pure.

`side` is the name of the host here. It says who leads at the very beginning (the host `primary` asks for the LAN, the
host `secondary` waits), and whose tokens are even. Everything else follows from the state.

**Rank.** A side outranks the other one with a higher token. A token that both know belongs to the host of its parity.
A side that writes has a token of its own: when it hears a higher one from a side that does not want the LAN, it takes
the next one. So a token of the other host that a side knows when it starts shows that the other one has led last.
"""

from colo_frame.leadership import Leadership
from colo_frame.transitions import EITHER, FOLLOWING, IDLE, TABLES, WRITING, On
from colo_proto.claim import Stand, State


class ChangingLeadership(Leadership):
    """See the module, and `Leadership` for the arguments."""

    def __init__(
        self, side: str, incarnation: int, interval: float, timeout: float, now: float, *, peer: bool, vote: bool
    ) -> None:
        super().__init__(side, incarnation, interval, timeout, now, peer=peer, vote=vote)
        self._table = TABLES[EITHER]
        self.primary = self.state not in FOLLOWING
        self._replica = True
        self._followed = not self.primary
        """This side has not led since it was `standby` last."""

    @property
    def replica(self) -> bool:
        """Whether the guest of this side could continue when the side began to lead."""
        return self._replica

    @property
    def _audible(self) -> bool:
        """True when the other side should be able to hear us."""
        return not self._single and not self._forced

    @property
    def _owns_token(self) -> bool:
        """The highest token that is known is one of this host."""
        return self.fence % 2 == (not self.even)

    def _outranked(self, stand: Stand) -> bool:
        return stand.fence > self.fence or (stand.fence == self.fence and not self._owns_token)

    def _happen(self, event: str, now: float) -> bool:
        """Follow the table, and note what the change means for the role."""
        before, led = self.state, self.primary
        if not super()._happen(event, now):
            return False
        self._vacant = None
        self.primary = self.state not in FOLLOWING
        if self.primary and not led:
            self.began = event
            self._followed &= event != On.LED
        if self.state == State.STANDBY:
            self._followed, self.promotable = True, False
        elif self.state in WRITING and before not in WRITING:
            self._replica = not self._followed or self.promotable
            self._followed = self.promotable = False
        self._keep_own()
        return True

    def _keep_own(self) -> None:
        """A side that writes has a token of its own."""
        if self.state in WRITING and not self._owns_token:
            self._next_token()
            self._spoke = float("-inf")

    def _hears(self, stand: Stand, now: float) -> None:
        outranked = self._outranked(stand)
        if stand.state in WRITING or stand.state == State.TAKING:
            self._vacant = None
            if self.state == State.ASKING or (self.state in WRITING and outranked):
                self._happen(On.SUPERSEDED, now)
            elif self.state == State.TAKING and outranked:
                self._happen(On.OUTRANKED, now)
            elif self.state == State.FENCED and outranked and stand.state in WRITING:
                self._happen(On.SUCCEEDED, now)
        elif stand.state == State.ASKING and self.state == State.ASKING and outranked:
            self._happen(On.SUPERSEDED, now)
        self.fence = max(self.fence, stand.fence)
        self._keep_own()
        if stand.state == State.FENCED and self.state in WRITING:
            # It follows as soon as it hears who writes.
            self._spoke = float("-inf")
        if stand.state in WRITING and self.state not in WRITING:
            # A side that asks says nothing about what it released before.
            self.promotable = stand.state == State.HOLDING and stand.protected
        if now < self.permitted_until or self.state in IDLE:
            self._hear_idle(stand, now)

    def _hear_idle(self, stand: Stand, now: float) -> None:
        """The other side may have said that it does not have the LAN."""
        if self.state == State.ASKING and self._answered():
            self._happen(On.ANSWERED, now)
        elif self.state == State.TAKING and (stand.state, stand.fence) == (State.FENCED, self.fence):
            self._happen(On.YIELDED, now)
        elif self.state in IDLE or (self.acknowledged() and stand.fence == self.fence):
            self._hear_vacant(stand, now)

    def _answered(self) -> bool:
        """ASKING: the other side has heard what was asked, does not have the LAN, and has not led after this one. If it
        has, a process of its host may still remember that, so it must say for a while that it is not so.
        """
        other = self.other
        return other is not None and other.state in IDLE and self._owns_token and self.acknowledged()

    def restore(self, fence: int, *, promoted: bool, leased: bool, now: float) -> None:
        """A process had heard of `fence` from an earlier start of this frame, which had led if it was `promoted` or if
        its lease is still valid. What the other side has taken since then is not ours any more.
        """
        latest = fence >= self.fence or self._owns_token
        self.fence = max(self.fence, fence)
        other = self.other
        taken = other is not None and (other.state in WRITING or other.state == State.TAKING)
        if (promoted or leased) and latest and not taken:
            self._happen(On.LED, now)
        self._keep_own()
