"""Two hosts, two networks, and what can happen to them: real COLO frames, with everything around them modelled.

A host has a COLO frame, a filter that hears and sends claims on the client LAN (its heartbeat), and a writer to it.
Each has an inbox. A frozen process reads nothing until it is thawed, and then finds everything that came meanwhile, as
a process does after SIGCONT. Messages are encoded and decoded on their way. `run` lets 10 ms pass at a time and checks
after each step that there are no two hosts that could write. Each host has a clock of its own.

With `vote=True` each host has a `colo vote` as well (the real core), and there is a store that neither host is. `store`
says which host can reach it. A request that cannot be answered may have been carried out all the same.

There is an attacker on the LAN, too. He records every claim (`tape`), sends to the LAN what he likes (`inject`), and
can repeat that (`attack`). He can hold back what one host sends (`hold`), which is a cut LAN for as long as it lasts,
and release it later. He does not have the pair's secret.
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
    Mode,
    Promote,
    Query,
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


class World:
    def __init__(self, *, failover="auto", packed=True, forgetful=False, **options):
        self.now = 0.0
        self.packed = packed
        self.forgetful = forgetful
        """The LAN heartbeats forget what they have heard, as if restarted each time: the COLO frames judge alone."""
        self.quiet = 0.0
        """Nothing is due before this time."""
        self._number = 0
        self.tape = []
        """Claims that were sent to the LAN: when, by which host, the frame."""
        self.link_tape = []
        """What was sent on the link between the hosts: by which host, the message."""
        self.attack = {}
        """Functions that are called at every tick, by name."""
        self.held = {}
        """For each host whose claims are held back, the claims that nobody has heard yet."""
        self.link = True
        self.lan = True
        self.store = {"p": True, "s": True}
        """Which host can reach the store of the third vote."""
        self.key = Key()
        self.votes = bool(options.get("vote"))
        self.unseen = None
        self.told = 0
        self.answers = []
        self.both = []
        self.story = []
        """Each change of state: when, which host, what its log says, and what its processes were told."""
        self.changing = options.get("roles") == "change"
        if self.changing:
            self.p = Host(self, "p", workers="comp0", failover=failover, **options)
            self.s = Host(self, "s", workers="comp0-s", failover=failover, **options)
        else:
            self.p = Host(self, "p", workers="comp0", **options)
            self.s = Host(self, "s", failover=failover, **options)
        self.hosts = {"p": self.p, "s": self.s}
        self.partitioned = False
        """Both networks were cut at once. Then two writers are possible."""
        self.forced = False
        self.excused = False
        """The secondary was forced to take over while it could hear nothing. Then two writers are possible."""

    def number(self):
        self._number += 1
        return self._number * 1000003

    def carry(self, message):
        """The message as it arrives: encoded and decoded, unless that would take too long (`packed`)."""
        return decode(encode(message)) if self.packed else message

    def other(self, host):
        return self.s if host is self.p else self.p

    def over_link(self, host, message):
        far = self.other(host).processes["frame"]
        self.quiet = 0.0
        if isinstance(message, Heartbeat) and not self.changing:
            # The table is the largest part of it, and does not matter here.
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
        """A frame on the LAN reaches the heartbeat of this host."""
        self.quiet = 0.0
        heartbeat = self.hosts[letter].heartbeat
        if not heartbeat.dead and sum(isinstance(one, bytes) for one in heartbeat.inbox) < HEARTBEAT:
            heartbeat.inbox.append(frame)

    def hold(self, letter):
        """Hold back the claims of this host from now on."""
        self.held.setdefault(letter, [])

    def let_go(self, letter):
        """Deliver all claims that were held back."""
        for frame in self.held.pop(letter, []):
            self.inject(self.other(self.hosts[letter]).letter, frame)

    def start_again(self):
        """Both hosts are switched off and on, with equal guests. Only the attacker remembers anything."""
        self.unseen = None
        for host in self.hosts.values():
            for one in host.processes.values():
                one.inbox.clear()
                one.incarnation += 1
                one.frozen = one.dead = False
                one.lease, one.fence, one.told, one.promoted = float("-inf"), 0, 0, False
            host.lan = Lan(Counter())
            if self.votes:
                host.start_vote()
            host.start_frame()

    def recorded(self, letter, *states, until=float("inf")):
        """The claims that this host sent to the LAN before `until`, in one of these states if any is given."""
        keys = [derive(SECRET, "colo")]
        frames = [frame for when, who, frame in self.tape if who == letter and when <= until]
        return [frame for frame in frames if not states or read_claim(frame, keys).state in states]

    def replay(self, letter, frames, every=0.05):
        """Repeat these frames to the heartbeat of a host until `attack` is emptied."""
        frames = deque(frames)
        assert frames
        began = self.now

        def tick():
            if round((self.now - began) / TICK) % round(every / TICK) == 0:
                frames.rotate(-1)
                self.inject(letter, frames[-1])

        self.attack[f"replay to {letter}"] = tick

    def flood(self, letter, each=5, seed=1):
        """Send junk of our EtherType at each tick: noise, claims with a changed bit, claims under another secret."""
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
            # Skip the time in which nothing happens.
            quiet = 1 if self.attack else int((min(until, self.quiet) - self.now) / TICK)
            self.now = round(self.now + TICK * max(1, quiet), 6)
            for tick in list(self.attack.values()):
                tick()
            if self.now < self.quiet:
                continue
            # What a host does below sets this to an earlier time.
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
        for host in self.hosts.values():
            if host.state == "taking":
                self.excuse(host)
        if self.p.could_write() and self.s.could_write():
            self.both.append(self.now)
        if self.votes:
            self.check_replica()
        excused = (self.partitioned or self.excused) and not self.votes
        assert excused or not self.both, f"both could write at {self.now}: {self.p.state}, {self.s.state}"

    def check_replica(self):
        """With a third vote: once a leader has gone on alone and released what nobody compared, the other side does not
        take over by itself until a resync.
        """
        for host in self.hosts.values():
            mode = host.frame.side.modes.mode
            if host.state == "alone" and mode == Mode.BYPASS:
                self.unseen = host
            elif host.state == "holding" and mode == Mode.ENFORCE:
                self.unseen = None
        for one in self.story[self.told :]:
            if not isinstance(one, str) and (one[2]["before"], one[2]["on"]) == ("standby", "silent"):
                other = self.unseen is None or one[1] == self.unseen.letter
                assert other, f"no replica, and it took over at {self.now}"
        self.told = len(self.story)

    def excuse(self, host):
        """This host is about to take over: does it hear nothing, and cannot know that its heartbeat has failed?"""
        sure = not self.forced and host.frame.side.ownership.leadership.lan_sent >= 0
        unheard = not self.link or not self.other(host).processes["frame"].up
        self.excused |= unheard and not host.heartbeat.up and not sure

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
            self.excuse(host)
        host.to_frame("cli", Query(what, args))
        self.until(lambda: len(self.answers) > before)
        return self.answers[-1]
