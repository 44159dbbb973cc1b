"""Two hosts, two networks, and what can happen to them: the frames of a pair with everything around them modelled.

A host is a frame, an ear on the client LAN, and a writer to it. Each has an inbox; a frozen one reads nothing
until it is thawed and then finds all of it, as a process does after SIGCONT. Messages travel through their bytes.
`step` lets 10 ms pass and checks after each that no two writers could write.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from colo_frame.config import FrameConfig
from colo_frame.frame import PEER, Frame
from colo_proto.claim import ETHERTYPE
from colo_proto.codec import decode, encode
from colo_proto.core import Log, Tell
from colo_proto.lan import Lan
from colo_proto.messages import Answer, Demote, Hello, LanHeard, LanSay, Lease, Promote, Query, Report, SetMode, Yielded

TICK = 0.01
ROLES = {
    "frame": "frame",
    "m0": "mirror",
    "redire0": "redirector",
    "f1": "redirector",
    "f2": "redirector",
    "comp0": "compare",
}
SIDES = {"p": ("primary", "m0", "redire0"), "s": ("secondary", "f1", "f2")}


@dataclass
class Process:
    """One process of a host, and its inbox."""

    id: str
    incarnation: int
    frozen: bool = False
    dead: bool = False
    inbox: deque = field(default_factory=deque)
    lease: float = float("-inf")
    fence: int = 0
    told: int = 0
    promoted: bool = False
    mode: str = ""
    reported: float = -1.0

    @property
    def up(self):
        return not self.frozen and not self.dead


class Host:
    def __init__(self, world, letter, **options):
        self.world = world
        self.letter = letter
        self.side, ear, writer = SIDES[letter]
        self.options = options
        self.processes = {name: Process(name, 1) for name in ("frame", ear, writer)}
        if letter == "p":
            self.processes["comp0"] = Process("comp0", 1, mode="enforce")
        self.ear, self.writer = self.processes[ear], self.processes[writer]
        self.lan = Lan(Counter())
        self.start_frame()

    def start_frame(self):
        one = self.processes["frame"]
        one.incarnation += 1
        one.inbox.clear()
        one.dead = one.frozen = False
        config = FrameConfig(id=f"frame-{self.letter}", side=self.side, peer="tcp://192.0.2.1:9005", **self.options)
        self.frame = Frame(config, self.world.number(), self.world.now)
        self.logs = []
        for other in self.processes.values():
            other.reported = -1.0
            if other is not one and not other.dead:
                self.hello(other)

    def hello(self, one):
        message = Hello(
            ROLES[one.id], one.id, one.incarnation, mode=one.mode, promoted=one.promoted,
            fence=one.fence if one.promoted else max(one.fence, one.told), leased=one.lease > self.world.now,
        )  # fmt: skip
        self.to_frame(one.id, message)

    def to_frame(self, sender, message):
        self.processes["frame"].inbox.append((sender, decode(encode(message))))

    def take(self, outputs):
        for output in outputs:
            if isinstance(output, Log):
                self.logs.append(output)
                continue
            assert isinstance(output, Tell)
            if output.to == PEER:
                self.world.over_link(self, output.message)
            elif isinstance(output.message, Answer):
                self.world.answers.append(output.message)
            else:
                for one in self.processes.values():
                    if one.id != "frame" and not one.dead and output.to in ("*", one.id):
                        one.inbox.append(decode(encode(output.message)))

    def turn(self):
        """Everybody who is not frozen reads what is there, and does what is due."""
        now = self.world.now
        for one in self.processes.values():
            if not one.up or one.id == "frame":
                continue
            while one.inbox:
                self.process(one, one.inbox.popleft())
            if now - one.reported >= 1.0:
                one.reported = now
                gauges = {"leased": int(one.lease > now)} if one is self.writer else {}
                self.to_frame(one.id, Report(ROLES[one.id], one.id, one.incarnation, {}, gauges, {"mode": one.mode}))
        one = self.processes["frame"]
        if one.up:
            while one.inbox:
                sender, message = one.inbox.popleft()
                self.take(self.frame.hear(sender, message, now))
            while self.frame.deadline() <= now:
                self.take(self.frame.on_timer(now))

    def process(self, one, message):
        if isinstance(message, Lease):
            one.lease, one.told = message.until, max(one.told, message.fence)
            if one is self.writer and not message.until:
                self.to_frame(one.id, Yielded(message.fence))
        elif isinstance(message, Promote):
            if message.fence >= one.fence:
                one.promoted, one.fence = True, message.fence
        elif isinstance(message, Demote):
            if message.fence > one.fence:
                one.promoted, one.fence = False, message.fence
        elif isinstance(message, SetMode):
            one.mode = message.mode
        elif isinstance(message, LanSay) and one is self.ear:
            for output in self.lan.say(message):
                if isinstance(output, Tell):
                    self.to_frame(one.id, output.message)
                else:
                    self.world.over_lan(self, output.frames)

    def could_write(self):
        """Would a frame for the LAN that is at the writer now go out?"""
        one = self.writer
        return one.up and self.world.now < one.lease and (self.letter == "p" or one.promoted)

    @property
    def state(self):
        return self.frame.ownership.tenure.state


class World:
    def __init__(self, *, failover="auto", **options):
        self.now = 0.0
        self._number = 0
        self.link = True
        self.lan = True
        self.answers = []
        self.both = []
        self.p = Host(self, "p", workers="comp0", **options)
        self.s = Host(self, "s", failover=failover, **options)
        self.hosts = {"p": self.p, "s": self.s}
        self.partitioned = False
        """Were both networks cut at once? Then nothing is promised."""
        self.forced = False
        self.excused = False
        """Was the secondary told to take over whatever it hears, while it heard nothing? Then nothing is promised."""

    def number(self):
        self._number += 1
        return self._number * 1000003

    def other(self, host):
        return self.s if host is self.p else self.p

    def over_link(self, host, message):
        far = self.other(host).processes["frame"]
        if self.link and not far.dead:
            far.inbox.append((PEER, decode(encode(message))))

    def over_lan(self, host, frames):
        far = self.other(host)
        if not self.lan or far.ear.dead:
            return
        for frame in frames:
            assert frame[22:24] == ETHERTYPE
            if far.ear.frozen:
                far.ear.inbox.append(LanHeard(frame))
            else:
                far.to_frame(far.ear.id, LanHeard(frame))

    def run(self, seconds):
        until = self.now + seconds
        while self.now < until:
            self.now = round(self.now + TICK, 6)
            for host in self.hosts.values():
                host.turn()
                self.check()
        return self

    def until(self, condition, limit=30.0):
        end = self.now + limit
        while not condition():
            assert self.now < end, f"it never happened: {self.p.state}, {self.s.state}"
            self.run(TICK)
        return self

    def check(self):
        if not self.link and not self.lan:
            self.partitioned = True
        if self.s.state == "taking":
            self.excuse()
        if self.p.could_write() and self.s.could_write():
            self.both.append(self.now)
        excused = self.partitioned or self.excused
        assert excused or not self.both, f"both could write at {self.now}: {self.p.state}, {self.s.state}"

    def excuse(self):
        """The secondary is about to take over. Does it hear nothing, and does not know that it could?"""
        sure = not self.forced and self.s.frame.ownership.tenure.said >= 0
        unheard = not self.link or not self.p.processes["frame"].up
        self.excused |= unheard and not self.s.ear.up and not sure

    def freeze(self, letter, *names, frozen=True):
        host = self.hosts[letter]
        for name in names or host.processes:
            one = host.processes[name]
            if one.dead:
                continue
            one.frozen = frozen
            if one is host.ear and not frozen:
                heard = [m for m in one.inbox if isinstance(m, LanHeard)]
                for message in heard:
                    one.inbox.remove(message)
                    host.to_frame(one.id, message)

    def kill(self, letter, *names):
        host = self.hosts[letter]
        for name in names or host.processes:
            one = host.processes[name]
            one.dead = True
            one.inbox.clear()
            if one is host.writer:
                one.lease, one.promoted = float("-inf"), False

    def ask(self, letter, what, **args):
        host = self.hosts[letter]
        before = len(self.answers)
        self.forced |= args.get("force", False)
        if what == "failover":
            self.excuse()
        host.to_frame("cli", Query(what, args))
        self.until(lambda: len(self.answers) > before)
        return self.answers[-1]
