"""Connections that wait for something, and since when."""

from collections import OrderedDict
from itertools import takewhile

from colo_rewriter.flow import Flow


class Timer:
    """Connections that wait, and since when. All may wait equally long, so the first is due first."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: OrderedDict[Flow, float] = OrderedDict()

    def __contains__(self, flow: object) -> bool:
        return flow in self._since

    def start(self, flow: Flow, now: float) -> None:
        """The connection waits from now on, also if it has waited already."""
        self._since[flow] = now
        self._since.move_to_end(flow)

    def stop(self, flow: Flow) -> None:
        """The connection waits no longer."""
        self._since.pop(flow, None)

    def flows(self) -> list[Flow]:
        """All that wait."""
        return list(self._since)

    def overdue(self, now: float) -> list[Flow]:
        """Those that have waited long enough. They go on waiting until they are stopped."""
        return list(takewhile(lambda flow: self._since[flow] + self.seconds <= now, self._since))

    def deadline(self) -> float | None:
        """When the first one has waited long enough."""
        return next(iter(self._since.values())) + self.seconds if self._since else None
