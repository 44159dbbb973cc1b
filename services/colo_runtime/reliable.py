"""ZeroMQ links that must not lose a frame unnoticed (`?reliable=on`): `colo_proto.replay` on sockets.

::

    ReliableOut                                         ReliableIn
    core -> ring -> batches ----------------------->    in order -> core
              ^---- hello(next), ack(next) ---------    after the core has taken them
              ----- start or reset ---------------->

The bound end is a ROUTER: it answers the receiver that has greeted it, and a restarted peer takes over its routing id,
so that batches cannot be lost on an old connection. An output has one receiver; another id is refused while the first
one was heard recently. An input may have several senders, each with its own state.

A relay (a process with a reliable input *and* a reliable output) acknowledges its input only when its output was
acknowledged. When it is killed, at any moment, the process before it sends again everything that it had.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from colo_proto.codec import Batch, LinkAck, LinkHello, LinkReset, LinkStart, decode, encode
from colo_proto.errors import WireError
from colo_proto.frame import Buffer
from colo_proto.replay import ReplayReceiver, ReplaySender
from colo_runtime.link import BATCH_BYTES, BATCH_FRAMES, Link
from colo_runtime.reactor import IDLE, READ, WRITE
from colo_runtime.zmqsocket import whole, wire

ACK_FRAMES: Final = 64
ACK_BYTES: Final = 512 * 1024
ACK_DELAY: Final = 0.01
"""An acknowledgement is sent after this many frames, bytes, or seconds, whichever comes first."""

TICK: Final = 0.1
"""Seconds between two checks whether a sender is silent."""
TICKS: Final = 10
"""Ticks in a second."""
RECEIVER_SILENCE: Final = 3.0
"""Seconds since its receiver was heard after which an output accepts another receiver that says hello."""
ANNOUNCE: Final = 0.5
"""Seconds between the empty batches by which a connecting output announces itself to a bound input."""
MAX_SENDERS: Final = 64


class ReliableOut(Link):
    """The sending end."""

    relay = False
    """Set by the shell before `open`: this process acknowledges its own input only after this output."""
    on_acknowledged: Callable[[], None] = lambda: None
    """Called when more frames were acknowledged; set by the shell."""

    def open(self) -> None:
        """Bind or connect."""
        self._wire = wire(self, router=self.endpoint.server, on_change=self._connection)
        self._peer: bytes | None = None
        self._heard = float("-inf")
        self._writing = False
        self._announced = 0
        self._announce = IDLE
        # They are reported from the beginning.
        self.counters.update(dict.fromkeys(("sequence", "replayed", "evicted", "resets"), 0))
        self.sender = ReplaySender(
            self.link_name, self.context.incarnation, self.context.common.ring_bytes, source=not self.relay,
            counters=self.counters,
        )  # fmt: skip
        self._wire.watch(self._ready)
        if not self._wire.router:
            self._announce_us()

    @property
    def unconfirmed(self) -> int:
        """Frames that were not acknowledged, as long as there is a receiver that could do so."""
        return self.sender.unacknowledged if self.sender.attached else 0

    def gauges(self) -> dict[str, int]:
        """The ring and the connections."""
        return {
            "ring_bytes": self.sender.ring_bytes,
            "unacknowledged": self.sender.unacknowledged,
            "peers": self._wire.peers,
            "attached": int(self.sender.attached),
        }

    def send(self, frames: Sequence[Buffer]) -> None:
        """Put frames into the ring, and send as much as the socket accepts."""
        self.count_sent(frames)
        # The ring keeps the frames longer than the buffer that a view refers to.
        self.sender.push([bytes(f) if type(f) is memoryview else f for f in frames])
        self.counters["sequence"] = self.sender.end
        if not self._writing:
            self._pump()

    def _pump(self) -> None:
        sender = self.sender
        while (batch := sender.due()) is not None:
            if not self._tell(self.batch(batch.sequence, batch.frames)):
                return
            sender.sent()
        self._write_later(False)

    def _tell(self, message: bytes) -> bool:
        """Send to the receiver; False when that is not possible now, after arranging for a later attempt."""
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
                self.refuse(error, peer=peer.decode(errors="replace"))

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
                    self.on_acknowledged()
        else:
            raise WireError("unexpected", f"{type(value).__name__} from a receiver")

    def _greeted(self, peer: bytes, hello: LinkHello, now: float) -> None:
        if self._peer not in (None, peer) and self.sender.attached and now - self._heard < RECEIVER_SILENCE:
            raise WireError("second_receiver", "the link has one already")
        answer = self.sender.hello(hello.incarnation, hello.next)
        if peer != self._peer:
            self.context.log("info", "receiver.attached", port=self.port, receiver=peer.decode(errors="replace"))
        self._peer, self._heard = peer, now
        if isinstance(answer, LinkReset):
            self.context.log("warning", "replay.impossible", port=self.port, asked=hello.next, starts=answer.sequence)
        if not self._tell(encode(answer)):
            # Without the answer it must not get batches; it will say hello again.
            self.sender.detached()
            return
        self._pump()

    def _announce_us(self) -> None:
        if not self.sender.attached or monotonic() - self._heard > RECEIVER_SILENCE:
            self._wire.send(b"", self.batch(0, []))
        self._announced += 1
        if self._announced % 2 == 0:
            # A receiver must acknowledge what it was sent, and must say hello again if it has done so before.
            expected = self._peer is not None and (self.sender.unacknowledged or not self.sender.attached)
            self._wire.check_silence(self._heard if expected else monotonic())
        self._announce = self.context.reactor.call_later(ANNOUNCE, self._announce_us)

    def _connection(self, what: str) -> None:
        if what == "down" and not self._wire.peers:
            # The only or the last connection has ended; the receiver will say hello on the next one.
            self._lost()

    def close(self) -> None:
        """Close the connection. Frames that were not acknowledged may be lost; the next start reports that gap."""
        self._announce.cancel()
        self._wire.close()


@dataclass
class _Sender:
    """What an input knows about one sender."""

    receiver: ReplayReceiver
    held: deque[tuple[int, tuple[int, ...]]] = field(default_factory=deque)
    """What the core has taken and the outputs of this process have not got acknowledged yet: the number of the next
    frame, and the numbers up to which the outputs had sent by then.
    """
    done: int = 0
    """Everything before this number may be acknowledged."""
    acked: int = 0
    """Everything before this number was acknowledged."""
    bytes: int = 0
    heard: float = 0.0


class ReliableIn(Link):
    """The receiving end."""

    outputs: Sequence[ReliableOut] = ()
    """The reliable outputs of this process, set by the shell. Input is acknowledged only after what they have sent."""

    def open(self) -> None:
        """Bind or connect."""
        self._wire = wire(self, router=self.endpoint.server, on_change=self._connection)
        self._senders: dict[bytes, _Sender] = {}
        if not self._wire.router:
            self._senders[b""] = _Sender(ReplayReceiver(counters=self.counters))
        self._held = False
        self._greeted = False
        """A hello was sent since a connection ended last."""
        self._ack_timer = IDLE
        self._ticks = 0
        self._wire.watch(self._ready)
        self._timer = IDLE
        self._tick()

    def send(self, frames: Sequence[Buffer]) -> None:
        """Is never called: a reliable link has one direction."""
        raise AssertionError("an input does not send")

    def gauges(self) -> dict[str, int]:
        """The connections."""
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
                self.refuse(error, peer=peer.decode(errors="replace"))
                continue
            if frames:
                taken += len(frames)
                size += self._take(self._senders[peer], frames)
        self._say_hello()

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
        self._senders[peer] = sender = _Sender(ReplayReceiver(counters=self.counters))
        return sender

    def _take(self, sender: _Sender, frames: list[bytes]) -> int:
        upto = sender.receiver.next
        size = self.pass_on(frames)
        sender.bytes += size
        sender.held.append((upto, tuple(out.sender.end for out in self.outputs)))
        self._release(sender)
        if sender.done - sender.acked >= ACK_FRAMES or sender.bytes >= ACK_BYTES:
            self._acknowledge()
        else:
            self._acknowledge_soon()
        return size

    def outputs_acknowledged(self) -> None:
        """An output of this process got more acknowledged: what came in for it may be acknowledged, too."""
        for sender in self._senders.values():
            self._release(sender)
        self._acknowledge_soon()

    def _release(self, sender: _Sender) -> None:
        acked = [out.sender.acked for out in self.outputs]
        held = sender.held
        while held and all(end <= at for end, at in zip(held[0][1], acked, strict=True)):
            sender.done = held.popleft()[0]

    # -- acknowledgements and hellos --------------------------------------------------------------

    def _acknowledge_soon(self) -> None:
        if not self._ack_timer.pending:
            self._ack_timer = self.context.reactor.call_later(ACK_DELAY, self._acknowledge)

    def _acknowledge(self) -> None:
        self._ack_timer.cancel()
        for peer, sender in self._senders.items():
            if sender.done > sender.acked:
                ack = LinkAck(sender.receiver.link, sender.receiver.incarnation, sender.done)
                if self._say(peer, encode(ack)):
                    sender.acked, sender.bytes = sender.done, 0

    def _say_hello(self) -> None:
        """Send the hellos that are due."""
        for peer, sender in self._senders.items():
            receiver = sender.receiver
            if receiver.asking and not (self._stopped or self._held):
                incarnation, sequence = receiver.hello(monotonic())
                if self._say(peer, encode(LinkHello(receiver.link or self.link_name, incarnation, sequence))):
                    self._greeted = True
                else:
                    receiver.asking = True

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
        self._say_hello()
        self._ticks += 1
        if self._ticks % TICKS == 0 and not self._wire.router:
            # A sender that has answered once answers each of our hellos. While we send none, it may be silent.
            receiver = self._senders[b""].receiver
            expected = not (self._stopped or self._held) and receiver.incarnation
            self._wire.check_silence(receiver.heard if expected else now)
        self._timer = self.context.reactor.call_later(TICK, self._tick)

    def _connection(self, what: str) -> None:
        if what == "down":
            self._greeted = False
        elif self._wire.router or not self._greeted:
            # A hello that was sent after the end of the previous connection has gone to the sender of this one.
            for sender in self._senders.values():
                sender.receiver.connected()
            self._say_hello()

    def hold(self, on: bool) -> None:
        """Stop taking frames for a while, or take them again; meanwhile they stay in the ring of the sender."""
        if on != self._held and not self._stopped:
            self._held = on
            self._wire.interest(0 if on else READ)

    def stop_reading(self) -> None:
        """Take no more frames; acknowledgements are still sent."""
        self._stopped = True
        self._wire.interest(0)

    def close(self) -> None:
        """Acknowledge what was taken, and close the connection."""
        self.outputs_acknowledged()
        self._acknowledge()
        self._timer.cancel()
        self._wire.close()
