"""ZeroMQ links that may not lose a frame silently (`?reliable=on`): `colo_proto.replay` on sockets.

::

    ReliableOut                                         ReliableIn
    core -> ring -> batches ----------------------->    in order -> core
              ^---- hello(next), ack(next) ---------    after the core has taken them
              ----- start or reset ---------------->

The bound end is a ROUTER: it answers the receiver it was greeted by, and a restarted peer takes its
routing id over, so a stale connection cannot eat batches. An output keeps to one receiver; another
id is refused while the first was heard of lately. An input may have several senders, each with a
state of its own.

A relay (a process with a reliable input *and* a reliable output) acknowledges its input only when its
output is acknowledged: killed at any moment, it has nothing that its upstream would not send again.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from colo_proto.codec import Batch, LinkAck, LinkHello, LinkReset, LinkStart, decode, encode, encode_batch
from colo_proto.errors import WireError
from colo_proto.frame import Buffer
from colo_proto.replay import ReplayReceiver, ReplaySender
from colo_runtime.link import BATCH_BYTES, BATCH_FRAMES, Link
from colo_runtime.reactor import READ, WRITE, Timer
from colo_runtime.zmqsocket import whole, wire

ACK_FRAMES: Final = 64
ACK_BYTES: Final = 512 * 1024
ACK_DELAY: Final = 0.01
"""An acknowledgement is sent after this many frames, bytes, or seconds, whichever comes first."""

TICK: Final = 0.1
"""Seconds between looks at silence."""
TICKS: Final = 10
"""Ticks of a second."""
FAITHFUL: Final = 3.0
"""Seconds for which an output keeps to its receiver when another one says hello."""
ANNOUNCE: Final = 0.5
"""Seconds between the empty batches by which a connecting output makes itself known to a bound input."""
MAX_SENDERS: Final = 64


class ReliableOut(Link):
    """The sending end."""

    relay = False
    """Set by the shell before `open`: this process acknowledges its own input only after this output."""
    on_settled: Callable[[], None] = lambda: None
    """Called when more is acknowledged; set by the shell."""

    def open(self) -> None:
        """Bind or connect."""
        self._wire = wire(self, router=self.endpoint.server, on_change=self._connection)
        self._peer: bytes | None = None
        self._heard = float("-inf")
        self._writing = False
        self._announced = 0
        self._announce: Timer | None = None
        self.sender = ReplaySender(
            f"{self.context.id}.{self.port}", self.context.incarnation, self.context.ring_bytes, source=not self.relay
        )
        self._wire.watch(self._ready)
        if not self._wire.router:
            self._say_here()

    @property
    def pending(self) -> int:
        """Nothing waits but in the ring."""
        return 0

    @property
    def unconfirmed(self) -> int:
        """Frames not acknowledged, as long as there is somebody who could."""
        return self.sender.unacknowledged if self.sender.attached else 0

    def gauges(self) -> dict[str, int]:
        """Ring and connections."""
        return {
            "ring_bytes": self.sender.ring_bytes,
            "unacknowledged": self.sender.unacknowledged,
            "peers": self._wire.peers,
            "attached": int(self.sender.attached),
        }

    def send(self, frames: Sequence[Buffer]) -> None:
        """Into the ring, and out as far as the socket takes it."""
        self.gave(frames)
        # The ring outlives the call; a view of somebody's buffer would not.
        self.sender.push([bytes(f) if type(f) is memoryview else f for f in frames])
        self._publish()
        if not self._writing:
            self._pump()

    def _pump(self) -> None:
        sender, context = self.sender, self.context
        while (batch := sender.due()) is not None:
            assert self._peer is not None
            message = encode_batch(
                batch.link, batch.incarnation, batch.sequence, context.epoch, monotonic(), batch.frames
            )
            if not self._tell(message):
                return
            sender.sent()
        self._publish()
        self._write_later(False)

    def _tell(self, message: bytes) -> bool:
        """Send to the receiver; False (and all that follows from it) when it does not go now."""
        assert self._peer is not None
        try:
            if self._wire.send(self._peer, message):
                return True
            self._write_later(True)
        except ConnectionError:
            self._lost()
        return False

    def _write_later(self, on: bool) -> None:
        if on != self._writing:
            self._writing = on
            self._wire.interest(READ | WRITE if on else READ)

    def _lost(self) -> None:
        self.sender.detached()
        self._write_later(False)

    def _publish(self) -> None:
        counters = self.sender.counters
        mine = self.counters
        mine["sequence"] = self.sender.end
        mine["replayed"] = counters["replayed"]
        mine["evicted"] = counters["evicted"]
        mine["resets"] = counters["gaps"]

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._pump()
        if not events & READ:
            return
        while (got := self._wire.receive()) is not None:
            peer, message = got
            try:
                self._hear(peer, message)
            except WireError as error:
                self.garbage(error, peer=peer.decode(errors="replace"))
        self._publish()

    def _hear(self, peer: bytes, message: bytes | memoryview | None) -> None:
        value = decode(whole(message))
        now = monotonic()
        if isinstance(value, LinkHello):
            self._greeted(peer, value, now)
        elif isinstance(value, LinkAck):
            if peer == self._peer:
                self._heard = now
                before = self.sender.acked
                self.sender.ack(value.incarnation, value.next)
                if self.sender.acked != before:
                    self.on_settled()
        else:
            raise WireError("unexpected", f"{type(value).__name__} from a receiver")

    def _greeted(self, peer: bytes, hello: LinkHello, now: float) -> None:
        if self._peer not in (None, peer) and self.sender.attached and now - self._heard < FAITHFUL:
            raise WireError("second_receiver", "the link has one already")
        answer = self.sender.hello(hello.incarnation, hello.next)
        if peer != self._peer:
            self.context.log("info", "receiver.attached", port=self.port, receiver=peer.decode(errors="replace"))
        self._peer, self._heard = peer, now
        if isinstance(answer, LinkReset):
            self.context.log("warning", "replay.impossible", port=self.port, asked=hello.next, starts=answer.sequence)
        if not self._tell(encode(answer)):
            # It must not get batches without the answer; it will say hello again.
            self.sender.detached()
            return
        self._pump()

    def _say_here(self) -> None:
        if not self.sender.attached or monotonic() - self._heard > FAITHFUL:
            context = self.context
            self._wire.send(b"", encode_batch(self.sender.link, context.incarnation, 0, context.epoch, monotonic(), []))
        self._announced += 1
        if self._announced % 2 == 0:
            # A receiver owes us an acknowledgement of what it was sent, and a greeting when it had greeted before.
            owed = self._peer is not None and (self.sender.unacknowledged or not self.sender.attached)
            self._wire.mind(self._heard if owed else monotonic())
        self._announce = self.context.reactor.call_later(ANNOUNCE, self._say_here)

    def _connection(self, what: str) -> None:
        if what == "down" and not self._wire.peers:
            # The only connection, or the last, is gone: the receiver will greet.
            self._lost()

    def close(self) -> None:
        """What was not acknowledged may be lost; the next start says so to the receiver."""
        if self._announce is not None:
            self._announce.cancel()
        self._wire.close()


@dataclass
class _Sender:
    """What an input knows of one sender."""

    receiver: ReplayReceiver
    held: deque[tuple[int, int, tuple[int, ...]]] = field(default_factory=deque)
    """Taken by the core, waiting for this process's own outputs: (incarnation, next, marks of the outputs)."""
    done: int = 0
    acked: int = 0
    bytes: int = 0
    heard: float = 0.0


class ReliableIn(Link):
    """The receiving end."""

    outputs: Sequence[ReliableOut] = ()
    """Reliable outputs of this process, set by the shell: what they have not got acknowledged is not acknowledged."""

    def open(self) -> None:
        """Bind or connect."""
        self._wire = wire(self, router=self.endpoint.server, on_change=self._connection)
        self._senders: dict[bytes, _Sender] = {}
        if not self._wire.router:
            self._senders[b""] = _Sender(ReplayReceiver())
        self._name = f"{self.context.id}.{self.port}"
        self._reading = True
        self._held = False
        self._greeted = False
        self._ack_timer: Timer | None = None
        self._ticks = 0
        self._wire.watch(self._ready)
        self._timer: Timer | None = None
        self._tick()

    def send(self, frames: Sequence[Buffer]) -> None:
        """Never: reliable links have one way."""
        raise AssertionError("an input does not send")

    def gauges(self) -> dict[str, int]:
        """Connections."""
        return {"peers": self._wire.peers}

    # -- frames ---------------------------------------------------------------------------------

    def _ready(self, _events: int) -> None:
        taken = size = 0
        while taken < BATCH_FRAMES and size < BATCH_BYTES and not self._held:
            got = self._wire.receive()
            if got is None:
                break
            peer, message = got
            try:
                frames = self._hear(peer, message)
            except WireError as error:
                self.garbage(error, peer=peer.decode(errors="replace"))
                continue
            if frames:
                taken += len(frames)
                size += self._pass_on(self._senders[peer], frames)
        self._chat()

    def _hear(self, peer: bytes, message: bytes | memoryview | None) -> list[bytes]:
        value = decode(whole(message))
        if not isinstance(value, Batch | LinkStart | LinkReset):
            raise WireError("unexpected", f"{type(value).__name__} from a sender")
        now = monotonic()
        sender = self._senders.get(peer) or self._new(peer)
        sender.heard = now
        if isinstance(value, Batch):
            return sender.receiver.batch(value, now)
        before = sender.receiver.incarnation
        missing = sender.receiver.answer(value, now)
        if before != sender.receiver.incarnation:
            sender.held.clear()
            sender.done = sender.acked = sender.receiver.next
        if missing:
            fields = {"link": value.link, "sequence": value.sequence}
            self.context.log("warning", "frames.missing", port=self.port, **fields)
            self.context.on_gap(self.port, fields)
        return []

    def _new(self, peer: bytes) -> _Sender:
        if len(self._senders) >= MAX_SENDERS:
            oldest = min(self._senders, key=lambda one: self._senders[one].heard)
            del self._senders[oldest]
        self._senders[peer] = sender = _Sender(ReplayReceiver())
        return sender

    def _pass_on(self, sender: _Sender, frames: list[bytes]) -> int:
        size = sum(map(len, frames))
        self.counters["frames_in"] += len(frames)
        self.counters["bytes_in"] += size
        receiver = sender.receiver
        upto = receiver.next
        self.deliver(frames)
        sender.bytes += size
        if self.outputs:
            sender.held.append((receiver.incarnation, upto, tuple(out.sender.end for out in self.outputs)))
            self._settle(sender)
        else:
            sender.done = upto
        if sender.done - sender.acked >= ACK_FRAMES or sender.bytes >= ACK_BYTES:
            self._acknowledge()
        elif self._ack_timer is None:
            self._ack_timer = self.context.reactor.call_later(ACK_DELAY, self._acknowledge)
        return size

    def settle(self) -> None:
        """An output has got further: what it has settled may be acknowledged."""
        for sender in self._senders.values():
            self._settle(sender)
        if self._ack_timer is None:
            self._ack_timer = self.context.reactor.call_later(ACK_DELAY, self._acknowledge)

    def _settle(self, sender: _Sender) -> None:
        acked = tuple(out.sender.acked for out in self.outputs)
        held = sender.held
        while held and all(mark <= at for mark, at in zip(held[0][2], acked, strict=True)):
            sender.done = held.popleft()[1]

    # -- chatter --------------------------------------------------------------------------------

    def _acknowledge(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        for peer, sender in self._senders.items():
            if sender.done > sender.acked:
                ack = LinkAck(sender.receiver.link, sender.receiver.incarnation, sender.done)
                if self._say(peer, encode(ack)):
                    sender.acked, sender.bytes = sender.done, 0

    def _chat(self) -> None:
        """Say the hellos that are due, and show the counters."""
        totals = dict.fromkeys(("gaps", "gap_frames", "duplicates", "early"), 0)
        for peer, sender in self._senders.items():
            receiver = sender.receiver
            if receiver.asking and self._reading and not self._held:
                incarnation, sequence = receiver.hello(monotonic())
                if self._say(peer, encode(LinkHello(receiver.link or self._name, incarnation, sequence))):
                    self._greeted = True
                else:
                    receiver.asking = True
            for name in totals:
                totals[name] += receiver.counters[name]
        self.counters.update({name: n - self.counters[name] for name, n in totals.items() if n != self.counters[name]})

    def _say(self, peer: bytes, message: bytes) -> bool:
        try:
            return self._wire.send(peer, message)
        except ConnectionError:
            return False

    def _tick(self) -> None:
        now = monotonic()
        if not self._held:
            for sender in self._senders.values():
                sender.receiver.on_timer(now)
        self._chat()
        self._ticks += 1
        if self._ticks % TICKS == 0 and not self._wire.router:
            # It answers our greetings once it has done so, but not while we do not greet.
            receiver = self._senders[b""].receiver
            owed = self._reading and not self._held and receiver.incarnation
            self._wire.mind(receiver.heard if owed else now)
        self._timer = self.context.reactor.call_later(TICK, self._tick)

    def _connection(self, what: str) -> None:
        if what == "down":
            self._greeted = False
        elif self._wire.router or not self._greeted:
            # A hello that went out since the connection before this one ended has gone to this one's sender.
            for sender in self._senders.values():
                sender.receiver.connected()
            self._chat()

    def hold(self, on: bool) -> None:
        """Take no frames for a while, or again: meanwhile they are with the sender, in its ring."""
        if on != self._held and self._reading:
            self._held = on
            self._wire.interest(0 if on else READ)

    def stop_reading(self) -> None:
        """Take no more frames; acknowledgements still go out."""
        self._reading = False
        self._wire.interest(0)

    def close(self) -> None:
        """Acknowledge what was taken."""
        for sender in self._senders.values():
            self._settle(sender)
        self._acknowledge()
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._wire.close()
