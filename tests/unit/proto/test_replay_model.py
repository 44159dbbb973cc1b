"""The two ends of a reliable link: restarts, cuts and late batches in any order lose nothing silently."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colo_proto.codec import Batch
from colo_proto.errors import WireError
from colo_proto.replay import FRAME_OVERHEAD, ReplayReceiver, ReplaySender


def frames(first: int, count: int) -> list[bytes]:
    return [b"%08d" % n for n in range(first, first + count)]


@dataclass
class World:
    """A sender, a receiver, and connections that lose what is under way; frames are named by when they were made."""

    limit: int
    source: bool
    now: float = 0.0
    made: int = 0
    restarts: int = 0
    forward: list = field(default_factory=list)
    backward: list = field(default_factory=list)
    stale: list = field(default_factory=list)
    seen: Counter = field(default_factory=Counter)
    reported: bool = False
    pushed: list = field(default_factory=list)

    def __post_init__(self):
        self.sender = ReplaySender("l", 1000, self.limit, Counter(), source=self.source)
        self.receiver = ReplayReceiver(Counter())
        self.lives: list[list[int]] = [[]]

    def push(self, count):
        self._push(frames(self.made, count))
        self.made += count

    def _push(self, new):
        self.pushed += new
        self.sender.push(new)

    def send(self, count):
        for _ in range(count):
            batch = self.sender.due()
            if batch is None:
                return
            self.sender.sent()
            self.forward.append(batch)

    def carry(self, count):
        for _ in range(count):
            if self.forward:
                self.arrive(self.forward.pop(0))
        for _ in range(count):
            if self.backward:
                kind, incarnation, number = self.backward.pop(0)
                try:
                    if kind == "hello":
                        self.forward.append(self.sender.hello(incarnation, number))
                    else:
                        self.sender.ack(incarnation, number)
                except WireError:
                    pass

    def arrive(self, thing):
        if isinstance(thing, Batch):
            for frame in self.receiver.batch(thing, self.now):
                self.seen[int(frame)] += 1
                self.lives[-1].append(int(frame))
        elif self.receiver.answer(thing, self.now):
            self.reported = True
            self.lives.append([])

    def tick(self, seconds):
        self.now += seconds
        self.receiver.on_timer(self.now)
        if self.receiver.asking:
            self.backward.append(("hello", *self.receiver.hello(self.now)))

    def ack(self):
        if self.receiver.next >= 0:
            self.backward.append(("ack", self.receiver.incarnation, self.receiver.next))

    def cut(self):
        self.stale += self.forward
        self.forward, self.backward = [], []
        self.sender.detached()
        self.receiver.connected()

    def ghost(self):
        if self.stale:
            self.arrive(self.stale.pop(0))

    def kill_receiver(self):
        self.cut()
        self.receiver = ReplayReceiver(Counter())
        self.lives.append([])

    def kill_sender(self):
        self.cut()
        self.restarts += 1
        unacknowledged = []
        if not self.source:
            # A relay's upstream sends again what was not acknowledged to it, whether the ring still had it or not.
            unacknowledged = self.pushed[self.sender.acked :]
        self.sender = ReplaySender("l", 1000 + self.restarts, self.limit, Counter(), source=self.source)
        self.pushed = []
        self._push(unacknowledged)

    def settle(self):
        for _ in range(200):
            self.tick(0.3)
            self.send(100)
            self.carry(100)
            self.ack()
            if self.sender.end == self.sender.acked and not self.forward and self.sender.attached:
                return
        raise AssertionError("never came to rest")


_STEPS = st.one_of(
    st.tuples(st.just("push"), st.integers(1, 5)),
    st.tuples(st.just("send"), st.integers(1, 5)),
    st.tuples(st.just("carry"), st.integers(1, 5)),
    st.tuples(st.just("tick"), st.sampled_from([0.001, 0.1, 0.6])),
    st.tuples(st.just("ack")),
    st.tuples(st.just("cut")),
    st.tuples(st.just("ghost")),
    st.tuples(st.just("kill_receiver")),
    st.tuples(st.just("kill_sender")),
)


def run(world: World, steps) -> None:
    world.push(1)
    world.settle()
    for name, *args in steps:
        getattr(world, name)(*args)
    world.settle()


@pytest.mark.slow
class TestNothingIsLostSilently:
    @given(st.lists(_STEPS, max_size=60), st.sampled_from([1 << 20, 6 * (8 + FRAME_OVERHEAD)]), st.booleans())
    @settings(max_examples=400, deadline=None)
    def test_every_frame_arrives_or_a_gap_is_reported(self, steps, limit, source):
        world = World(limit, source)
        # Both ends of a source's link killed before they met again: neither can know what was. Their frame does,
        # it sees the mirror say Hello with another incarnation; here the case is left out.
        both_killed = False
        world.push(1)
        world.settle()
        for name, *args in steps:
            if name == "kill_sender":
                both_killed |= world.receiver.next < 0
            if name == "kill_receiver":
                both_killed |= world.receiver.incarnation != world.sender.incarnation
            getattr(world, name)(*args)
        world.settle()
        missing = [n for n in range(world.made) if not world.seen[n]]
        assert not missing or world.reported or (source and both_killed)

    @given(st.lists(_STEPS, max_size=60))
    @settings(max_examples=200, deadline=None)
    def test_without_eviction_a_relay_loses_nothing_and_reports_nothing(self, steps):
        world = World(1 << 20, source=False)
        run(world, steps)
        assert all(world.seen[n] for n in range(world.made))
        assert not world.reported

    @given(st.lists(_STEPS, max_size=60), st.sampled_from([1 << 20, 6 * (8 + FRAME_OVERHEAD)]))
    @settings(max_examples=200, deadline=None)
    def test_one_receiver_and_one_sender_see_each_frame_once_in_order(self, steps, limit):
        world = World(limit, source=True)
        run(world, [s for s in steps if not s[0].startswith("kill")])
        for life in world.lives:
            assert life == sorted(set(life))
        assert max(world.seen.values(), default=0) <= 1

    @given(st.lists(_STEPS, max_size=60))
    @settings(max_examples=100, deadline=None)
    def test_the_ring_stays_within_its_bound(self, steps):
        limit = 6 * (8 + FRAME_OVERHEAD)
        world = World(limit, source=True)
        for name, *args in steps:
            getattr(world, name)(*args)
            assert world.sender.ring_bytes <= max(limit, 5 * (8 + FRAME_OVERHEAD))
            assert world.sender.ring_bytes == sum(e.cost for e in world.sender._ring)
