"""The control link of a process: it says who it is, how it is doing and what it needs, and hears from the COLO frame.

::

    silent --Hello each second--> welcomed --Report each second-->
       ^                             |
       +--nothing heard for 3 s------+   or a Welcome of another incarnation: the frame was restarted

A message that cannot be sent now waits in a short queue, which drops the oldest one when it is full. A report never
waits, because the next one replaces it.
"""

import os
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from colo_proto.codec import decode_message, encode
from colo_proto.endpoint import Endpoint
from colo_proto.errors import WireError
from colo_proto.messages import CheckpointDone, Hello, Message, Report, Welcome
from colo_runtime.context import Context
from colo_runtime.counting import Snapshot
from colo_runtime.reactor import IDLE, READ, WRITE
from colo_runtime.zmqsocket import PeerSocket, whole

INTERVAL: Final = 1.0
"""Seconds between two reports, or two greetings."""
SILENCE: Final = 3.0
"""Seconds without a message from the frame after which the process greets it again."""
MAX_QUEUED: Final = 256


class Control:
    """The link, as a client of the frame."""

    def __init__(
        self,
        endpoint: Endpoint,
        context: Context,
        role: str,
        hear: Callable[[Message], None],
        snapshot: Callable[[], Snapshot],
        *,
        option: str = "--frame",
    ) -> None:
        self.endpoint = endpoint
        self.context = context
        self.role = role
        self.http = ""
        self.counters: Counter[str] = Counter()
        self.welcomed = False
        self._greeting = True
        """The frame has not yet heard on this connection who we are."""
        self.opened = False
        self._hear = hear
        self._snapshot = snapshot
        self._option = option
        self._frame = 0
        """The incarnation of the frame that has welcomed us."""
        self._heard = float("-inf")
        self._queue: deque[bytes] = deque()
        self._timer = IDLE
        self.on_lost: Callable[[], None] = lambda: None
        """Called when the connection to the frame has ended."""

    def open(self) -> None:
        """Connect, and say hello until the frame answers."""
        self._wire = PeerSocket(
            self.context, self.endpoint, self._option, router=False, counters=self.counters, on_change=self._connection
        )
        self.opened = True
        self._wire.watch(self._ready, READ | WRITE)
        self._tick()

    @property
    def connected(self) -> bool:
        """True while there is a connection to the frame."""
        return self.opened and self._wire.peers > 0

    def _connection(self, what: str) -> None:
        if what == "down":
            self.on_lost()
        elif what == "up":
            self._greeting = True
            if self.welcomed:
                # This may be another frame, which does not know us.
                self._hello()

    def tell(self, message: Message) -> None:
        """Send a message to the frame, or keep it until it can be sent."""
        self.counters["sent"] += 1
        self._queue.append(encode(message))
        if len(self._queue) > MAX_QUEUED:
            self._queue.popleft()
            self.counters["dropped.queue_full"] += 1
        self._flush()

    def report(self) -> None:
        """Send counters and status now, unless messages are waiting."""
        now = self._snapshot()
        message = encode(
            Report(
                role=self.role, id=self.context.id, incarnation=self.context.incarnation, counters=now.counters,
                gauges=now.gauges, status=now.status, pid=os.getpid(),
            )
        )  # fmt: skip
        if not self._queue:
            self._wire.send(b"", message)

    def _flush(self) -> None:
        if self._queue and self._greeting:
            # The frame must know from whom the messages are.
            self._hello()
        while self._queue and not self._greeting and self._wire.send(b"", self._queue[0]):
            self._queue.popleft()
        self._wire.interest(READ | WRITE if self._queue else READ)

    def _tick(self) -> None:
        if self._greeting or not self.welcomed or monotonic() - self._heard > SILENCE:
            self._hello()
        if self.welcomed:
            self.report()
        self._wire.check_silence(self._heard)
        self._timer = self.context.reactor.call_later(INTERVAL, self._tick)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            if not self._queue and not self.welcomed:
                # The first connection was made just now; do not wait for the next second.
                self._hello()
            self._flush()
        if not events & READ:
            return
        while (got := self._wire.receive()) is not None:
            try:
                message = decode_message(whole(got[1]))
            except WireError as error:
                self.counters["wire_errors." + error.reason] += 1
                self.context.complain("message.refused", "control", port="frame", error=str(error))
                continue
            self.counters["received"] += 1
            self._heard = monotonic()
            self._take(message)

    def _hello(self) -> None:
        status = self._snapshot().status
        promoted, fence = status.get("promoted", False), status.get("fence", 0)
        hello = Hello(
            self.role, self.context.id, self.context.incarnation, os.getpid(), self.http, mode=status.get("mode", ""),
            fence=fence if promoted else max(fence, self.context.fence), promoted=promoted,
            leased=self.context.lease > monotonic(), frame=self._frame,
        )  # fmt: skip
        if self._wire.send(b"", encode(hello)):
            self._greeting = False

    def _take(self, message: Message) -> None:
        if isinstance(message, Welcome):
            self.context.epoch = message.epoch
            if self.welcomed and message.incarnation != self._frame:
                self.context.log("info", "frame.restarted", incarnation=message.incarnation)
                self._hello()
            elif not self.welcomed:
                self.context.log("info", "frame.welcomed", epoch=message.epoch, mode=message.mode)
            self._frame = message.incarnation
            first, self.welcomed = not self.welcomed, True
            if first:
                self.context.on_ready()
                self.report()
        elif isinstance(message, CheckpointDone):
            self.context.epoch = message.epoch
        self._hear(message)

    def close(self) -> None:
        """Close the connection; messages that ZeroMQ has accepted are still sent within the linger time."""
        self._timer.cancel()
        self._wire.close()
