"""Whether a guest answers, from how many frames were written to it and how many it has sent.

A guest alone may have nothing to say: a broadcast of somebody else, an acknowledgement. So a guest is called deaf only
when the other one, which gets the same frames, goes on answering::

    written to guest-s    . . . . . . . . .          guest-s is deaf: something was written to it, the other guest has
    guest-s has sent      . .                        spoken, and it has said nothing at all for `DEAF_AFTER` seconds
    guest-p has sent      . . . . . . . . .
                             |<--- silence --->|

It is heard again with the first frame that it sends. Counters come in reports, about once a second, those of the other
host in its heartbeats.
"""

from dataclasses import dataclass
from typing import Final

from colo_frame.verdict import DEGRADED, UNPROTECTED, Cause, Why
from colo_proto.messages import Report

DEAF_AFTER: Final = 3.0
"""Seconds of silence after which a guest counts as deaf; reports of the two hosts may be more than a second apart."""
LONG_DEAF: Final = 10.0
"""Seconds after which a primary does not wait for a secondary guest that is deaf: longer than an overload lasts."""
LEAST: Final = 3
"""Frames that were written to a deaf guest at least, and that the other guest has sent meanwhile."""
GUEST_PORTS: Final = {
    "mirror": ("link.next.frames_out", ""),
    "compare": ("", "link.primary_in.frames_in"),
    "rewriter": ("link.netdev.frames_out", "link.netdev.frames_in"),
}
"""By role, the counters of frames to the guest of the host and from it."""
_FAR: Final = 1 << 62


@dataclass(slots=True)
class Talk:
    """What was written to a guest and what it has sent, since this frame was started."""

    written: int = 0
    sent: int = 0
    alike: bool = False
    """The wiring of both hosts is the same, and a rewriter is at the tap of either guest."""

    def hear_report(self, role: str, before: Report | None, report: Report) -> None:
        """A process of this host has reported; `before` is its last report, None when this is its first."""
        written, sent = GUEST_PORTS.get(role, ("", ""))
        if self.alike and role != "rewriter":
            return
        if before is not None and before.incarnation == report.incarnation:
            self.written += _more(before, report, written)
            self.sent += _more(before, report, sent)


def _more(before: Report, report: Report, counter: str) -> int:
    return max(report.counters.get(counter, 0) - before.counters.get(counter, 0), 0)


@dataclass(slots=True)
class Silence:
    """How long a guest has been silent although it is spoken to and the other guest speaks."""

    written: int = 0
    sent: int = -1
    others: int = 0
    """What was written to it, what it had sent, and what the other guest had sent, when it last spoke."""
    since: float | None = None
    enough: bool = False
    """There was enough to answer, and the other guest has answered."""

    def look(self, guest: Talk, other: Talk, now: float) -> None:
        """Compare the counts of both guests."""
        if guest.sent != self.sent or guest.written < self.written or other.sent < self.others:
            self.sent, self.written, self.others, self.since = guest.sent, guest.written, other.sent, None
        elif self.since is None and guest.written > self.written and other.sent > self.others:
            self.since = now
        self.enough = min(guest.written - self.written, other.sent - self.others) >= LEAST

    def deaf(self, now: float) -> bool:
        """See the module."""
        return self.enough and self.since is not None and now - self.since >= DEAF_AFTER


class Guests:
    """Both guests, as the primary's frame sees them. `host` is the name of this host where roles
    change. A secondary's frame only counts what its own guest says.
    """

    def __init__(self, host: str = "") -> None:
        self._names = ("guest-s", "guest-p") if host == "secondary" else ("guest-p", "guest-s")
        self.ours = Talk(alike=bool(host))
        self.theirs = Talk()
        self._primary = Silence()
        self._secondary = Silence()
        self._incarnation: int | None = None

    def hear_peer(self, written: object, sent: object, incarnation: int, now: float) -> None:
        """The secondary's heartbeat says what was written to its guest, and what that has sent."""
        if type(written) is not int or type(sent) is not int or not (0 <= written < _FAR and 0 <= sent < _FAR):
            return
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._primary, self._secondary = Silence(), Silence()
        self.theirs.written, self.theirs.sent = written, sent
        self._secondary.look(self.theirs, self.ours, now)
        self._primary.look(self.ours, self.theirs, now)

    def causes(self, now: float) -> list[Cause]:
        """The guests that answer nothing."""
        found = []
        if self._secondary.deaf(now):
            found.append(Cause(Why.GUEST, UNPROTECTED, f"{self._names[1]} answers nothing", self._secondary.since))
        if self._primary.deaf(now):
            found.append(Cause(Why.GUEST, DEGRADED, f"{self._names[0]} answers nothing", self._primary.since))
        return found
