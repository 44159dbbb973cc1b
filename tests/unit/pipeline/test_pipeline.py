"""The whole pair in one process: every core of `plan` in its real shell, joined by in-memory ZeroMQ links.

::

    client --inproc--> m0 … f1 … rew0 --inproc--> secondary guest     taps are played by bare sockets;
           <--inproc-- redire0 … compare …  <---- primary guest       command lines are those of the topology

Nothing waits for the clock: the loops are turned until what must arrive has arrived.
"""

import time
from collections import Counter
from struct import pack

import pytest
import zmq

import craft
from colo_frame.table import make_table
from colo_lab import invariants
from colo_lab.observed import Process, Usage
from colo_proto import codec
from colo_proto.core import Way
from colo_proto.messages import Demote, Promote, Reason
from colo_proto.net import packet as p
from colo_proto.net import tcp
from colo_proto.topology import SIDES, WIRINGS, Site, plan
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

    def lead(self, side, fence):
        """Say what COLO frames say when this side of the symmetric wiring begins to lead. Those here stop."""
        self.shells.pop("frame-p", None)
        self.shells.pop("frame-s", None)
        version = max(shell.snapshot().gauges.get("table_version", 0) for shell in self.shells.values())
        table = make_table(version + 1, self.comps(side))
        for shell in self.shells.values():
            shell._hear(table)
        self.say_who_leads(side, fence)

    def say_who_leads(self, side, fence):
        for name, shell in self.shells.items():
            of, spec = self.plans[name]
            if spec.role in ("mirror", "rewriter"):
                shell._hear(Promote(fence) if of == side else Demote(fence))

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
            self.say_who_leads("primary", 2)

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


NOT_JUDGED = {"faithful": set(), "lean": set(), "symmetric": {"S6"}}
"""The lab's judge does not know which links of the symmetric wiring are in use."""


@pytest.fixture(params=[(w, n) for w in WIRINGS for n in (1, 3)], ids=lambda param: f"{param[0]}-{param[1]}")
def world(request, bench):
    one = World(bench, *request.param)
    one.ready()
    return one


def requests(count, size):
    return [bytes([97 + n % 26]) * (size + n) for n in range(count)]


def datagrams(count):
    return [craft.udp(*ADDRESSES[4 + 2 * (n % 2)], 20_000 + n % 17, 53, pack("!I", n) * 5) for n in range(count)]


def test_a_few_hundred_frames_of_everything(world):
    asked = requests(12, 300)
    for n in range(6):
        world.call(4 + 2 * (n % 2), 40_000 + n, asked)
    for n in range(0, 300, 30):
        world.send(datagrams(300)[n : n + 30])
        world.turn()
    world.send([craft.arp_request("10.77.0.1", "10.77.0.2")])
    world.until(lambda: all(one.state == "closed" for one in world.callers.values()))
    world.until(lambda: len(world.secondary.seen) == len(world.from_client) and world.idle())
    # Every connection got every answer, whole and in order.
    for one in world.callers.values():
        assert one.got == [request.upper() for request in asked]
    assert world.primary.errors == world.secondary.errors == []
    # The client got exactly what the primary said, each flow in its order.
    assert sorted(world.to_client) == sorted(world.primary.said)
    for key in {p.dissect(frame).key for frame in world.primary.said}:
        assert [f for f in world.to_client if p.dissect(f).key == key] == [
            f for f in world.primary.said if p.dissect(f).key == key
        ]
    # Both guests saw the same frames, but for the numbers that the rewriter moved.
    assert world.primary.seen == world.from_client
    assert [p.dissect(f).key for f in world.secondary.seen] == [p.dissect(f).key for f in world.from_client]
    assert world.compares("checkpoints_wanted.payload") == world.compares("miscompares") == 0
    verdicts = world.verdicts()
    names = {"S1", "S4", "S5", "S6", "L1", "E2"} - NOT_JUDGED[world.wiring]
    assert {name: verdicts[name].verdict for name in names} == dict.fromkeys(names, "held"), verdicts
    # Nothing went anywhere but on: counters of every link.
    for shell in world.shells.values():
        bad = ("dropped", "wire_errors", "lost")
        wrong = {k: n for k, n in shell.snapshot().counters.items() if n and any(word in k for word in bad)}
        # The mirror of a host that does not lead drops what the other one mirrors.
        known = ("secondary_dropped", "dropped.standby") if shell.id == "m0-s" else ("secondary_dropped",)
        assert {k for k in wrong if not k.startswith(known)} == set(), shell.id


@pytest.mark.parametrize("workers", [1, 3])
def test_two_symmetric_hosts_change_roles_twice_under_open_connections(bench, workers):
    world = World(bench, "symmetric", workers, rewriter={"revive": "off"})
    world.ready()
    rounds, ports = requests(12, 300), []
    for turn, (side, fence) in enumerate([("primary", 2), ("secondary", 3), ("primary", 4)]):
        world.lead(side, fence)
        before = [world.compared(one) for one in SIDES]
        for caller in world.callers.values():
            caller.requests += rounds[turn * 4 : turn * 4 + 4]
            caller.stays = turn < 2
            world.send(caller.ask())
        for n in range(6):
            # Connections that begin now, beside those of the turns before.
            ports.append(40_000 + 100 * turn + n)
            world.call(4 + 2 * (n % 2), ports[-1], rounds[turn * 4 : turn * 4 + 4], stays=turn < 2)
        wanted = "open" if turn < 2 else "closed"
        world.until(
            lambda wanted=wanted: (
                all((c.state, len(c.got)) == (wanted, len(c.requests)) for c in world.callers.values())
                and len(world.primary.seen) == len(world.secondary.seen) == len(world.from_client)
                and world.idle()
            ),
            20.0,
        )
        grown = [world.compared(one) > was for one, was in zip(SIDES, before, strict=True)]
        assert grown == [one == side for one in SIDES], "the leader's workers compare"
    for caller in world.callers.values():
        assert caller.got == [request.upper() for request in caller.requests]
    assert len(world.callers) == len(ports) == 18
    assert world.primary.errors == world.secondary.errors == []
    assert world.compares("checkpoints_wanted.payload") == world.compares("miscompares") == 0


def test_all_workers_have_their_part(bench):
    world = World(bench, "faithful", 3)
    world.ready()
    world.send(datagrams(300))
    world.until(lambda: len(world.to_client) == 300)
    parts = [s.snapshot().counters["frames_primary"] for s in world.shells.values() if s.role == "compare"]
    assert sum(parts) == 300
    assert min(parts) > 0


@pytest.mark.parametrize("wiring", WIRINGS)
def test_a_secondary_that_answers_otherwise(bench, wiring):
    def lie(port, answer):
        return answer.replace(b"B", b"#") if port == 40_001 else answer

    world = World(bench, wiring, 1, Guest(0x10000000, 77, lie))
    world.ready()
    asked = requests(10, 100)
    for n in range(3):
        world.call(4, 40_000 + n, asked)
    world.until(lambda: all(one.state == "closed" for one in world.callers.values()))
    # The client never saw the lie; the flow went on unprotected after one checkpoint, the others compared.
    for one in world.callers.values():
        assert one.got == [request.upper() for request in asked]
    assert world.compares("checkpoints_wanted.payload") == 1
    assert world.shells["frame-p"].snapshot().counters["checkpoints_done"] >= 1
    assert world.compares("released.unprotected") > 0
    last = world.shells["comp0"].snapshot().status["last"][-1]
    assert last["reason"] == Reason.PAYLOAD
    assert "10.77.0.2:80 > 10.77.0.1:40001" in last["flow"]
    # The first answer is 100 times A; the second, 101 times B, is where they part.
    assert last["offset"] == 100


@pytest.mark.parametrize("wiring", WIRINGS)
def test_drained_from_the_front_nothing_is_lost(bench, wiring):
    world = World(bench, wiring, 1)
    world.ready()
    world.send(datagrams(200))
    order = [name for name in ("m0", "f1", "rew0", "redire1", "f2", "comp0", "redire0") if name in world.shells]
    # The last frames may still be anywhere; each process goes once nothing comes to it any more.
    for name in order:
        before = -1
        while (now := sum(world.shells[name].snapshot().counters.values())) != before:
            before = now
            for _ in range(50):
                world.turn()
        world.shells[name].drain("test")
        world.until(lambda name=name: world.shells[name].done)
    world.until(lambda: len(world.to_client) == 200)
    assert sorted(world.to_client) == sorted(world.primary.said)
    assert "S6" in NOT_JUDGED[wiring] or world.verdicts()["S6"].verdict == "held"
    assert all(world.shells[name].snapshot().gauges.get("held", 0) == 0 for name in order)


def test_what_compare_holds_when_it_drains_is_dropped_by_reason(bench):
    world = World(bench, "lean", 1)
    world.secondary.answer = lambda _frame: []
    world.ready()
    world.send(datagrams(40))
    world.until(lambda: world.compares("frames_primary") == 40)
    world.shells["comp0"].drain("test")
    world.until(lambda: world.shells["comp0"].done)
    counters = world.shells["comp0"].snapshot().counters
    assert counters["dropped.shutdown"] == 40
    assert world.to_client == []
    assert world.verdicts()["S6"].verdict == "held"


@pytest.mark.parametrize("mode", ["shadow", "bypass"])
def test_modes_that_do_not_wait(bench, mode):
    world = World(bench, "lean", 1, compare={"mode": mode}, frame={"mode": mode})
    world.secondary.answer = lambda _frame: []
    world.ready()
    world.send(datagrams(50))
    world.until(lambda: len(world.to_client) == 50)
    assert world.compares("released.mode") == 50
