"""Several compares, the splitters of both hosts and both COLO frames, connected by queues in one thread.

::

    primary guest ---> splitter ---> queue of each worker ---> compare ---> released, by flow
    secondary guest -> splitter ---> queue of each worker -------^
    compares <---> frame of the primary <---> frame of the secondary ---> splitter of the secondary

Each queue keeps its order; the seed decides which queue is next. The order in which the workers handled their input is
recorded: a single compare that gets the same input must release the same.
"""

from collections import Counter, defaultdict, deque
from random import Random

import craft
from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_frame.registry import EVERYBODY
from colo_proto.core import Send, Tell
from colo_proto.messages import CheckpointDone, Drain, Heartbeat, Hello, Report, WorkerTable
from colo_proto.net import packet as p
from colo_proto.net.flow import about
from colo_proto.net.tcp import ACK, FIN, PSH, RST, SYN
from colo_proto.shard import Splitter

GUEST, CLIENT = "10.0.0.2", "10.0.0.9"
GUEST6, CLIENT6 = "fd00::2", "fd00::9"
TICK = 1e-6
"""Seconds from one event to the next, so short that no timer of compare fires by itself."""


class Recorder(Compare):
    """A compare that keeps what it handled in a list shared with others."""

    def __init__(self, config, record):
        super().__init__(config)
        self._record = record

    def handle(self, port, frames, now):
        self._record.extend((port, frame, now) for frame in frames)
        super().handle(port, frames, now)


class Sharing:
    def __init__(self, seed, workers=1, **config):
        self.random = Random(seed)
        self.now = 100.0
        self.config = config
        self.queues = defaultdict(deque)
        self.splitters = {"p": Splitter(), "s": Splitter()}
        self.workers = {}
        self.record = []
        self.released = defaultdict(list)
        """Frames by flow, as they were released."""
        self.gone = Counter()
        """Counters of workers that have left."""
        self.left = []
        self.done = []
        self.logs = []
        self.dropped = Counter()
        names = ",".join(f"comp{i}" for i in range(workers))
        self.frames = {
            "p": Frame(FrameConfig(id="frame-p", peer="tcp://s:1", workers=names), 1, self.now),
            "s": Frame(FrameConfig(id="frame-s", side="secondary", peer="tcp://p:1"), 2, self.now),
        }
        self.count = 0
        self.beat()
        for side, splitter in (("p", "redire1"), ("s", "f2")):
            self.queues["up", side].append((splitter, Hello("redirector", splitter, 1)))
        for i in range(workers):
            self.start(f"comp{i}")
        self.calm()

    # -- workers ------------------------------------------------------------------------------------

    def start(self, name):
        worker = self.workers[name] = Recorder(CompareConfig(id=name, **self.config), self.record)
        self.count += 1
        worker.incarnation = self.count
        self.queues["up", "p"].append((name, Hello("compare", name, self.count)))
        for side in "ps":
            self.queues[side, name].append(self.splitters[side].version)
        self.queues["report", name].append(None)

    def leave(self, name):
        outputs = self.workers[name].leave(self.now)
        self.take(name, outputs)
        if not outputs:
            # Nobody shares out to it yet, so it has nothing to hand over.
            assert not self.workers[name].table.flows
            self.kill(name)

    def kill(self, name):
        """Kill it, as by SIGKILL: everything on its way to it is lost as well."""
        del self.workers[name]
        for queue in [queue for queue in self.queues if name in queue]:
            self.queues[queue].clear()

    def take(self, name, outputs):
        for output in outputs:
            if isinstance(output, Send):
                for frame in output.frames:
                    self.released[flow_of(frame)].append(bytes(frame))
            elif isinstance(output, Tell):
                self.queues["up", "p"].append((name, output.message))
            else:
                self.logs.append(output)

    # -- frames -------------------------------------------------------------------------------------

    def guest(self, side, frame):
        """A guest sends a frame."""
        shares = self.splitters[side].split([frame])
        assert shares, "nobody to send to"
        ((worker, share),) = shares.items()
        if worker in self.workers:
            self.queues[side, worker].append(share)
        else:
            self.dropped[side] += 1

    def table(self, side, table):
        before = self.splitters[side].workers
        if self.splitters[side].table(table):
            for worker in dict.fromkeys([*before, *table.workers]):
                if worker in self.workers:
                    self.queues[side, worker].append(table.version)

    # -- the frames ---------------------------------------------------------------------------------

    def beat(self):
        for side, frame in self.frames.items():
            self.frame_says(side, frame.on_timer(self.now))
            other = "s" if side == "p" else "p"
            self.frame_says(other, [])

    def frame_says(self, side, outputs):
        for output in outputs:
            if not isinstance(output, Tell):
                self.logs.append(output)
            elif output.to == PEER:
                self.queues["peer", "s" if side == "p" else "p"].append(output.message)
            elif isinstance(output.message, WorkerTable) and output.to in (EVERYBODY, "redire1", "f2"):
                self.queues["table", side].append(output.message)
                if side == "p" and output.to == EVERYBODY:
                    for name in self.workers:
                        self.queues["down", name].append(output.message)
            elif side == "p":
                for name in [*self.workers] if output.to == EVERYBODY else [output.to]:
                    if name in self.workers:
                        self.queues["down", name].append(output.message)

    # -- one event ----------------------------------------------------------------------------------

    def step(self):
        """Deliver the first item of a queue that the seed chooses. False when all queues are empty."""
        full = [queue for queue, items in self.queues.items() if items]
        if not full:
            return False
        kind, who = queue = self.random.choice(full)
        item = self.queues[queue].popleft()
        self.now += TICK
        now = self.now
        if kind == "up":
            sender, message = item
            self.frame_says(who, self.frames[who].hear(sender, message, now))
        elif kind == "peer":
            self.frame_says(who, self.frames[who].hear(PEER, item, now))
        elif kind == "table":
            self.table(who, item)
        elif who not in self.workers:
            pass
        elif kind == "report":
            self.report(who)
            if not self.workers[who].handovers.linked or self.workers[who].handovers.busy:
                self.queues[queue].append(None)
        elif kind == "down":
            self.hear(who, item, now)
        elif isinstance(item, int):
            port = "primary_in" if kind == "p" else "secondary_in"
            self.take(who, self.workers[who].barrier(port, item, now))
        else:
            port = "primary_in" if kind == "p" else "secondary_in"
            self.take(who, self.workers[who].receive(port, item, now))
        return True

    def report(self, name):
        worker = self.workers[name]
        report = Report("compare", name, worker.incarnation, {}, worker.gauges(), worker.status())
        self.queues["up", "p"].append((name, report))

    def hear(self, name, message, now):
        worker = self.workers[name]
        if isinstance(message, Drain):
            assert not worker.table.flows, "it may leave only without flows"
            assert worker.ledger.held == worker.ledger.held_secondary == worker.handovers.parked == 0
            self.take(name, worker.drain(now))
            self.gone.update(worker.counters)
            self.left.append(name)
            del self.workers[name]
            return
        if isinstance(message, CheckpointDone):
            self.done.append(name)
        self.take(name, worker.tell(message, now))

    def calm(self):
        """Continue until nothing is on its way and every process has reported that."""
        for _ in range(3):
            while any(items for (kind, _), items in self.queues.items() if kind != "report"):
                self.step()
            for name in list(self.workers):
                self.report(name)
        while any(items for (kind, _), items in self.queues.items() if kind != "report"):
            self.step()

    def wait(self, seconds):
        """Let time pass, and fire every timer that is due."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.25
            for name, worker in list(self.workers.items()):
                due = worker.deadline()
                if due is not None and due <= self.now:
                    self.take(name, worker.on_timer(self.now))
                self.report(name)
            for side, splitter in (("p", "redire1"), ("s", "f2")):
                self.queues["up", side].append((splitter, Report("redirector", splitter, 1, {}, {})))
            self.beat()
            self.calm()

    # -- looking --------------------------------------------------------------------------------------

    @property
    def counters(self):
        total = Counter(self.gone)
        for worker in self.workers.values():
            total.update(worker.counters)
        return total

    def reference(self):
        """What a single compare releases by flow when it gets the input of all workers, and its counters."""
        one = Compare(CompareConfig(id="one", **self.config))
        released = defaultdict(list)
        for port, frame, now in self.record:
            for output in one.receive(port, [frame], now):
                if isinstance(output, Send):
                    for out in output.frames:
                        released[flow_of(out)].append(bytes(out))
        return released, one.counters


def flow_of(frame):
    packet = p.dissect(frame)
    if packet.kind == p.Kind.FRAGMENT:
        # Only the first fragment names its flow; the fragments of one datagram leave together.
        return packet.key[:1] + packet.ident.to_bytes(4, "big")
    return about(packet.key) or packet.key or bytes(frame)


# -- traffic ------------------------------------------------------------------------------------------


def stream(port, random, *, size=4000, version=4, isn=None, repeats=True):
    """What both guests send on one connection of the client: two lists of frames with different segments."""
    guest, client = (GUEST, CLIENT) if version == 4 else (GUEST6, CLIENT6)
    start = random.randrange(1 << 32) if isn is None else isn
    data = random.randbytes(size)
    options = craft.mss(1460) + craft.wscale(3)

    def one(*, secondary):
        def tcp(seq, flags, payload=b"", **more):
            more.setdefault("window", random.randrange(200, 500))
            ack = 5001 + (len(sent) // 3) * 100
            return craft.tcp(guest, client, 80, port, seq & 0xFFFFFFFF, ack, flags, payload, **more)

        sent = []
        # The secondary's SYN has a number of its own (compare looks at its options alone).
        first = random.randrange(1 << 32) if secondary else start
        sent.append(craft.tcp(guest, client, 80, port, first, 5001, SYN | ACK, window=65535, options=options))
        at = 0
        while at < size:
            cut = min(random.choice((1, 100, 536, 1400, 1400, 3000)), size - at)
            sent.append(tcp(start + 1 + at, ACK | PSH, data[at : at + cut]))
            if repeats and random.random() < 0.1 and at:
                back = random.randrange(at)
                sent.append(tcp(start + 1 + back, ACK, data[back : back + min(200, at - back)]))
            if random.random() < 0.2:
                sent.append(tcp(start + 1 + at + cut, ACK))
            at += cut
        sent.append(tcp(start + 1 + size, ACK | FIN))
        # Now both acknowledge what only one has acknowledged before.
        sent.append(craft.tcp(guest, client, 80, port, (start + 2 + size) & 0xFFFFFFFF, 500_000, ACK, window=400))
        return sent

    return one(secondary=False), one(secondary=True)


def datagrams(port, random, *, count=12, version=4):
    guest, client = (GUEST, CLIENT) if version == 4 else (GUEST6, CLIENT6)
    sent = []
    for number in range(count):
        big = random.random() < 0.25
        body = port.to_bytes(2, "big") + number.to_bytes(2, "big") + random.randbytes(3000 if big else 20)
        frame = craft.udp(guest, client, 53, port, body, ident=port * 32 + number & 0xFFFF, dont_fragment=False)
        sent += craft.fragments(frame, 1280) if big else [frame]
    return sent, list(sent)


def echoes(client, random, *, count=8):
    sent = [
        craft.icmp_echo(GUEST, client, ident=7, seq=number, payload=random.randbytes(16), reply=True)
        for number in range(count)
    ]
    return sent, list(sent)


def errors(port, random, *, count=4):
    sent = []
    for number in range(count):
        question = craft.udp(CLIENT, GUEST, port, 53, random.randbytes(10 + number))
        sent.append(craft.icmp_error(GUEST, CLIENT, question))
    return sent, list(sent)


def reset(port, random):
    """A connection that both guests reset."""
    mine, its = stream(port, random, size=500)
    end = craft.tcp(GUEST, CLIENT, 80, port, 0, 0, RST)
    return [*mine, end], [*its, end]


def mixture(random, flows):
    """A mixture of `flows` flows of all kinds, as lists of pairs."""
    out = []
    for number in range(flows):
        kind, version = number % 6, 4 if number % 4 else 6
        if kind in (0, 1, 2):
            out.append(stream(3000 + number, random, size=random.randrange(1, 9000), version=version))
        elif kind == 3:
            out.append(datagrams(3000 + number, random, version=version))
        elif kind == 4:
            out.append(echoes(f"10.0.1.{number % 250}", random))
        else:
            out.append(errors(3000 + number, random))
    return out


def drive(sharing, flows, events, *, pace=0.3):
    """Feed both guests' frames in the seed's order; `events` are (after how many frames, what to do)."""
    random = sharing.random
    for pair in flows:
        # No guest sends more before the client has its SYN/ACK.
        for side, frames in zip("ps", pair, strict=True):
            sharing.guest(side, frames[0])
    sharing.calm()
    sources = [(side, deque(frames[1:])) for pair in flows for side, frames in zip("ps", pair, strict=True)]
    total = sum(len(frames) for _, frames in sources)
    plan = deque(sorted(((int(share * total), act) for share, act in events), key=lambda one: one[0]))
    fed = 0
    while sources:
        at = random.randrange(len(sources))
        side, frames = sources[at]
        sharing.guest(side, frames.popleft())
        fed += 1
        if not frames:
            sources[at] = sources[-1]
            sources.pop()
        while plan and fed >= plan[0][0]:
            plan.popleft()[1](sharing)
        while random.random() > pace:
            if not sharing.step():
                break
    sharing.calm()


__all__ = ["Heartbeat", "Sharing", "datagrams", "drive", "mixture", "reset", "stream"]
