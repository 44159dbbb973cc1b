"""Inputs rest while an output has as much to send as it should keep.

::

    tap or link --> core --> output, half full --> the input rests      (frames stay in the queue of the sender,
                             output, nearly empty -> it reads again      and finally in that of the tap)

Without this the reader of a tap runs ahead of a slower process behind it, and fills a queue of a few batches until that
queue drops frames. The queue of a tap is longer, and all frames of a connection wait in one place. When a peer takes
nothing at all for a while, it is not waited for: its frames are then dropped at the bound of the output, and frames for
other peers continue.
"""

from collections.abc import Sequence
from typing import Final

from colo_runtime.link import Link
from colo_runtime.reactor import IDLE, Reactor

FULL: Final = 0.5
EMPTY: Final = 0.125
"""Shares of the bound of the outputs at which inputs rest, and at which they read again."""
STUCK: Final = 1.0
"""Seconds in which a peer must have taken something. ZeroMQ takes 32 batches at a time, and a process on a busy machine
may need 0.2 s for that (measured: with less, fifty downloads lost 1,379 frames at once and stood still)."""


class Pressure:
    """The pressure of one process, whose `outputs` together may keep `bound` bytes."""

    def __init__(self, outputs: Sequence[Link], bound: int, reactor: Reactor) -> None:
        self._outputs = outputs
        self._full, self._empty = int(bound * FULL), int(bound * EMPTY)
        self._reactor = reactor
        self._resting: dict[Link, None] = {}
        self._timer = IDLE
        self._least = 0
        """The fewest bytes pending since inputs rest."""
        self._stuck = False
        self.rests = 0
        """How often an input began to rest."""

    def delivered(self, link: Link) -> None:
        """An input has passed frames to the core, and the outputs of the core were sent."""
        pending = self._pending()
        if pending <= self._full:
            if self._stuck and pending <= self._empty:
                self._stuck = False
            return
        if self._stuck or link in self._resting:
            return
        self.rests += 1
        self._resting[link] = None
        link.rest(resting=True)
        if not self._timer.pending:
            self._least = pending
            self._timer = self._reactor.call_later(STUCK, self._look)
            for one in self._outputs:
                one.on_relief = self._relief

    def _pending(self) -> int:
        return sum(one.pending for one in self._outputs)

    def _relief(self) -> None:
        if self._resting and self._pending() <= self._empty:
            self._read_again()

    def _look(self) -> None:
        pending = self._pending()
        if pending < self._least:
            self._least = pending
            self._timer = self._reactor.call_later(STUCK, self._look)
            return
        self._stuck = True
        self._read_again()

    def _read_again(self) -> None:
        self._timer.cancel()
        for one in self._outputs:
            one.on_relief = None
        resting = list(self._resting)
        self._resting.clear()
        for link in resting:
            link.rest(resting=False)
