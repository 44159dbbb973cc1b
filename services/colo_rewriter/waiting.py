"""Client frames that came before the guest's SYN or SYN/ACK, held for a bounded time.

The client answers the *primary's* SYN/ACK. Over a fast link its ACK can be here before the secondary guest has
produced its own SYN/ACK. Passed on, it would acknowledge a number that the guest never sent, and be answered with a
reset.
"""

from typing import Final

from colo_rewriter.flow import Arrival, Flow
from colo_rewriter.segments import merged_ack
from colo_rewriter.timer import Timer

MAX_FRAMES: Final = 4096
MAX_BYTES: Final = 16 * 1024 * 1024
"""Bounds over all flows, against a flood of handshakes that the guest does not answer."""
WIDER: Final = 4
"""So many times as much in shadow mode, and `MAX_FRAMES` of a flow: its client is well ahead."""


class Waiting:
    """Frames per flow, in order of arrival."""

    def __init__(self, per_flow: int, seconds: float) -> None:
        self._per_flow = self._usual_per_flow = per_flow
        self._wider = 1
        self._usual_seconds = seconds
        self.timer = Timer(seconds)
        self.frames = 0
        self.bytes = 0

    def widen(self, seconds: float, *, on: bool) -> None:
        """Wait for at least `seconds`, and keep more, or as usual again."""
        self.timer.seconds = max(self._usual_seconds, seconds) if on else self._usual_seconds
        self._per_flow = max(self._usual_per_flow, MAX_FRAMES) if on else self._usual_per_flow
        self._wider = WIDER if on else 1

    def hold(self, flow: Flow, arrival: Arrival, now: float) -> bool:
        """Keep a frame until the flow is taken; False when a bound is reached and it was not kept."""
        size = len(arrival.frame)
        if (
            len(flow.held) >= self._per_flow
            or self.frames >= MAX_FRAMES * self._wider
            or self.bytes + size > MAX_BYTES * self._wider
        ):
            return False
        if not flow.held:
            self.timer.start(flow, now)
        flow.held.append(arrival)
        self.frames += 1
        self.bytes += size
        return True

    def merge(self, flow: Flow, arrival: Arrival) -> bool:
        """Keep one of this pure ACK and a pure ACK before it. The first frame stays: it is the handshake's."""
        kept = merged_ack(flow.held[-1], arrival) if len(flow.held) > 1 else None
        if kept is None:
            return False
        self.swap(flow, kept)
        return True

    def swap(self, flow: Flow, arrival: Arrival) -> Arrival:
        """Keep a frame in the place of the flow's last one, which it returns."""
        last, flow.held[-1] = flow.held[-1], arrival
        self.bytes += len(arrival.frame) - len(last.frame)
        return last

    def take(self, flow: Flow) -> list[Arrival]:
        """The flow's frames in order; it holds none afterwards."""
        frames, flow.held = flow.held, []
        self.timer.stop(flow)
        self.frames -= len(frames)
        self.bytes -= sum(len(held.frame) for held in frames)
        return frames
