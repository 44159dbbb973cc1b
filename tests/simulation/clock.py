"""Virtual time: a heap of calls, and a trace that becomes text only when it is read."""

from collections import deque
from heapq import heappop, heappush

START = 1000.0
"""The time at which the clock starts. It is not zero, so that no code can confuse a time with "never"."""


MOST_EVENTS = 400_000
"""A typical seed has some thousands."""


class Clock:
    """Calls in the order of their times; with equal times, in the order in which they were scheduled."""

    def __init__(self):
        self.now = START
        self._heap = []
        self._count = 0
        self.events = 0

    def at(self, when, call, *args):
        """Call `call(*args)` at `when`, but not before the current time."""
        self._count += 1
        heappush(self._heap, (max(self.now, when), self._count, call, args))

    def after(self, delay, call, *args):
        self.at(self.now + delay, call, *args)

    def run(self, until, stop=None):
        """Run calls until the time `until`, or until `stop()` is true (it is called a few times a virtual second).

        `RuntimeError` when there are so many events that the run would not end.
        """
        heap = self._heap
        look = self.now
        while heap and heap[0][0] <= until:
            self.now, _, call, args = heappop(heap)
            self.events += 1
            call(*args)
            if self.events > MOST_EVENTS:
                raise RuntimeError(f"{self.events} events: this does not end")
            if stop is not None and self.now >= look:
                look = self.now + 0.25
                if stop():
                    return
        self.now = max(self.now, until)


class Trace:
    """The last events, as (time, who, what, *values). They become text only at the end."""

    def __init__(self, limit):
        self.limit = limit
        self.lines = deque(maxlen=limit)
        self.digest = 0

    def add(self, now, who, what, *values):
        self.lines.append((now, who, what, values))
