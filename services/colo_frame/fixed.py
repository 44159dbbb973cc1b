"""The leadership where the host `primary` leads and a failover happens once: a table for each side. Pure."""

from colo_frame import transitions
from colo_frame.leadership import Leadership
from colo_frame.transitions import WRITING, On
from colo_proto.claim import Stand, State


class FixedLeadership(Leadership):
    """See the module, and `Leadership` for the arguments."""

    @property
    def _audible(self) -> bool:
        """True when the other side should be able to hear us. A secondary that can send no claims to the LAN is not
        audible: there the primary never goes on alone either.
        """
        return not self._single and (self.primary or (self.lan_sent >= 0 and not self._forced))

    def _hears(self, stand: Stand, now: float) -> None:
        (self._primary_hears if self.primary else self._secondary_hears)(stand, now)

    def _primary_hears(self, stand: Stand, now: float) -> None:
        owns = stand.state in transitions.SECONDARY_OWNS
        # An odd token that this side knows already was the secondary's before this frame was restarted. A side that
        # only asks yields to the owner of the LAN: it may have taken its own token when nobody could hear it.
        known = stand.fence == self.fence and stand.fence & 1
        if owns and (stand.fence > self.fence or known or self.state == State.ASKING):
            self.fence = max(self.fence, stand.fence)
            self._vacant = None
            self._happen(On.SUPERSEDED, now)
        elif self.state == State.ASKING and self.acknowledged() and now < self.permitted_until:
            self.fence = max(self.fence, stand.fence)
            self._happen(On.ANSWERED, now)
        elif not owns:
            self.fence = max(self.fence, stand.fence)
            if self.state == State.FENCED:
                self._hear_vacant(stand, now)

    def _secondary_hears(self, stand: Stand, now: float) -> None:
        owns = stand.state in transitions.PRIMARY_WRITES
        if owns and stand.fence > self.fence and self.state in transitions.SECONDARY_OWNS:
            # If this side had the LAN, its guest is no replica of the primary's any more.
            had = self.state == State.PROMOTED or self.had_lan
            self._happen(On.DEPOSED if had else On.OUTRANKED, now)
        self.fence = max(self.fence, stand.fence)
        if stand.state == State.FENCED and stand.fence == self.fence and now < self.permitted_until:
            self._happen(On.YIELDED, now)
        # A primary that asks says nothing about what it released before.
        if owns:
            self.promotable = stand.state == State.HOLDING and stand.protected

    def restore(self, fence: int, *, promoted: bool, leased: bool, now: float) -> None:
        """A process had heard of `fence` from an earlier start of this frame, which had perhaps promoted it.
        `leased`: its lease is still valid, so the other side cannot have taken over meanwhile.
        """
        other, had = self.other, promoted and not self.primary
        # What the primary has taken back since then is not ours any more, whatever a process remembers.
        if had and not (other is not None and other.state in WRITING and other.fence > fence):
            if leased and self.vote is None and (self.state == State.STANDBY or self.had_lan):
                self._happen(On.REMEMBERED, now)
            elif self.state == State.STANDBY:
                self._happen(On.REMEMBERED_LATE, now)
            if leased and self.vote is not None:
                self.vote.remember(now)
        self.fence = max(self.fence, fence)
