"""Client frames that came before the guest's SYN or SYN/ACK, held for a bounded while.

The client answers the *primary's* SYN/ACK; over a fast link its ACK can be here before the secondary
guest has produced its own. Passed on, it would acknowledge a number that the guest never sent and be
answered with a reset. All flows wait equally long, so the one that waits longest heads the queue.
"""

from collections import OrderedDict
from typing import Final

from colo_rewriter.flow import Arrival, Flow

MAX_FRAMES: Final = 4096
MAX_BYTES: Final = 16 * 1024 * 1024
"""Bounds over all flows, against a flood of handshakes that the guest does not answer."""


class Waiting:
    """Frames per flow, in order of arrival."""

    def __init__(self, per_flow: int, seconds: float) -> None:
        self._per_flow = per_flow
        self.usual = self.seconds = seconds
        self._since: OrderedDict[Flow, float] = OrderedDict()
        self.frames = 0
        self.bytes = 0

    def hold(self, flow: Flow, arrival: Arrival, now: float) -> bool:
        """Keep a frame until the flow is taken; False when a bound is reached and it was not kept."""
        size = len(arrival.frame)
        if len(flow.held) >= self._per_flow or self.frames >= MAX_FRAMES or self.bytes + size > MAX_BYTES:
            return False
        if not flow.held:
            self._since[flow] = now
        flow.held.append(arrival)
        self.frames += 1
        self.bytes += size
        return True

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
