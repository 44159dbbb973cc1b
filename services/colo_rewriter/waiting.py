"""Client frames that came before the guest's SYN or SYN/ACK, held for a bounded while.

The client answers the *primary's* SYN/ACK; over a fast link its ACK can be here before the secondary
guest has produced its own. Passed on, it would acknowledge a number that the guest never sent and be
answered with a reset. All flows wait equally long, so the one that waits longest heads the queue.
"""

from collections import OrderedDict
from typing import Final

from colo_proto.seq import diff
from colo_rewriter.believable import pure
from colo_rewriter.flow import Arrival, Flow

MAX_FRAMES: Final = 4096
MAX_BYTES: Final = 16 * 1024 * 1024
"""Bounds over all flows, against a flood of handshakes that the guest does not answer."""
WIDER: Final = 4
"""So many times as much where the guest is not waited for, and `MAX_FRAMES` of a flow: its client is well ahead."""


class Waiting:
    """Frames per flow, in order of arrival."""

    def __init__(self, per_flow: int, seconds: float) -> None:
        self._per_flow = self._usual_per_flow = per_flow
        self._wider = 1
        self.usual = self.seconds = seconds
        self._since: OrderedDict[Flow, float] = OrderedDict()
        self.frames = 0
        self.bytes = 0

    def widen(self, seconds: float, *, on: bool) -> None:
        """Wait for at least `seconds`, and keep more, or as usual again."""
        self.seconds = max(self.usual, seconds) if on else self.usual
        self._per_flow = max(self._usual_per_flow, MAX_FRAMES) if on else self._usual_per_flow
        self._wider = WIDER if on else 1

    def hold(self, flow: Flow, arrival: Arrival, now: float) -> bool:
        """Keep a frame until the flow is taken; False when a bound is reached and it was not kept."""
        size = len(arrival.frame)
        wider = self._wider
        if (
            len(flow.held) >= self._per_flow
            or self.frames >= MAX_FRAMES * wider
            or self.bytes + size > MAX_BYTES * wider
        ):
            return False
        if not flow.held:
            self._since[flow] = now
        flow.held.append(arrival)
        self.frames += 1
        self.bytes += size
        return True

    def merge(self, flow: Flow, arrival: Arrival) -> bool:
        """Let an ACK stand for the one before it, if neither says anything else. The first stays, for it is that of the
        handshake.
        """
        if len(flow.held) < 2 or not pure(arrival):
            return False
        last = flow.held[-1]
        if not pure(last) or last.segment.seq != arrival.segment.seq:
            return False
        if diff(arrival.segment.ack, last.segment.ack) >= 0:
            self.swap(flow, arrival)
        return True

    def swap(self, flow: Flow, arrival: Arrival) -> Arrival:
        """Keep a frame in the place of the flow's last one, which it gives back."""
        last, flow.held[-1] = flow.held[-1], arrival
        self.bytes += len(arrival.frame) - len(last.frame)
        return last

    def take(self, flow: Flow) -> list[Arrival]:
        """The flow's frames in order; it holds none afterwards."""
        frames = flow.held
        if frames:
            flow.held = []
            del self._since[flow]
            self.frames -= len(frames)
            self.bytes -= sum(len(held.frame) for held in frames)
        return frames

    def overdue(self, now: float) -> list[Flow]:
        """Flows that have waited long enough (still holding their frames)."""
        late = []
        for flow, since in self._since.items():
            if since + self.seconds > now:
                break
            late.append(flow)
        return late

    def all(self) -> list[Flow]:
        """Every flow that holds frames."""
        return list(self._since)

    def deadline(self) -> float | None:
        """When the first flow has waited long enough."""
        if not self._since:
            return None
        return next(iter(self._since.values())) + self.seconds
