"""The whole pair in one process: every core of `plan` in its real shell, joined by in-memory ZeroMQ links.

::

    client --inproc--> m0 … f1 … rew0 --inproc--> secondary guest     taps are played by bare sockets;
           <--inproc-- redire0 … compare …  <---- primary guest       command lines are those of the topology

Nothing waits for the clock: the loops are turned until what must arrive has arrived.
"""

import time
from collections import Counter

import zmq

import craft
from colo_lab import invariants
from colo_lab.observed import Process, Usage
from colo_proto import codec
from colo_proto.claim import State
from colo_proto.core import Way
from colo_proto.messages import Query
from colo_proto.net import packet as p
from colo_proto.net import tcp
from colo_proto.topology import SIDES, Site, plan
from colo_runtime.service import make_shell, resolve, services
from runtime_helpers import Log, step

ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
SYN, ACK, FIN, PSH = tcp.SYN, tcp.ACK, tcp.FIN, tcp.PSH


class Tap:
    """A tap's kernel side: what a filter reads is sent here, what it writes is received."""

    def __init__(self, bench, endpoint):
        self.socket = bench.zmq(zmq.DEALER, endpoint, bind=True)
        self.sent = 0

    def send(self, frames):
        for at in range(0, len(frames), 64):
            some = frames[at : at + 64]
            self.socket.send(codec.encode_batch("tap", 1, self.sent, 0, time.monotonic(), some))
            self.sent += len(some)

    def receive(self):
        frames = []
        while self.socket.poll(0):
            frames += codec.decode(self.socket.recv()).frames
        return frames


class Guest:
    """A server: echoes datagrams, answers each TCP request by its bytes in capitals. `clock` and `isn` are its own."""

    def __init__(self, isn, clock, twist=lambda _port, answer: answer):
        self.isn, self.clock, self.twist = isn, clock, twist
        self.connections = {}
        self.errors = []
        self.said = []
        self.seen = []

    def hear(self, frames):
        answers = [answer for frame in frames for answer in self.answer(frame)]
        self.seen += frames
        self.said += answers
        return answers

    def answer(self, frame):
        packet = p.dissect(frame)
        if packet.kind is not p.Kind.IP:
            return []
        them, us = ADDRESSES[packet.version]
        sport, dport = tcp.read32(frame, packet.l4) >> 16, tcp.read32(frame, packet.l4) & 0xFFFF
        if packet.proto == p.PROTO_UDP:
            return [craft.udp(us, them, dport, sport, self.twist(sport, packet.payload()[8:]))]
        found = tcp.segment(frame, packet.l4, packet.end)
        stamp = tcp.timestamps_at(frame, packet.l4, found.data)
        self.clock += 1
        options = craft.timestamps(self.clock, tcp.read32(frame, stamp))
        key = (packet.version, sport)

        def segment(seq, ack, flags, payload=b"", more=b""):
            return craft.tcp(us, them, dport, sport, seq, ack, flags, payload, options=more + options, window=50000)

        if found.flags & SYN:
            isn = (self.isn + sport * 100_003) & 0xFFFFFFFF
            self.connections[key] = [(isn + 1) & 0xFFFFFFFF, (found.seq + 1) & 0xFFFFFFFF]
            return [segment(isn, found.seq + 1 & 0xFFFFFFFF, SYN | ACK, more=craft.mss(1400))]
        snd, rcv = self.connections[key]
        if found.seq != rcv or found.ack != snd:
            self.errors.append((sport, found, snd, rcv))
            return []
        payload = bytes(frame[found.data : found.end])
        rcv = (rcv + len(payload) + bool(found.flags & FIN)) & 0xFFFFFFFF
        out = []
        if payload:
            answer = self.twist(sport, payload.upper())
            out.append(segment(snd, rcv, PSH | ACK, answer))
            snd = (snd + len(answer)) & 0xFFFFFFFF
        elif found.flags & FIN:
            out.append(segment(snd, rcv, FIN | ACK))
            snd = (snd + 1) & 0xFFFFFFFF
        self.connections[key] = [snd, rcv]
        return out


class Caller:
    """A client's connection: request, answer, request, …, FIN."""

    def __init__(self, version, port, requests):
        self.version, self.port, self.requests = version, port, requests
        self.snd, self.rcv, self.stamp = (0xFFFFFF00 + port * 7) & 0xFFFFFFFF, 0, 0
        self.got, self.state, self.clock = [], "syn", 1
        self.stays = False
        """It does not close when it has nothing more to ask."""

    def segment(self, flags, payload=b"", more=b""):
        them, us = ADDRESSES[self.version][1], ADDRESSES[self.version][0]
        self.clock += 1
        options = more + craft.timestamps(self.clock, self.stamp)
        ack = self.rcv if flags & ACK else 0
        frame = craft.tcp(us, them, self.port, 80, self.snd, ack, flags, payload, options=options, window=50000)
        self.snd = (self.snd + len(payload) + bool(flags & (SYN | FIN))) & 0xFFFFFFFF
        return frame

    def open(self):
        return [self.segment(SYN, more=craft.mss(1400))]

    def hear(self, frame, found):
        stamp = tcp.timestamps_at(frame, p.dissect(frame).l4, found.data)
        self.stamp = tcp.read32(frame, stamp)
        if self.state == "syn":
            assert found.flags == SYN | ACK
            self.rcv, self.state = (found.seq + 1) & 0xFFFFFFFF, "open"
            return [self.segment(ACK), *self.ask()]
        assert found.seq == self.rcv, "not the byte that comes next"
        assert found.ack == self.snd
        payload = bytes(frame[found.data : found.end])
        self.rcv = (self.rcv + len(payload) + bool(found.flags & FIN)) & 0xFFFFFFFF
        if payload:
            self.got.append(payload)
            return [self.segment(ACK), *self.ask()] if len(self.got) % 3 else self.ask()
        if found.flags & FIN:
            self.state = "closed"
            return [self.segment(ACK)]
        return []

    def ask(self):
        if len(self.got) < len(self.requests):
            return [self.segment(PSH | ACK, self.requests[len(self.got)])]
        if self.stays:
            return []
        self.state = "closing"
        return [self.segment(FIN | ACK)]


class World:
    """The pair, its guests and its clients."""

    def __init__(self, bench, wiring, workers, secondary=None, **extra):
        self.bench, self.wiring, self.workers = bench, wiring, workers
        self.taps, self.shells, self.plans = {}, {}, {}
        self.primary = Guest(0xFFFFFF80, 1_000_000)
        self.secondary = secondary or Guest(0x10000000, 77)
        for side in SIDES:
            site = Site(
                "x",
                side,
                "secondary" if side == "primary" else "primary",
                {"lan": "lan", "guest": "guest"},
                extra=extra,
            )
            for spec in plan(side, wiring, workers, site):
                if spec.role != "netdev":
                    self.plans[spec.id] = (side, spec)
                    self.start(spec.id)
        self.callers = {}
        self.to_client = []
        self.from_client = []

    def start(self, name):
        """A process of the plan, with its links in memory."""
        side, spec = self.plans[name]
        service = services()[spec.role]
        ways = {port.name: port.way for port in self.core_ports(spec)}
        flags = {key.replace("-", "_"): value for key, value in spec.options.items()}
        for key, value in flags.items():
            if isinstance(value, str) and "://" in value:
                flags[key] = self.local(side, ways.get(key), value)
        found = resolve(service, service.table(), {**flags, "drain_timeout": 60}, {})
        shell = make_shell(found, Log(), self.bench.context)
        self.shells[name] = self.bench.add(shell)
        return shell

    @staticmethod
    def core_ports(spec):
        service = services()[spec.role]
        flags = {k.replace("-", "_"): v for k, v in spec.options.items()} | {"insecure": "on"}
        found = resolve(service, service.table(), flags, {})
        return getattr(service.core_class()(found.config), "ports", ()) if spec.role != "frame" else ()

    def local(self, side, way, text):
        url, _, query = text.partition("?")
        scheme, _, address = url.partition("://")
        if scheme == "tap":
            name = f"{address}-{side[0]}-{way.value}"
            if name not in self.taps:
                self.taps[name] = Tap(self.bench, f"inproc://{name}")
            return f"inproc://{name}"
        # What crosses hosts has one name on both sides; what does not is told apart by side.
        name = address if scheme == "tcp" else side[0] + address.replace("/", ".")
        return f"inproc://{name}" + (f"?{query}" if query else "")

    def tap(self, name, way):
        return self.taps.get(f"{name}-{way.value}")

    def send(self, frames):
        self.from_client += frames
        for side in "ps" if self.wiring == "symmetric" else "p":
            self.tap(f"lan-{side}", Way.IN).send(frames)

    def call(self, version, port, requests, *, stays=False):
        one = self.callers[version, port] = Caller(version, port, requests)
        one.stays = stays
        self.send(one.open())

    def serve(self, side, guest):
        """The guest of a side answers what has come."""
        both = self.tap(f"guest-{side}", Way.BOTH)
        heard = guest.hear((both or self.tap(f"guest-{side}", Way.OUT)).receive())
        (both or self.tap(f"guest-{side}", Way.IN)).send(heard)

    def order_failover(self, side):
        """`colo failover` at the frame of a side, as soon as that is a replica; wait until both frames have done it."""
        frames = {one: self.shells[f"frame-{one[0]}"].core.side for one in SIDES}
        self.until(lambda: frames[side].promotable(time.monotonic()))
        shell = self.shells[f"frame-{side[0]}"]
        shell._do(shell.core.hear("cli", Query("failover"), time.monotonic()))
        states = {one: State.HOLDING if one == side else State.STANDBY for one in SIDES}
        self.until(lambda: {one: frames[one].ownership.leadership.state for one in SIDES} == states)
        mirrors = {one: self.shells["m0" if one == "primary" else "m0-s"] for one in SIDES}
        self.until(lambda: all(m.snapshot().gauges["promoted"] == (one == side) for one, m in mirrors.items()))

    def comps(self, side):
        return [name for name, (of, spec) in self.plans.items() if (of, spec.role) == (side, "compare")]

    def compared(self, side):
        return sum(self.shells[name].snapshot().counters["released.compared"] for name in self.comps(side))

    def turn(self):
        for shell in list(self.shells.values()):
            step(shell, 0.0)
        self.serve("p", self.primary)
        self.serve("s", self.secondary)
        # Claims of the LAN cross it as well; clients are not concerned.
        heard = self.tap("lan-p", Way.OUT).receive()
        if self.wiring == "symmetric":
            heard += self.tap("lan-s", Way.OUT).receive()
        arrived = [frame for frame in heard if p.dissect(frame).kind is p.Kind.IP]
        self.to_client += arrived
        for frame in arrived:
            packet = p.dissect(frame)
            if packet.proto == p.PROTO_TCP:
                found = tcp.segment(frame, packet.l4, packet.end)
                caller = self.callers[packet.version, tcp.read32(frame, packet.l4) & 0xFFFF]
                self.send(caller.hear(frame, found))

    def until(self, condition, patience=120.0):
        end = time.monotonic() + patience
        while not condition():
            self.turn()
            assert time.monotonic() < end, self.why()

    def why(self):
        counters = {
            name: {k: n for k, n in shell.snapshot().counters.items() if n} for name, shell in self.shells.items()
        }
        return f"{self.primary.errors} {self.secondary.errors} {[c.state for c in self.callers.values()]} {counters}"

    def ready(self):
        self.until(lambda: not any(shell.waiting_for() for shell in self.shells.values()))
        splitters = [s for s in self.shells.values() if "table_version" in s.snapshot().gauges and s.role != "frame"]
        self.until(lambda: all(s.snapshot().gauges["table_version"] >= 0 for s in splitters))
        self.until(lambda: self.shells["frame-p"].snapshot().gauges["peer_alive"])
        if self.wiring == "symmetric":
            self.until(lambda: self.shells["m0"].snapshot().gauges["promoted"])

    def idle(self):
        gauges = [shell.snapshot().gauges for shell in self.shells.values()]
        held = sum(g.get("held", 0) + g.get("held_secondary", 0) for g in gauges)
        queued = sum(n for g in gauges for name, n in g.items() if name.endswith((".queue_bytes", ".unacknowledged")))
        return not held and not queued

    def compares(self, name):
        return sum(s.snapshot().counters.get(name, 0) for s in self.shells.values() if s.role == "compare")

    def verdicts(self, **facts):
        processes = []
        for name, shell in self.shells.items():
            seen = shell.snapshot()
            counters, gauges, host = Counter(seen.counters), Counter(seen.gauges), "host-" + self.plans[name][0][0]
            processes.append(
                Process(
                    shell.role, name, host, 1, Usage(), 0,
                    complete=True, reported=True, counters=counters, gauges=gauges, detail=seen.status,
                )
            )  # fmt: skip
        facts = {"mode": "enforce", "same_guests": True, "settled": True} | facts
        return invariants.judge(invariants.Facts(processes=processes, wiring=self.wiring, **facts))
