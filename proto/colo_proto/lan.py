"""The LAN heartbeat: how a filter with a port on the client LAN sends and receives claims for its COLO frame.

::

    client LAN --> filter --> sift --> frames that are no claims
                               |
                               +--> LanHeard --> frame        LanSay --> filter --> `claims` port, LanSaid

The COLO frame decides whether a claim is believed (`colo_frame.freshness`). But anybody on the LAN can send any number
of frames with our EtherType, also recorded claims. So the filter drops what cannot be new: claims without the pair's
gate (`colo_proto.claim`; the key comes with each `LanSay`), and claims whose speaker has made them before. The rest is
limited for each speaker by itself. Claims of the speaker that our COLO frame believes are not limited, so no flood can
displace them.
"""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from colo_proto.claim import ETHERTYPE, believed_speaker, is_claim, peek
from colo_proto.core import Output, Port, Send, Tell, Way
from colo_proto.frame import Buffer
from colo_proto.messages import LanHeard, LanSaid, LanSay

CLAIMS: Final = Port(
    "claims", Way.OUT, required=False, spare=True,
    doc="the client tap: the COLO frame's claims go out here, and it is told of those that are heard",
)  # fmt: skip
SPEAKERS: Final = 64
"""Incarnations that are remembered, with the highest count of each. Only claims of COLO frames that had the pair's
secret come this far, so an attacker can fill this only with recordings of as many starts.
"""
PER_SPEAKER: Final = 15
"""Claims a second that are passed on of one incarnation that our COLO frame does not believe (yet)."""
STRANGERS: Final = 1000
"""Claims a second that are passed on of all such incarnations together."""


@dataclass(slots=True)
class _Speaker:
    count: int = -1
    since: float = float("-inf")
    passed: int = 0


class Lan:
    """See the module. It counts in `counters`, those of its filter."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._gates: Sequence[bytes] = ()
        self._believed = 0
        self._speakers: OrderedDict[int, _Speaker] = OrderedDict()
        self._strangers = _Speaker()

    def sift(self, frames: Sequence[Buffer], now: float) -> tuple[Sequence[Buffer], list[Output]]:
        """Separate `frames` from the claims among them. Returns the frames, and what the COLO frame is to be told."""
        for frame in frames:
            if frame[22:24] == ETHERTYPE:
                break
        else:
            return frames, []
        heard: list[Output] = []
        for frame in filter(is_claim, frames):
            self._counters["claims_heard"] += 1
            ignored = self._ignored(frame, now)
            if ignored:
                self._counters[ignored] += 1
            else:
                heard.append(Tell(LanHeard(bytes(frame))))
        return [frame for frame in frames if not is_claim(frame)], heard

    def _ignored(self, frame: Buffer, now: float) -> str:
        """The name of the counter for the reason why a claim is not passed on; empty when it is passed on."""
        found = peek(frame, self._gates)
        if found is None:
            return "claims_ignored.junk"
        _, incarnation, count = found
        one = self._speakers.get(incarnation)
        if one is not None and count <= one.count:
            return "claims_ignored.repeated"
        if incarnation != self._believed:
            one = one or _Speaker()
            if not (_within_limit(one, PER_SPEAKER, now) and _within_limit(self._strangers, STRANGERS, now)):
                return "claims_ignored.too_many"
            one.passed += 1
            self._strangers.passed += 1
        self._speakers[incarnation] = one = one or _Speaker()
        one.count = count
        self._speakers.move_to_end(incarnation)
        if len(self._speakers) > SPEAKERS:
            self._speakers.pop(next(known for known in self._speakers if known != self._believed))
        return ""

    def say(self, message: LanSay) -> list[Output]:
        """Send a claim to the LAN, and tell the COLO frame that it was sent."""
        self._counters["claims_said"] += 1
        self._gates = message.gates
        self._believed = believed_speaker(message.frame)
        return [Send("claims", [message.frame]), Tell(LanSaid(message.count))]


def _within_limit(one: _Speaker, most: int, now: float) -> bool:
    if now - one.since >= 1:
        one.since, one.passed = now, 0
    return one.passed < most
