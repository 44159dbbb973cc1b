"""The other host's frame, as its heartbeats show it."""

from dataclasses import dataclass
from typing import Any, Final

from colo_frame.transitions import WRITING
from colo_frame.verdict import Cause, Verdict, cause_status
from colo_proto.messages import Heartbeat

PEER: Final = "peer"
"""The name under which the other host's frame speaks, and is told something."""


@dataclass(slots=True)
class Peer:
    """The peer is alive while heartbeats come, and lost after `timeout` seconds without one."""

    timeout: float
    last: Heartbeat | None = None
    heard: float = 0.0
    alive: bool = False
    told: Verdict | None = None
    """Its last verdict on the pair."""
    broken: tuple[Cause, ...] = ()
    """What it says is broken on its host."""

    def hear(self, beat: Heartbeat, now: float) -> tuple[bool, bool]:
        """Note a heartbeat. Returns whether the peer is new or back, and whether it is another incarnation."""
        appeared = not self.alive
        restarted = self.last is not None and self.last.incarnation != beat.incarnation
        self.last, self.heard, self.alive = beat, now, True
        return appeared, restarted

    def excuse(self, now: float) -> None:
        """Measure silence from `now` on, because before that nobody could be heard."""
        self.heard = max(self.heard, now)

    def sweep(self, now: float) -> bool:
        """True when the peer has just become lost."""
        lost = self.alive and now >= self.heard + self.timeout
        self.alive &= not lost
        return lost

    def silent(self, now: float, since: float) -> bool:
        """True when nothing was heard for the whole timeout. Only the time after `since` counts."""
        return not self.alive and now >= max(self.heard, since) + self.timeout

    def deadline(self) -> float | None:
        """When the peer will be lost, if it stays silent."""
        return self.heard + self.timeout if self.alive else None

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of the other side. Ages are milliseconds."""
        last = self.last
        state = {"alive": self.alive, "state": "alive" if self.alive else "lost" if last else "never seen"}
        if last is None:
            return state
        return {
            **state,
            "age_ms": int((now - self.heard) * 1000),
            **{name: getattr(last, name) for name in ("role", "epoch", "fence", "mode", "incarnation")},
            "leadership": last.state,
            "writes": last.state in WRITING,
            "broken": [cause_status(one, now) for one in self.broken],
            **{f"peer_{name}": value for name, value in last.body.items() if isinstance(name, str)},
        }
