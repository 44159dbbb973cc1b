"""Links between processes. They lose, keep and replay frames as the real ones do.

::

    Tap          kernel queue (`TAP_QUEUE`), the newest is lost; nothing is lost while its reader is dead
    Plain        in order; frames under way are lost when connection or receiver dies; if full, the newest is lost
    Split        one Plain for each worker; frames for a worker that does not exist are lost
    Reliable     `ReplaySender` and `ReplayReceiver`, with the acknowledgements of `colo_runtime.reliable`

`cut()` and `mend()` are called for the network, `source_up`, `target_down`, … for the processes at the ends.
"""

from collections import Counter, deque

from colo_proto.codec import LinkReset
from colo_proto.errors import WireError
from colo_proto.replay import ReplayReceiver, ReplaySender, cut
from colo_proto.topology import TAP_QUEUE

ACK_FRAMES = 64
ACK_DELAY = 0.01


class Wire:
    """One direction of a connection: in order and with a delay; frames under way are lost when it is cut."""

    def __init__(self, world, base, jitter, take):
        self.world, self.base, self.jitter, self.take = world, base, jitter, take
        self.last = 0.0
        self.life = 0
        self.flying = 0

    def send(self, item):
        clock = self.world.clock
        self.last = when = max(self.last, clock.now + self.base + self.world.dice.random() * self.jitter)
        self.flying += 1
        clock.at(when, self._arrive, self.life, item)

    def _arrive(self, life, item):
        if life == self.life:
            self.flying -= 1
            self.take(item)

    def cut(self):
        """Lose the frames that are under way."""
        self.life += 1
        lost, self.flying = self.flying, 0
        return lost


class Tap:
    """The kernel between a host and the process that reads its tap, and the way back."""

    def __init__(self, world, name, host):
        self.world, self.name, self.host = world, name, host
        self.reader = None
        self.port = ""
        self.queue = deque()
        self.lost = 0
        self.reading = False
        self.inward = Wire(world, 0.00001, 0.00003, self._into_host)

    def from_host(self, frame):
        """The host sends a frame: put it into the queue for the process that reads the tap."""
        if len(self.queue) >= TAP_QUEUE:
            self.lost += 1
            self.world.disturb("tap full")
            return
        self.queue.append(frame)
        self.wake()

    def wake(self):
        """Deliver frames if there are any and a process reads."""
        reader = self.reader
        if self.queue and not self.reading and reader is not None and reader.alive and not reader.paused:
            self.reading = True
            self.world.clock.after(0.00002 + self.world.dice.random() * self.world.plan.read_delay, self._read)

    def _read(self):
        self.reading = False
        reader = self.reader
        if not reader.alive or reader.paused:
            return
        frames = [self.queue.popleft() for _ in range(min(64, len(self.queue)))]
        if frames:
            reader.take(self.port, frames)
        self.wake()

    def send(self, frames, to=None):
        """A process writes to the tap."""
        for frame in frames:
            self.inward.send(bytes(frame))

    def _into_host(self, frame):
        self.host.arrive(frame)


class Plain:
    """A plain link between two processes."""

    def __init__(self, world, link, source, target, port, split):
        self.world, self.name, self.split = world, link.name, split
        self.source, self.target, self.port = source, target, port
        self.cross = link.scheme == "tcp"
        base, jitter = world.plan.latency(self.cross)
        self.wire = Wire(world, base, jitter, self._arrive)
        self.pending = deque()
        self.linked = False
        self.is_cut = False
        self.lost = 0

    @property
    def up(self):
        return self.linked and not self.is_cut

    def send(self, frames, to=None):
        for piece in cut(frames):
            batch = [bytes(frame) for frame in piece]
            if self.up and not self.pending and self.wire.flying + len(self.target.inbox) < 64:
                self.wire.send(batch)
            elif (self.split and not self.linked) or len(self.pending) >= self.world.plan.pending_batches:
                self._lose(batch)
            else:
                self.pending.append(batch)
                if self.up:
                    self.world.clock.after(0.001, self._flush)

    def _lose(self, batch):
        self.lost += len(batch)
        self.world.disturb(f"{self.name} lost {len(batch)}")

    def _arrive(self, batch):
        if self.target.alive:
            self.target.take(self.port, batch)
        else:
            self._lose(batch)

    def _flush(self):
        if not self.up:
            return
        while self.pending and self.wire.flying + len(self.target.inbox) < 64:
            self.wire.send(self.pending.popleft())
        if self.pending:
            self.world.clock.after(0.002, self._flush)

    def _broken(self):
        lost = self.wire.cut()
        if lost:
            self.lost += lost
            self.world.disturb(f"{self.name} broke with {lost} under way")

    def cut(self):
        self.is_cut = True
        self._broken()

    def mend(self):
        self.is_cut = False
        self._flush()

    def end_down(self, process):
        self._broken()
        self.linked = False
        if process is self.source:
            self.pending.clear()

    def end_up(self, process):
        if self.source.alive and self.target.alive and not self.linked:
            self.world.clock.after(0.001 + self.world.dice.random() * 0.02, self._connected)

    def _connected(self):
        if self.source.alive and self.target.alive:
            self.linked = True
            self._flush()


class Reliable:
    """A reliable link, such as the mirror link: both ends of `colo_proto.replay`, connected."""

    def __init__(self, world, link, source, source_port, target, port):
        self.world, self.name = world, link.name
        self.source, self.target, self.port = source, target, port
        self.id = f"{source.id}.{source_port}"
        self.cross = link.scheme == "tcp"
        self.bound_at_source = link.bound == "source"
        base, jitter = world.plan.latency(self.cross)
        self.forth = Wire(world, base, jitter, self._at_target)
        self.back = Wire(world, base, jitter, self._at_source)
        self.sender = self.receiver = None
        self.linked = self.is_cut = False
        self.inputs = ()
        """Reliable links into the source, which acknowledge only what this link has had acknowledged."""
        self.outputs = ()
        """Reliable links out of the target."""
        self.held = deque()
        self.done = self.acked = 0
        self.ack_due = False
        self.gaps = 0
        self.chats = 0

    @property
    def up(self):
        return self.linked and not self.is_cut

    # -- the sending end -------------------------------------------------------------------------

    def send(self, frames, to=None):
        self.sender.push([bytes(frame) for frame in frames])
        self._pump()

    def _pump(self):
        sender = self.sender
        while self.up and self.forth.flying < 128 and (batch := sender.due()) is not None:
            self.forth.send(batch)
            sender.sent()

    def _at_source(self, message):
        if not self.source.alive:
            return
        if self.source.paused:
            self.source.later(self._at_source, message)
            return
        kind, incarnation, sequence = message
        try:
            if kind == "hello":
                answer = self.sender.hello(incarnation, sequence)
                self.forth.send(answer)
            else:
                before = self.sender.acked
                self.sender.ack(incarnation, sequence)
                if self.sender.acked != before:
                    for link in self.inputs:
                        link.settle()
        except WireError as error:
            self.world.note(self.name, "refused", str(error))
            return
        self._pump()

    # -- the receiving end -----------------------------------------------------------------------

    def _at_target(self, message):
        target = self.target
        if not target.alive:
            return
        if target.paused:
            target.later(self._at_target, message)
            return
        now = self.world.clock.now
        receiver = self.receiver
        if hasattr(message, "frames"):
            frames = receiver.batch(message, now)
            if frames:
                self._pass_on(frames)
        else:
            before = receiver.incarnation
            missing = receiver.answer(message, now)
            if before != receiver.incarnation:
                self.held.clear()
                self.done = self.acked = receiver.next
            if missing:
                self.gaps += 1
                self.world.note(self.name, "gap", message.sequence, isinstance(message, LinkReset))
                target.gap(self.port, message.sequence)
        self._chat()
        self._pump()

    def _pass_on(self, frames):
        upto = self.receiver.next
        self.target.take(self.port, frames)
        if self.outputs:
            marks = tuple(link.sender.end for link in self.outputs)
            self.held.append((upto, marks))
            self._settle()
        else:
            self.done = upto
        if self.done - self.acked >= ACK_FRAMES:
            self._acknowledge(self.target.incarnation)
        elif not self.ack_due:
            self.ack_due = True
            self.world.clock.after(ACK_DELAY, self._acknowledge, self.target.incarnation)

    def settle(self):
        """An output of the target was acknowledged further."""
        self._settle()
        if not self.ack_due:
            self.ack_due = True
            self.world.clock.after(ACK_DELAY, self._acknowledge, self.target.incarnation)

    def _settle(self):
        at = tuple(link.sender.acked for link in self.outputs)
        while self.held and all(there <= here for there, here in zip(self.held[0][1], at, strict=True)):
            self.done = self.held.popleft()[0]

    def _acknowledge(self, incarnation):
        if incarnation != self.target.incarnation:
            return
        self.ack_due = False
        if self.target.alive and self.up and self.done > self.acked:
            self.acked = self.done
            self.back.send(("ack", self.receiver.incarnation, self.done))

    def _chat(self):
        receiver = self.receiver
        if receiver.asking and self.up:
            self.back.send(("hello", *receiver.hello(self.world.clock.now)))

    def _tick(self, incarnation):
        """Nothing arrives, so the receiver asks for it."""
        if incarnation != self.target.incarnation or not self.target.alive:
            return
        now = self.world.clock.now
        if not self.target.paused:
            self.receiver.on_timer(now)
            self._chat()
        self.world.clock.at(max(self.receiver.deadline(), now + 0.1), self._tick, incarnation)

    # -- life ------------------------------------------------------------------------------------

    def cut(self):
        self.is_cut = True
        self._apart()

    def mend(self):
        self.is_cut = False
        self._together()

    def _apart(self):
        self.forth.cut()
        self.back.cut()
        if self.sender is not None:
            self.sender.detached()

    def _together(self):
        if self.up:
            self.receiver.connected()
            self._chat()

    def end_down(self, process):
        self._apart()
        self.linked = False
        if process is self.source:
            self.sender = None
        else:
            self.receiver = None

    def end_up(self, process):
        if process is self.source:
            self.sender = ReplaySender(
                self.id, self.source.incarnation, self.world.plan.ring_bytes, Counter(), source=not self.inputs
            )
        else:
            self.receiver = ReplayReceiver(Counter())
            self.held.clear()
            self.done = self.acked = 0
            self.ack_due = False
            self._tick(process.incarnation)
        if self.source.alive and self.target.alive and not self.linked:
            self.world.clock.after(0.001 + self.world.dice.random() * 0.02, self._connected)

    def _connected(self):
        if self.source.alive and self.target.alive and not self.linked:
            self.linked = True
            self._together()
