"""Two hosts, two networks, and what can happen to them: real COLO frames, with everything around them modelled.

A host (`ownership_host`) has a COLO frame, a filter that hears and sends claims on the client LAN (its heartbeat), and
a writer to it. Messages are encoded and decoded on their way. `run` lets 10 ms pass at a time and checks after each
step that there are no two hosts that could write.

With `vote=True` each host has a `colo vote` as well (the real core), and there is a store that neither host is. `store`
says which host can reach it. A request that cannot be answered may have been carried out all the same.

There is an attacker on the LAN, too. He records every claim (`tape`), sends to the LAN what he likes (`inject`), and
can repeat that (`attack`). He can hold back what one host sends (`hold`), which is a cut LAN for as long as it lasts,
and release it later. He does not have the pair's secret.
"""

from collections import Counter, deque
from dataclasses import replace
from random import Random

from colo_frame.peer import PEER
from colo_proto.claim import ETHERTYPE, Stand, State, derive, read_claim, write_claim
from colo_proto.codec import decode, encode
from colo_proto.lan import Lan
from colo_proto.messages import (
    Heartbeat,
    Mode,
    Query,
)
from ownership_host import HEARTBEAT, SECRET, TICK, Host, Key


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
