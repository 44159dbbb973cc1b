"""The mirror: passes every client frame on, and sends a copy of it.

::

    netdev ---> Mirror ---> next      the original, first: the primary never waits for the copy
                 | |
                 | +------> outdev    the copy
                 +--------> claims    claims of the COLO frame for the client LAN (`colo_proto.lan`)

A frame is one immutable `bytes` object, so the copy costs nothing here. When hundreds of clients receive at once, the
windows that they offer are lowered in both (`windows`).

With `roles=change` (symmetric wiring) each host has a mirror. It passes frames on from `Promote` until `Demote`, while
its host leads. At other times it only listens for claims.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from colo_mirror.config import MirrorConfig
from colo_mirror.windows import Windows
from colo_proto.core import Log, Output, Port, Send, Way
from colo_proto.frame import MIN_FRAME, Buffer
from colo_proto.lan import CLAIMS, Lan
from colo_proto.messages import MAX_ASK, Demote, LanAsk, LanSay, Message, Promote
from colo_proto.net.discovery import is_request
from colo_proto.net.packet import dissect
from colo_proto.share import AMPLE


class Mirror:
    """The core. Ports `netdev` in, `next` out, `outdev` out."""

    ports = (
        Port("netdev", Way.IN, required=True, doc="frames of the clients"),
        Port("next", Way.OUT, required=True, doc="the frames, to the primary guest"),
        Port("outdev", Way.OUT, required=True, doc="copies, to the secondary"),
        CLAIMS,
    )

    def __init__(self, config: MirrorConfig) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        self._lan = Lan(self.counters) if config.claims else None
        self.windows = self._new_windows()
        self.leads = config.roles == "fixed"
        self.fence = 0

    def _new_windows(self) -> Windows | None:
        budget = self.config.max_windows_mib << 20
        return Windows(budget, self.counters) if budget else None

    def receive(self, port: str, frames: Sequence[Buffer], now: float) -> list[Output]:
        """Pass `frames` on and copy them."""
        heard: list[Output] = []
        if self._lan is not None:
            frames, heard = self._lan.sift(frames, now)
            if not frames:
                return heard
        if not self.leads:
            self.counters["dropped.standby"] += len(frames)
            return heard
        self.counters["frames"] += len(frames)
        self.counters["bytes"] += sum(map(len, frames))
        windows = self.windows
        if windows is not None:
            windows.share.advance(now)
            frames = [windows.lower(frame) for frame in frames]
        return [Send("next", frames), Send("outdev", frames), *heard]

    def tell(self, message: Message, now: float) -> list[Output]:
        """Send a claim to the LAN, or ask there for a neighbour of the other guest; with `roles=change` this host
        begins to lead, or does not lead any more.
        """
        if isinstance(message, LanSay):
            return self._lan.say(message) if self._lan is not None else []
        if isinstance(message, LanAsk):
            return self._ask(message, now) if self._lan is not None else []
        if self.config.roles == "change":
            if isinstance(message, Promote) and message.fence >= self.fence:
                return self._lead(message.fence, leads=True)
            if isinstance(message, Demote) and message.fence > self.fence:
                return self._lead(message.fence, leads=False)
        return []

    def _lead(self, fence: int, *, leads: bool) -> list[Output]:
        before, self.leads, self.fence = self.leads, leads, fence
        if before == leads:
            return []
        if not leads:
            # What the guests are told of the clients' windows from now on, this mirror does not see.
            self.windows = self._new_windows()
            return [Log("warning", "mirror.demoted", {"fence": fence})]
        return [Log("info", "mirror.promoted", {"fence": fence})]

    def _ask(self, message: LanAsk, now: float) -> list[Output]:
        """Send the request of the other guest, as that of this host would. Nobody else's frame may go out here, and
        none when the other side may have the LAN.
        """
        frame, late = message.frame, not self.leads or now >= message.until
        if late or not MIN_FRAME <= len(frame) <= MAX_ASK or not is_request(dissect(frame)):
            self.counters["asks_refused"] += 1
            return []
        self.counters["neighbours_asked"] += 1
        return [Send("claims", [frame])]

    def deadline(self) -> float | None:
        """A mirror holds nothing."""
        return None

    def on_timer(self, now: float) -> list[Output]:
        """Never due."""
        return []

    def drain(self, now: float) -> list[Output]:
        """Nothing is held."""
        return []

    def gauges(self) -> dict[str, int]:
        """How many connections receive now, and the window that each may have at most (0: not bounded). With
        `roles=change`: 1 while this host leads.
        """
        levels = {"promoted": int(self.leads)} if self.config.roles == "change" else {}
        share = self.windows.share if self.windows is not None else None
        if share is not None:
            levels |= {"active": share.active, "window_bytes": share.bytes if share.bytes < AMPLE else 0}
        return levels

    def status(self) -> dict[str, Any]:
        """With `roles=change`: whether this host leads."""
        return {"promoted": self.leads, "fence": self.fence} if self.config.roles == "change" else {}
