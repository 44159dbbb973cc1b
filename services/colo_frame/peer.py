"""The other host's frame, as its heartbeats show it."""

from typing import Any, Final

from colo_proto.messages import Heartbeat

PEER: Final = "peer"
"""The name under which the other host's frame speaks, and is told something."""


class Peer:
    """The peer is alive while heartbeats come, and lost after `timeout` seconds without one."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.last: Heartbeat | None = None
        self.heard = 0.0
        self.alive = False
        self.lost = False
        """It was alive once, and is silent now."""

    def hear(self, beat: Heartbeat, now: float) -> tuple[bool, bool]:
        """Note a heartbeat. Returns whether the peer is new or back, and whether it is another incarnation."""
        appeared = not self.alive
        restarted = self.last is not None and self.last.incarnation != beat.incarnation
        self.last, self.heard = beat, now
        self.alive, self.lost = True, False
        return appeared, restarted

    def excuse(self, now: float) -> None:
        """Count silence from now on: for a while nobody could be heard."""
        self.heard = max(self.heard, now)

    def sweep(self, now: float) -> bool:
        """True when the peer became lost."""
        if self.alive and now >= self.heard + self._timeout:
            self.alive, self.lost = False, True
            return True
        return False

    def silent(self, now: float, since: float) -> bool:
        """True when nothing was heard for the whole timeout, in which somebody has listened (`since` when)."""
        return not self.alive and now >= max(self.heard, since) + self._timeout

    def deadline(self) -> float | None:
        """When the peer is to be taken for lost."""
        return self.heard + self._timeout if self.alive else None

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of the other side. Ages are milliseconds."""
        last = self.last
        state = "alive" if self.alive else "lost" if self.lost else "never seen"
        if last is None:
            return {"alive": False, "state": state}
        return {
            "alive": self.alive,
            "state": state,
            "age_ms": int((now - self.heard) * 1000),
            "role": last.role,
            "epoch": last.epoch,
            "fence": last.fence,
            "mode": last.mode,
            "tenure": last.state,
            "incarnation": last.incarnation,
            **{f"peer_{name}": value for name, value in last.body.items() if isinstance(name, str)},
        }
