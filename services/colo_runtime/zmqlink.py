"""A plain ZeroMQ link: DEALER on both sides, with a bounded queue and numbered batches; it drops at the bound.

::

    core -> send -> [ZeroMQ: 64 batches] -> wire -> [64 batches] -> deliver -> core
              |             ^
              +-> [pending: 8 MiB] -- when writable again
                        |
                        +-> full: the newest is dropped, counted `queue_full`

Batches have sequence numbers here as well. Frames that the receiver finds missing are legal loss, and counted as
`lost`. Frames that the sender itself dropped get no numbers, so that they are not counted on both sides. A bound input
serves all its senders in turn.
"""

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Final

from colo_proto.codec import Batch, Chatter, LinkBarrier, LinkHello, decode, encode
from colo_proto.errors import WireError
from colo_proto.frame import Buffer
from colo_proto.replay import cut
from colo_runtime.link import BATCH_BYTES, BATCH_FRAMES, Link
from colo_runtime.reactor import IDLE, READ, WRITE
from colo_runtime.zmqsocket import whole, wire

ASK: Final = 1.0
"""Seconds without a message after which a worker asks whether it still gets its share of the frames."""
MAX_SENDERS: Final = 256
"""Senders whose sequence numbers an input remembers; above that number, the one that came first is forgotten."""


class Sequences:
    """The sequence number that is expected next from each sender."""

    def __init__(self) -> None:
        self._next: dict[str, tuple[int, int]] = {}

    def missing(self, batch: Batch) -> int:
        """The number of frames that are missing before `batch`; 0 for a sender that is new or was restarted."""
        incarnation, expected = self._next.get(batch.link, (None, 0))
        self._next[batch.link] = (batch.incarnation, batch.sequence + len(batch.frames))
        if len(self._next) > MAX_SENDERS:
            del self._next[next(iter(self._next))]
        return max(0, batch.sequence - expected) if incarnation == batch.incarnation else 0


class ZmqLink(Link):
    """See the module."""

    def open(self) -> None:
        """Bind or connect."""
        self._wire = wire(self, router=False, on_change=self._connection)
        self._sequence = 0
        self._pending: deque[tuple[bytes, int]] = deque()
        self._pending_bytes = 0
        self._sequences = Sequences()
        self._wire.watch(self._ready)
        self._asks = self.on_barrier is not None and not self.endpoint.server
        self._heard = float("-inf")
        self._barrier_heard = False
        self._timer = IDLE
        if self._asks:
            self._ask()

    @property
    def pending(self) -> int:
        """Bytes in the queue above ZeroMQ's own queue."""
        return self._pending_bytes

    def gauges(self) -> dict[str, int]:
        """The queue and the connections."""
        return super().gauges() | {"peers": self._wire.peers}

    # -- out ------------------------------------------------------------------------------------

    def send(self, frames: Sequence[Buffer]) -> None:
        """Number, encode and send."""
        self.count_sent(frames)
        for piece in cut(frames):
            message = self.batch(self._sequence, piece)
            waits = self._pending or not self._wire.send(b"", message)
            if waits and not self._hold(message, len(piece)):
                # A dropped piece gets no numbers: otherwise the receiver would count it again, as missing.
                continue
            self._sequence += len(piece)
        self.counters["sequence"] = self._sequence

    def _hold(self, message: bytes, frames: int) -> bool:
        if self._pending_bytes + len(message) > self.context.common.queue_bytes:
            self.drop("queue_full", frames)
            return False
        self._pending.append((message, frames))
        self._pending_bytes += len(message)
        if len(self._pending) == 1:
            self._interest()
        return True

    def _flush(self) -> None:
        while self._pending:
            message, _ = self._pending[0]
            if not self._wire.send(b"", message):
                return
            self._pending.popleft()
            self._pending_bytes -= len(message)
        self._interest()

    def _interest(self) -> None:
        self._wire.interest((READ if self._reading else 0) | (WRITE if self._pending else 0))

    # -- in -------------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
            if self.on_relief is not None:
                self.on_relief()
        if events & READ:
            if self._asks:
                self._heard = monotonic()
            self._read()

    def _read(self) -> None:
        frames: list[bytes] = []
        size = 0
        while True:
            got = self._wire.receive()
            if got is None:
                break
            try:
                value = decode(whole(got[1]))
            except WireError as error:
                self.refuse(error)
                continue
            if type(value) is not Batch:
                if type(value) is LinkBarrier and self.on_barrier is not None:
                    if frames:
                        self.pass_on(frames)
                        frames, size = [], 0
                    self._barrier_heard = True
                    self.on_barrier(value.version)
                elif not isinstance(value, Chatter):
                    # With `Chatter` the other end takes this for a reliable link. It works as one that never replays.
                    self.refuse(WireError("unexpected", f"{type(value).__name__} on a link of frames"))
                continue
            if not self.reads:
                self.refuse(WireError("unexpected", "frames on an output"))
                continue
            missing = self._sequences.missing(value)
            if missing:
                self.counters["lost"] += missing
            frames = frames + value.frames if frames else value.frames
            size += sum(map(len, value.frames))
            if len(frames) >= BATCH_FRAMES or size >= BATCH_BYTES:
                break
        if frames:
            self.pass_on(frames)

    def _ask(self) -> None:
        """Say hello to the sender, which must answer. If it does not, another process has taken over our routing id."""
        if self._barrier_heard and self._reading:
            if monotonic() - self._heard > ASK:
                self._say_hello()
            self._wire.check_silence(self._heard)
        self._timer = self.context.reactor.call_later(ASK, self._ask)

    def _say_hello(self) -> None:
        self._wire.send(b"", encode(LinkHello(self.link_name, self.context.incarnation, -1)))

    def _connection(self, what: str) -> None:
        self.context.log("debug", f"link.{what}", port=self.port, endpoint=str(self.endpoint))
        if what == "up" and self._sequence and not self._pending:
            # An empty batch says how far we have counted: the receiver then knows what was lost with the connection,
            # even if no frame follows.
            self._wire.send(b"", self.batch(self._sequence, []))
        if what == "up" and self._asks:
            # The sender answers a hello with its present worker table.
            self._say_hello()

    # -- end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection. What is still pending is lost, and counted."""
        for _, frames in self._pending:
            self.drop("closed", frames)
        self._pending.clear()
        self._pending_bytes = 0
        self._timer.cancel()
        self._wire.close()
