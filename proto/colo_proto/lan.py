"""The frame's ear and voice on the client LAN, inside a filter that has a port there.

::

    client LAN --> filter --> sift --> frames that are no claims
                               |
                               +--> LanHeard --> frame        LanSay --> filter --> `claims` port, LanSaid

The filter does not judge what it hears; the frame does (`colo_proto.claim`).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from colo_proto.claim import ETHERTYPE, MAX_CLAIM, is_claim
from colo_proto.core import Output, Port, Send, Tell, Way
from colo_proto.frame import Buffer
from colo_proto.messages import LanHeard, LanSaid, LanSay

CLAIMS: Final = Port("claims", Way.OUT, required=False, doc="claims to the client LAN go out here", spare=True)
PER_SECOND: Final = 100
"""Claims passed on to the frame; a pair says a few a second, and a flood must not reach it."""


class Lan:
    """See the module; counts in the counters of its filter."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._since = float("-inf")
        self._passed = 0

    def sift(self, frames: Sequence[Buffer], now: float) -> tuple[Sequence[Buffer], list[Output]]:
        """Frames without the claims among them, and what is to be told of those."""
        for frame in frames:
            if frame[22:24] == ETHERTYPE:
                break
        else:
            return frames, []
        heard: list[Output] = []
        for frame in filter(is_claim, frames):
            self._counters["claims_heard"] += 1
            if now - self._since >= 1:
                self._since, self._passed = now, 0
            if len(frame) <= MAX_CLAIM and self._passed < PER_SECOND:
                self._passed += 1
                heard.append(Tell(LanHeard(bytes(frame))))
            else:
                self._counters["claims_ignored"] += 1
        return [frame for frame in frames if not is_claim(frame)], heard

    def say(self, message: LanSay) -> list[Output]:
        """Put a claim on the LAN."""
        self._counters["claims_said"] += 1
        return [Send("claims", [message.frame]), Tell(LanSaid(message.count))]
