"""The redirector: one end of a chain, at a tap or at the border between hosts.

::

    netdev ---> Redirector ---> outdev       (its link shares them out by flow if it says split=on)
    netdev <--- Redirector <--- indev
                indev ---> outdev            without a netdev: a relay

On the secondary, after a failover, the client tap takes the place of the link to the other host::

    f1:  standby ---> netdev      before a failover, all frames but claims (`colo_proto.lan`) are dropped
    f2:  netdev ---> standby      and the guest's addresses are announced there
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from colo_proto.core import Log, Output, Port, Send, Way
from colo_proto.frame import Buffer
from colo_proto.lan import CLAIMS, Lan
from colo_proto.messages import Demote, LanSay, Message, Promote
from colo_proto.net.announce import Announcer
from colo_redirector.config import RedirectorConfig


class Redirector:
    """The core. Ports `netdev`, `indev`, `outdev`, `standby`, `claims`."""

    def __init__(self, config: RedirectorConfig) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        # The chain is read only if there is an `outdev`: a tap may be shared with a process that reads it.
        way = Way.BOTH if config.indev and config.outdev else Way.IN if config.outdev else Way.OUT
        self.ports = (
            Port("netdev", way, required=False, doc="the chain: a tap, or a link to the next filter"),
            Port("indev", Way.IN, required=False, doc="frames that enter the chain"),
            Port("outdev", Way.OUT, required=False, doc="frames that leave the chain"),
            Port(
                "standby",
                Way.IN if config.indev else Way.OUT,
                required=False,
                doc="the client tap, after a failover",
                spare=True,
            ),
            CLAIMS,
        )
        self.promoted = False
        self.fence = 0
        self.announcer = Announcer() if config.standby and config.outdev else None
        self._lan = Lan(self.counters) if config.claims else None
        self._into = "netdev" if config.netdev else "outdev"

    def receive(self, port: str, frames: Sequence[Buffer], now: float) -> list[Output]:
        """Send frames from the chain out, and frames from `indev` into the chain."""
        self.counters["frames." + port] += len(frames)
        if port == "standby":
            return self._from_standby(frames, now)
        if self.config.standby:
            if self.announcer is not None:
                self.announcer.learn(frames)
            if self.promoted:
                if port == "netdev":
                    return [Send("standby", frames)]
                self.counters["dropped.promoted"] += len(frames)
                return []
        target = self._into if port == "indev" else "outdev"
        return [Send(target, frames)]

    def _from_standby(self, frames: Sequence[Buffer], now: float) -> list[Output]:
        heard: list[Output] = []
        if self._lan is not None:
            frames, heard = self._lan.sift(frames, now)
        if self.promoted:
            return [Send("netdev", frames), *heard] if frames else heard
        self.counters["dropped.standby"] += len(frames)
        return heard

    def tell(self, message: Message, now: float) -> list[Output]:
        """A promotion or its end, or a claim to send."""
        if isinstance(message, Promote):
            if message.side == "secondary" and self.config.standby and message.fence >= self.fence:
                return self._promote(message, now)
        elif isinstance(message, Demote):
            if self.promoted and message.fence > self.fence:
                self.promoted, self.fence = False, message.fence
                if self.announcer is not None:
                    self.announcer.stop()
                return [Log("warning", "redirector.demoted", {"fence": message.fence})]
        elif isinstance(message, LanSay) and self._lan is not None:
            return self._lan.say(message)
        return []

    def _promote(self, message: Promote, now: float) -> list[Output]:
        before, self.promoted, self.fence = self.promoted, True, message.fence
        if before:
            return []
        outputs: list[Output] = [Log("info", "redirector.promoted", {"fence": message.fence})]
        if self.announcer is not None:
            self.announcer.start(now)
            outputs += self.on_timer(now)
        return outputs

    def deadline(self) -> float | None:
        """When the guest is announced next."""
        return self.announcer.deadline() if self.announcer is not None else None

    def on_timer(self, now: float) -> list[Output]:
        """Announce the guest, a few times after a failover."""
        frames = self.announcer.due(now) if self.announcer is not None else []
        self.counters["announcements"] += len(frames)
        return [Send("standby", frames)] if frames else []

    def drain(self, now: float) -> list[Output]:
        """Nothing is held."""
        return []

    def gauges(self) -> dict[str, int]:
        """1 while the client tap is used in place of the links to the other host."""
        return {"promoted": int(self.promoted)} if self.config.standby else {}

    def status(self) -> dict[str, Any]:
        """Whether the client tap is used, and what a failover announces."""
        known: dict[str, Any] = {}
        if self.config.standby:
            known = {"promoted": self.promoted, "fence": self.fence}
        if self.announcer is not None:
            known["announces"] = self.announcer.status()
        return known
