r"""An output whose frames are distributed over workers, by flow (`?split=on`).

::

    core -> send(frames) -> Splitter -> ROUTER -- routing id --> worker comp0
                                          ^  \---------------> worker comp1
    table -----> a barrier in the stream of each worker

A worker is addressed by its routing id, which is the id of its process, so that nothing has to be configured. Each
worker has its own sequence numbers and its own queue above that of ZeroMQ; the bound on bytes is for all of them
together. Frames for a worker that is not connected are dropped and counted: they would be useless to it later.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from colo_proto.codec import LinkBarrier, LinkHello, decode, encode
from colo_proto.errors import WireError
from colo_proto.frame import Buffer
from colo_proto.messages import WorkerTable
from colo_proto.replay import cut
from colo_proto.shard import Splitter
from colo_runtime.link import Link
from colo_runtime.reactor import IDLE
from colo_runtime.zmqsocket import whole, wire

RETRY: Final = 0.001
RETRY_MAX: Final = 0.05
"""Seconds between two attempts to send to a worker whose queue was full: the first pause and the longest one. A ROUTER
is writable as soon as *any* peer is, so waiting for that would be a busy loop while one worker is stuck."""


class SplitLink(Link):
    """See the module. Which worker gets a flow is decided here and nowhere else; the shell calls `table`."""

    splitter: Splitter

    def open(self) -> None:
        """Bind."""
        self._wire = wire(self, router=True)
        self.splitter = Splitter()
        self._sequence: dict[str, int] = defaultdict(int)
        self._queues: dict[str, deque[tuple[bytes, int]]] = {}
        self._pending_bytes = 0
        self._retry = IDLE
        self._pause = RETRY
        self._wire.watch(self._read)

    def table(self, message: WorkerTable) -> None:
        """Distribute by this table from now on."""
        before = self.splitter.workers
        if self.splitter.table(message):
            self.counters["tables"] += 1
            # The workers that lose flows and those that get them must know where in their stream of frames that is.
            for worker in dict.fromkeys([*before, *message.workers]):
                self._barrier(worker)
            self.context.log("info", "table.changed", port=self.port, version=message.version, workers=message.workers)

    @property
    def pending(self) -> int:
        """Bytes queued for all workers."""
        return self._pending_bytes

    def gauges(self) -> dict[str, int]:
        """The queue, the connections and the table."""
        return super().gauges() | {"peers": self._wire.peers, "table_version": self.splitter.version}

    def send(self, frames: Sequence[Buffer]) -> None:
        """Distribute the frames by flow."""
        self.count_sent(frames)
        shares = self.splitter.split(frames)
        if not shares:
            self.drop("no_table", len(frames))
        for worker, share in shares.items():
            self._send(worker, share)

    def _send(self, worker: str, frames: Sequence[Buffer]) -> None:
        peer = worker.encode()
        for piece in cut(frames):
            sequence = self._sequence[worker]
            message = self.batch(sequence, piece)
            try:
                waits = worker in self._queues or not self._wire.send(peer, message)
            except ConnectionError:
                self.drop("no_worker", len(piece))
                continue
            if waits and not self._hold(worker, message, len(piece)):
                continue
            # A dropped piece gets no numbers: otherwise the worker would count it again, as missing.
            self._sequence[worker] = sequence + len(piece)

    def _barrier(self, worker: str) -> None:
        self._say(worker, encode(LinkBarrier(self.link_name, self.context.incarnation, self.splitter.version)))

    def _say(self, worker: str, message: bytes) -> None:
        # A worker that is not connected says hello when it is.
        with suppress(ConnectionError):
            if worker in self._queues or not self._wire.send(worker.encode(), message):
                self._hold(worker, message, 0)

    def _hold(self, worker: str, message: bytes, frames: int) -> bool:
        if frames and self._pending_bytes + len(message) > self.context.common.queue_bytes:
            self.drop("queue_full", frames)
            return False
        queue = self._queues.setdefault(worker, deque())
        if not frames and queue and not queue[-1][1]:
            # Of two barriers with nothing between them only the later one is needed. So a worker that asks for them
            # without reading cannot fill our memory.
            self._pending_bytes -= len(queue.pop()[0])
        queue.append((message, frames))
        self._pending_bytes += len(message)
        if not self._retry.pending:
            self._retry = self.context.reactor.call_later(RETRY, self._flush)
        return True

    def _flush(self) -> None:
        before = self._pending_bytes
        for worker, queue in list(self._queues.items()):
            try:
                while queue and self._wire.send(worker.encode(), queue[0][0]):
                    self._pending_bytes -= len(queue.popleft()[0])
            except ConnectionError:
                self._pending_bytes -= sum(len(message) for message, _ in queue)
                dropped = sum(frames for _, frames in queue)
                self._sequence[worker] -= dropped
                self.drop("no_worker", dropped)
                queue.clear()
            if not queue:
                del self._queues[worker]
        if self._queues:
            self._pause = RETRY if self._pending_bytes < before else min(self._pause * 2, RETRY_MAX)
            self._retry = self.context.reactor.call_later(self._pause, self._flush)
        if self.on_relief is not None:
            self.on_relief()

    def _read(self, _events: int) -> None:
        # Workers say hello, and must hear which table is in force; every other message is refused.
        for _ in range(64):
            got = self._wire.receive()
            if got is None:
                return
            try:
                said = decode(whole(got[1]))
            except WireError as error:
                self.refuse(error)
                continue
            if isinstance(said, LinkHello):
                # An id that is not text does not belong to a process of ours.
                worker = got[0].decode(errors="replace")
                self._barrier(worker)
                sequence = self._sequence.get(worker, 0)
                if sequence and worker not in self._queues:
                    # An empty batch says how far we have counted: the worker then knows what was lost with a
                    # connection, even if no frame follows.
                    self._say(worker, self.batch(sequence, []))
            else:
                self.refuse(WireError("unexpected", "a message on an output"))

    def close(self) -> None:
        """Close the connections. What is still pending is lost, and counted."""
        for queue in self._queues.values():
            self.drop("closed", sum(frames for _, frames in queue))
        self._queues.clear()
        self._pending_bytes = 0
        self._retry.cancel()
        self._wire.close()
