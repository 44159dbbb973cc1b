"""A whole pair of COLO frames and their processes, made from the topology, in which everything can be broken.

Nothing here decides anything: the processes say what real ones would (reports with the gauges of their links and taps,
answers to leases and checkpoints), and what is broken is told as the shell and the links would tell it.
"""

from collections import deque

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_proto import topology
from colo_proto.claim import State
from colo_proto.codec import decode, encode
from colo_proto.core import Tell
from colo_proto.messages import (
    Answer,
    CheckpointDone,
    CheckpointWanted,
    Flushed,
    Hello,
    LanHeard,
    LanSaid,
    LanSay,
    Lease,
    Query,
    Report,
    Yielded,
)

STEP = 0.05
LETTERS = {"primary": "p", "secondary": "s"}
TAPS = {"lan": "lan", "guest": "guest"}


class Process:
    """What one process says of itself."""

    def __init__(self, spec):
        self.id, self.role, self.side = spec.id, spec.role, spec.side
        self.incarnation = 1
        self.endpoints = {
            name.replace("-", "_"): value
            for name, value in spec.options.items()
            if isinstance(value, str) and "://" in value and name not in ("frame", "notify-dev")
        }
        self.dead = self.frozen = False
        self.counters = {}
        self.gauges = {}
        self.reported = float("-inf")


class Pair:
    """See the module. `cut` holds names of links (`peer`, `lan`, `mirror0`, …), `deaf` names of guests."""

    def __init__(self, wiring="faithful", primary=(), secondary=()):
        self.now, self.wiring = 0.0, wiring
        self.cut, self.deaf, self.no_tap = set(), set(), set()
        self.traffic = False
        self.links = topology.links(wiring)
        self.processes = {}
        for side in topology.SIDES:
            site = topology.Site("/run", "192.0.2.1", "192.0.2.2", TAPS)
            for spec in topology.plan(side, wiring, 1, site):
                if spec.role != "frame":
                    self.processes[spec.id] = Process(spec)
        options = {"primary": dict(primary), "secondary": dict(secondary)}
        self.options = {
            side: FrameConfig(id=f"frame-{LETTERS[side]}", side=side, peer="tcp://192.0.2.1:9005", **options[side])
            for side in topology.SIDES
        }
        self.frames, self.dead = {}, set()
        self.logs = {"primary": [], "secondary": []}
        self.inbox = deque()
        for number, side in enumerate(topology.SIDES):
            self.frames[side] = Frame(self.options[side], number + 1, self.now)
        for one in self.processes.values():
            self.hello(one)

    # -- what a test does --------------------------------------------------------------------------

    def kill(self, *names):
        """Processes die; a side's name stands for its whole host."""
        for name in names:
            if name in self.frames:
                self.dead.add(name)
                self.kill(*(one.id for one in self.processes.values() if one.side == name))
            else:
                self.processes[name].dead = True

    def start(self, name):
        """A process that died is started again."""
        one = self.processes[name]
        one.dead, one.incarnation, one.reported = False, one.incarnation + 1, float("-inf")
        self.hello(one)

    def ask(self, side, what="status", **args):
        """The answer of a frame."""
        answers = []
        self.hear(side, "cli", Query(what, args), answers)
        self.deliver()
        return answers[0]

    def body(self, side):
        return self.ask(side).body

    def run(self, seconds):
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self.now = round(self.now + STEP, 6)
            for one in self.processes.values():
                if not (one.dead or one.frozen) and self.now - one.reported >= 1.0:
                    one.reported = self.now
                    self.report(one)
            for side, frame in self.frames.items():
                while side not in self.dead and frame.deadline() <= self.now:
                    self.take(side, frame.on_timer(self.now))
            self.deliver()

    def until(self, condition, most=30.0):
        """Let time pass until the condition is true. Returns the seconds that it took."""
        began = self.now
        while not condition():
            assert self.now - began < most, "it never happened"
            self.run(STEP)
        return self.now - began

    def checkpoint(self, reason, unprotected=0, flows=0, ended=0):
        """A compare asks for a checkpoint, and has so many flows afterwards."""
        self.processes["comp0"].gauges.update(flows=flows, flows_unprotected=unprotected, flows_ended=ended)
        flow = "tcp 10.0.0.2:80 > 10.0.0.9:5000"
        epoch = self.frames["primary"].side.checkpoints.epoch
        self.hear("primary", "comp0", CheckpointWanted(reason, flow, 17, {}, epoch, "comp0"))
        self.deliver()

    # -- what processes do ---------------------------------------------------------------------------

    def hello(self, one):
        self.hear(one.side, one.id, Hello(one.role, one.id, one.incarnation, pid=42))
        self.deliver()

    def report(self, one):
        gauges, counters = dict(one.gauges), one.counters
        for port, endpoint in one.endpoints.items():
            gauges[f"link.{port}.{'attached' if endpoint.startswith('tap') else 'peers'}"] = int(self.joined(one, port))
        if self.traffic:
            guest = f"guest-{LETTERS[one.side]}"
            ports = {"mirror": ["link.next.frames_out"], "compare": ["link.primary_in.frames_in"]}.get(one.role, [])
            if one.role == "rewriter":
                ports = ["link.netdev.frames_out", "link.netdev.frames_in"]
            for port in ports:
                if port.endswith("out") or guest not in self.deaf:
                    counters[port] = counters.get(port, 0) + 10
        status = {"endpoints": one.endpoints, "ready": True}
        message = Report(one.role, one.id, one.incarnation, dict(counters), gauges, status)
        self.hear(one.side, one.id, message)

    def joined(self, one, port):
        """Is there somebody at the other end of a port?"""
        if one.endpoints[port].startswith("tap"):
            return (one.id, port) not in self.no_tap
        for link in self.links:
            ends = [link.source, link.target]
            for end, other in (ends, ends[::-1]):
                if end.process == one.id and end.port.replace("-", "_") == port:
                    return link.name not in self.cut and not self.processes[other.process].dead
        raise AssertionError(f"{one.id} has no {port}")

    def hear(self, side, sender, message, answers=None):
        self.inbox.append((side, sender, message, answers))

    def deliver(self):
        while self.inbox:
            side, sender, message, answers = self.inbox.popleft()
            if side not in self.dead:
                self.take(side, self.frames[side].hear(sender, message, self.now), answers)

    def take(self, side, outputs, answers=None):
        for output in outputs:
            if not isinstance(output, Tell):
                self.logs[side].append(output)
            elif output.to == PEER:
                if "peer" not in self.cut:
                    self.hear(other(side), PEER, decode(encode(output.message)))
            elif isinstance(output.message, Answer):
                answers.append(decode(encode(output.message)))
            else:
                here = [one for one in self.processes.values() if one.side == side]
                for one in [one for one in here if output.to in ("*", one.id)]:
                    if one.dead:
                        self.frames[side].unreachable(one.id, self.now)
                    elif not one.frozen:
                        self.tell(one, output.message)

    def tell(self, one, message):
        side = one.side
        if isinstance(message, LanSay) and "claims" in one.endpoints and self.joined(one, "claims"):
            if f"lan-{LETTERS[side]}" not in self.cut:
                self.hear(side, one.id, LanSaid(message.count))
            if not self.cut & {"lan", "lan-p", "lan-s"}:
                ears = [p for p in self.processes.values() if p.side != side and "claims" in p.endpoints and not p.dead]
                for ear in ears:
                    self.hear(other(side), ear.id, LanHeard(message.frame))
        elif isinstance(message, Lease) and not message.until:
            self.hear(side, one.id, Yielded(message.fence))
        elif isinstance(message, CheckpointDone) and one.role == "compare":
            self.hear(side, one.id, Flushed(message.epoch, one.id))

    def state(self, side):
        return self.frames[side].side.ownership.leadership.state

    def protected(self):
        return all(self.body(side)["verdict"]["level"] == "protected" for side in self.frames)


def other(side):
    return "secondary" if side == "primary" else "primary"


def whole(wiring="faithful", **options):
    """A pair that is protected."""
    pair = Pair(wiring, **options)
    pair.until(pair.protected)
    assert (pair.state("primary"), pair.state("secondary")) == (State.HOLDING, State.STANDBY)
    return pair
