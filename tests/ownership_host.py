"""A host of `ownership_world`: a real COLO frame and what stands for the processes around it, and the key of a store.

A frozen process reads nothing until it is thawed, and then finds everything that came meanwhile, as a process does
after SIGCONT. Each host has a clock of its own.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_proto.core import Log, Tell
from colo_proto.lan import Lan
from colo_proto.messages import (
    Answer,
    Demote,
    Hello,
    LanSay,
    Lease,
    Promote,
    Report,
    SetMode,
    Yielded,
)
from colo_vote.config import VoteConfig
from colo_vote.store import Holder
from colo_vote.vote import Vote

TICK = 0.01
SECRET = b"known to the pair and nobody else"
HEARTBEAT = 1000
"""Frames that wait in the tap of a LAN heartbeat; further ones are lost."""
CLOCKS = {"p": 0.0, "s": 4711.0}
ROLES = {
    "frame": "frame",
    "m0": "mirror",
    "redire0": "redirector",
    "f1": "redirector",
    "f2": "redirector",
    "comp0": "compare",
    "vote": "vote",
    "m0-s": "mirror",
    "comp0-s": "compare",
}
TTL = 2
"""Time to live of the key in the store, seconds."""
LATENCY = 0.02
"""Seconds until the store carries a request out, and again until the answer is there."""
SIDES = {"p": ("primary", "m0", "redire0"), "s": ("secondary", "f1", "f2")}
ALIKE = {"p": ("primary", "m0", "comp0"), "s": ("secondary", "m0-s", "comp0-s")}
"""Where roles change, both hosts have the same processes: the compare writes, and the mirror has the role."""


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


class Key:
    """The key in the store, on the world's clock: as etcd keeps it."""

    def __init__(self):
        self.name, self.until, self.token, self.revision, self.alone = "", 0.0, 0, 1, ""

    def request(self, what, name, alone, now):
        """Carry out a request; returns what the store answers."""
        if self.name and now >= self.until:
            self.name, self.revision = "", self.revision + 1
        if what == "release" and self.name == name:
            self.name, self.revision = "", self.revision + 1
        if what == "hold" and not self.name:
            self.revision += 1
            self.name, self.token = name, self.revision
        if what == "hold" and self.name == name:
            self.until = now + TTL
            self.alone = {"": self.alone, "yes": name, "no": ""}[alone]
            return Holder(name, self.token, TTL, self.alone)
        return Holder(self.name, self.token if self.name else 0, alone=self.alone)


def _word(message):
    """What a message orders, in the words of `colo_frame.transitions.Said`; empty when it orders nothing of that."""
    if isinstance(message, Lease):
        return "lease" if message.until else "stop"
    return "promote" if isinstance(message, Promote) else "demote" if isinstance(message, Demote) else ""


class Host:
    def __init__(self, world, letter, **options):
        self.world = world
        self.letter = letter
        self.changing = options.get("roles") == "change"
        self.side, heartbeat, writer = (ALIKE if self.changing else SIDES)[letter]
        self.options = options
        self.processes = {name: Process(name, 1) for name in ("frame", heartbeat, writer)}
        self.clock = CLOCKS[letter]
        self.due = float("-inf")
        self.said = LanSay(b"")
        if letter == "p" or self.changing:
            name = writer if self.changing else "comp0"
            self.processes[name] = Process(name, 1, mode="enforce")
        self.heartbeat, self.writer = self.processes[heartbeat], self.processes[writer]
        self.lan = Lan(Counter())
        if options.get("vote"):
            self.processes["vote"] = Process("vote", 1)
            self.start_vote()
        self.start_frame()

    def start_vote(self):
        """`colo vote` is started, or started again."""
        self.vote = Vote(VoteConfig(store="etcd://192.0.2.9:2379", ttl=TTL, holder=f"host-{self.letter}"))
        self.request = None
        one = self.processes["vote"]
        one.incarnation += 1
        one.inbox.clear()
        if hasattr(self, "frame"):
            self.hello(one)

    def start_frame(self):
        one = self.processes["frame"]
        one.incarnation += 1
        one.inbox.clear()
        one.dead = one.frozen = False
        config = FrameConfig(id=f"frame-{self.letter}", side=self.side, peer="tcp://192.0.2.1:9005", **self.options)
        self.frame = Frame(config, self.world.number(), self.now)
        self.frame.use_secrets([SECRET])
        self.logs = []
        for other in self.processes.values():
            other.reported = -1.0
            if other is not one and not other.dead:
                self.hello(other)

    @property
    def now(self):
        return round(self.world.now + self.clock, 6)

    def hello(self, one):
        promoted = one.promoted and not (self.changing and one is self.writer)
        message = Hello(
            ROLES[one.id], one.id, one.incarnation, mode=one.mode, promoted=promoted,
            fence=one.fence if promoted else max(one.fence, one.told), leased=one.lease > self.now,
        )  # fmt: skip
        self.to_frame(one.id, message)

    def to_frame(self, sender, message):
        self.processes["frame"].inbox.append((sender, self.world.carry(message)))
        self.world.quiet = 0.0

    def take(self, outputs):
        told = []
        for output in outputs:
            if isinstance(output, Log):
                self.logs.append(output)
                if output.event == "leadership.changed":
                    self.world.story.append((self.world.now, self.letter, output.fields, told))
                    told = []
                continue
            assert isinstance(output, Tell)
            word = _word(output.message)
            if word and word not in told:
                told.append(word)
            if output.to == PEER:
                self.world.over_link(self, output.message)
            elif isinstance(output.message, Answer):
                self.world.answers.append(output.message)
            else:
                for one in self.processes.values():
                    if one.id != "frame" and not one.dead and output.to in ("*", one.id):
                        one.inbox.append(self.world.carry(output.message))
                        self.world.quiet = 0.0

    def turn(self):
        """Each process that is not frozen reads its inbox, and does what is due."""
        now = self.now
        for one in self.processes.values():
            if not one.up or one.id == "frame":
                continue
            while one.inbox:
                self.process(one, one.inbox.popleft())
            if now - one.reported >= 1.0:
                one.reported = now
                gauges = {"leased": int(one.lease > now)} if one is self.writer else {}
                status = {"mode": one.mode}
                if one is self.heartbeat:
                    status["endpoints"] = {"claims": "tap://lan?netdev=/run/netdev.sock"}
                self.to_frame(one.id, Report(ROLES[one.id], one.id, one.incarnation, {}, gauges, status))
        if "vote" in self.processes and self.processes["vote"].up:
            self.ask_store(now)
        one = self.processes["frame"]
        if one.up:
            while one.inbox:
                sender, message = one.inbox.popleft()
                self.take(self.frame.hear(sender, message, now))
            self.due = self.frame.deadline()
            while self.due <= now:
                self.take(self.frame.on_timer(now))
                self.due = self.frame.deadline()

    def ask_store(self, now):
        """Send the request that is due to the store, and take what has come back."""
        world = self.world
        if self.request is None and self.vote.deadline() <= now and (what := self.vote.next(now)):
            self.request = (what, (self.vote.name, self.vote.alone), now, [])
        if self.request is None:
            return
        what, name, asked, answer = self.request
        if not answer and now >= asked + LATENCY and world.store[self.letter]:
            answer.append(world.key.request(what, *name, world.now))
        if answer and now >= asked + 2 * LATENCY and world.store[self.letter]:
            outputs = self.vote.answered(answer[0], now)
        elif now >= asked + 0.4 * TTL:
            outputs = self.vote.failed("no answer in time", now)
        else:
            return
        self.request = None
        for output in outputs:
            if isinstance(output, Tell):
                self.to_frame("vote", output.message)

    def next(self):
        """When something is due next, on the world's clock."""
        due = [one.reported + 1.0 for one in self.processes.values() if one.up and one.id != "frame"]
        if self.processes["frame"].up:
            due.append(self.due)
        if "vote" in self.processes and self.processes["vote"].up:
            due.append(self.vote.deadline() if self.request is None else self.request[2] + LATENCY)
        return min(due, default=float("inf")) - self.clock

    def process(self, one, message):
        if isinstance(message, bytes):
            lan = Lan(Counter()) if self.world.forgetful else self.lan
            if self.world.forgetful:
                lan.say(self.said)
            _, heard = lan.sift([message], self.now)
            for output in heard:
                self.to_frame(one.id, output.message)
            return
        if one.id == "vote":
            self.vote.tell(message, self.now)
            return
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
        elif isinstance(message, LanSay) and one is self.heartbeat:
            self.said = message
            for output in self.lan.say(message):
                if isinstance(output, Tell):
                    self.to_frame(one.id, output.message)
                else:
                    self.world.over_lan(self, output.frames)

    def could_write(self):
        """Would the writer send a frame to the LAN now?"""
        one = self.writer
        return one.up and self.now < one.lease and (self.letter == "p" or self.changing or one.promoted)

    @property
    def leads(self):
        """Where roles change: do the processes of this host pass frames on as those of the leader?"""
        return self.heartbeat.up and self.heartbeat.promoted

    @property
    def state(self):
        return self.frame.side.ownership.leadership.state
