"""A model of two hosts, two networks and the events that can happen to them, around the real COLO frames of a pair.

A host has a COLO frame, a LAN heartbeat on the client LAN, and a writer to it. Each has an inbox. A frozen one reads
nothing until it is thawed, and then finds everything, as a process does after SIGCONT. Messages are encoded and
decoded. `run` lets 10 ms pass at a time, and checks each time that no two writers can write. Each host has its own
clock.

There is also an attacker on the LAN. It records every claim (`tape`), sends what it likes to the LAN (`inject`), and
can repeat that (`attack`). It can hold back the claims of one host (`hold`), which is like a cut LAN meanwhile, and
release them later. It does not have the pair's secret.
"""

from collections import Counter, deque
from dataclasses import dataclass, field, replace
from random import Random

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_proto.claim import ETHERTYPE, Stand, State, derive, read_claim, write_claim
from colo_proto.codec import decode, encode
from colo_proto.core import Log, Tell
from colo_proto.lan import Lan
from colo_proto.messages import (
    Answer,
    Demote,
    Heartbeat,
    Hello,
    LanSay,
    Lease,
    Promote,
    Query,
    Report,
    SetMode,
    Yielded,
)

TICK = 0.01
SECRET = b"known to the pair and nobody else"
EAR = 1000
"""Number of frames that wait in the tap of a LAN heartbeat; further ones are lost."""
CLOCKS = {"p": 0.0, "s": 4711.0}
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
        self.clock = CLOCKS[letter]
        self.due = float("-inf")
        self.said = LanSay(b"")
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
        message = Hello(
            ROLES[one.id], one.id, one.incarnation, mode=one.mode, promoted=one.promoted,
            fence=one.fence if one.promoted else max(one.fence, one.told), leased=one.lease > self.now,
        )  # fmt: skip
        self.to_frame(one.id, message)

    def to_frame(self, sender, message):
        self.processes["frame"].inbox.append((sender, self.world.carry(message)))
        self.world.quiet = 0.0

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
                        one.inbox.append(self.world.carry(output.message))
                        self.world.quiet = 0.0

    def turn(self):
        """Every process that is not frozen reads its inbox and does what is due."""
        now = self.now
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
            self.due = self.frame.deadline()
            while self.due <= now:
                self.take(self.frame.on_timer(now))
                self.due = self.frame.deadline()

    def next(self):
        """When a timer is due, on the world's clock."""
        due = [one.reported + 1.0 for one in self.processes.values() if one.up and one.id != "frame"]
        if self.processes["frame"].up:
            due.append(self.due)
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
            self.said = message
            for output in self.lan.say(message):
                if isinstance(output, Tell):
                    self.to_frame(one.id, output.message)
                else:
                    self.world.over_lan(self, output.frames)

    def could_write(self):
        """True if the writer would now write a frame to the LAN."""
        one = self.writer
        return one.up and self.now < one.lease and (self.letter == "p" or one.promoted)

    @property
    def state(self):
        return self.frame.standing.ownership.tenure.state


class World:
    def __init__(self, *, failover="auto", packed=True, forgetful=False, **options):
        self.now = 0.0
        self.packed = packed
        self.forgetful = forgetful
        """The LAN heartbeats forget what they have heard, as if restarted each time, so only the COLO frames decide."""
        self.quiet = 0.0
        """No timer is due before this time."""
        self._number = 0
        self.tape = []
        """The claims on the LAN: when, by which host, the frame."""
        self.link_tape = []
        """The messages on the link between the hosts: by which host, the message."""
        self.attack = {}
        """Functions by name, which are called every tick."""
        self.held = {}
        """By letter: claims of that host that are held back; None if nothing is held."""
        self.link = True
        self.lan = True
        self.answers = []
        self.both = []
        self.p = Host(self, "p", workers="comp0", **options)
        self.s = Host(self, "s", failover=failover, **options)
        self.hosts = {"p": self.p, "s": self.s}
        self.partitioned = False
        """True if both networks were cut at once. Then nothing is promised."""
        self.forced = False
        self.excused = False
        """True if the secondary was ordered to take over by force while it heard nothing. Then nothing is promised."""

    def number(self):
        self._number += 1
        return self._number * 1000003

    def carry(self, message):
        """The message that arrives: it is encoded and decoded, unless time is short."""
        return decode(encode(message)) if self.packed else message

    def other(self, host):
        return self.s if host is self.p else self.p

    def over_link(self, host, message):
        far = self.other(host).processes["frame"]
        self.quiet = 0.0
        if isinstance(message, Heartbeat):
            # These are most of the messages, and they do not matter here.
            message = replace(message, table=None)
        self.link_tape.append((host.letter, message))
        if self.link and not far.dead:
            far.inbox.append((PEER, self.carry(message)))

    def over_lan(self, host, frames):
        self.quiet = 0.0
        for frame in frames:
            assert frame[22:24] == ETHERTYPE
            self.tape.append((self.now, host.letter, frame))
            if host.letter in self.held:
                self.held[host.letter].append(frame)
            elif self.lan:
                self.inject(self.other(host).letter, frame)

    def inject(self, letter, frame):
        """A frame on the LAN reaches the LAN heartbeat of this host."""
        self.quiet = 0.0
        ear = self.hosts[letter].ear
        if not ear.dead and sum(isinstance(one, bytes) for one in ear.inbox) < EAR:
            ear.inbox.append(frame)

    def hold(self, letter):
        """From now on hold back the claims of this host."""
        self.held.setdefault(letter, [])

    def let_go(self, letter):
        """Deliver everything that was held back."""
        for frame in self.held.pop(letter, []):
            self.inject(self.other(self.hosts[letter]).letter, frame)

    def start_again(self):
        """Switch both hosts off and on. Only the attacker on the LAN remembers anything."""
        for host in self.hosts.values():
            for one in host.processes.values():
                one.inbox.clear()
                one.incarnation += 1
                one.frozen = one.dead = False
                one.lease, one.fence, one.told, one.promoted = float("-inf"), 0, 0, False
            host.lan = Lan(Counter())
            host.start_frame()

    def recorded(self, letter, *states, until=float("inf")):
        """The claims that this host has sent in one of these states (none: any) up to then."""
        keys = [derive(SECRET, "colo")]
        frames = [frame for when, who, frame in self.tape if who == letter and when <= until]
        return [frame for frame in frames if not states or read_claim(frame, keys).state in states]

    def replay(self, letter, frames, every=0.05):
        """Send these to the LAN heartbeat of a host, again and again, until `attack` is empty."""
        frames = deque(frames)
        assert frames
        began = self.now

        def tick():
            if round((self.now - began) / TICK) % round(every / TICK) == 0:
                frames.rotate(-1)
                self.inject(letter, frames[-1])

        self.attack[f"replay to {letter}"] = tick

    def flood(self, letter, each=5, seed=1):
        """Send junk with our EtherType each tick: noise, claims with a changed bit, claims made without the secret."""
        random = Random(seed)
        foreign = derive(b"the secret of somebody else", "colo")
        junk = [bytes(22) + ETHERTYPE + random.randbytes(size) for size in (36, 68, 156) * 5]
        for side in ("primary", "secondary"):
            for state in State.ALL:
                stand = Stand(side, random.getrandbits(60), random.getrandbits(40), 99, state, lease_ms=60000)
                junk.append(write_claim(stand, "colo", foreign))

        def tick():
            for _ in range(each):
                frame = random.choice(junk)
                if self.tape and random.random() < 0.3:
                    frame = bytearray(random.choice(self.tape)[2])
                    frame[random.randrange(24, len(frame))] ^= 1 << random.randrange(8)
                self.inject(letter, bytes(frame))

        self.attack[f"flood of {letter}"] = tick

    def run(self, seconds):
        until = self.now + seconds
        while self.now < until:
            # No event lies between.
            quiet = 1 if self.attack else int((min(until, self.quiet) - self.now) / TICK)
            self.now = round(self.now + TICK * max(1, quiet), 6)
            for tick in list(self.attack.values()):
                tick()
            if self.now < self.quiet:
                continue
            # What a host does below gives it new timers.
            self.quiet = float("inf")
            for host in self.hosts.values():
                host.turn()
                self.check()
            self.quiet = min(self.quiet, *(host.next() for host in self.hosts.values()))
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
        """True when the secondary, about to take over, hears nothing and does not know that it could hear something."""
        sure = not self.forced and self.s.frame.standing.ownership.tenure.said >= 0
        unheard = not self.link or not self.p.processes["frame"].up
        self.excused |= unheard and not self.s.ear.up and not sure

    def freeze(self, letter, *names, frozen=True):
        host = self.hosts[letter]
        self.quiet = 0.0
        for name in names or host.processes:
            one = host.processes[name]
            if not one.dead:
                one.frozen = frozen

    def kill(self, letter, *names):
        host = self.hosts[letter]
        self.quiet = 0.0
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
