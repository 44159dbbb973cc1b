"""Streams of two guests that arrive in any way, judged by a client and by somebody who only counts bytes.

Segments are cut, doubled, reordered and lost on either side, FIN among them, while time passes. At last both guests
send everything again, in order, as they do when nobody acknowledges. Then:

* identical streams never ask for a checkpoint, and the client has all of it (E2);
* no byte leaves that not both have sent, and none more often than guests have sent it (S1);
* the client drops nothing as old (PAWS), and the part of a segment leaves only where the client is;
* streams that differ say so with the segment that shows it, whatever is missing before.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.net.packet import dissect
from colo_proto.net.stamp import NO_STAMP, tsval
from colo_proto.net.tcp import ACK, FIN, PSH
from playbook import Play, fields, syn, tcp

pytestmark = pytest.mark.slow

CASE = settings(max_examples=200, deadline=None)
ISNS = st.sampled_from([999, 2**32 - 1, 2**32 - 40, 2**31 - 20])
CLIENT = 500
HALF = 1 << 31
MOST = 60
"""Bytes of a stream: what goes wrong does so with few, and more only make it rarer."""
PATIENCE = 2.0
"""Seconds that all waits take at most: less than `compare_timeout`."""


@dataclass(frozen=True)
class Sent:
    """A segment: its place in the stream, where FIN is one more byte behind the last; then time passes."""

    side: str
    start: int
    stop: int
    ack: int
    wait: float = 0.0


@st.composite
def deliveries(draw, size, others):
    """What arrives of `size` places of the primary's stream and `others` of the secondary's, and when."""
    events = []
    for side, length in (("P", size), ("S", others)):
        place = st.integers(0, length)
        cuts = sorted({0, length, *draw(st.lists(place, max_size=5))})
        spans = [span for span in pairwise(cuts) if draw(st.integers(0, 4))]
        spans += [tuple(sorted(pair)) for pair in draw(st.lists(st.tuples(place, place), max_size=4))]
        events += [(side, *span) for span in (draw(st.permutations(spans)) if draw(st.booleans()) else spans)]
    if draw(st.booleans()):
        events = draw(st.permutations(events))
    else:
        turns = draw(st.permutations([side for side, _, _ in events]))
        queues = {side: iter([one for one in events if one[0] == side]) for side in "PS"}
        events = [next(queues[side]) for side in turns]
    acks, left = {"P": 0, "S": 0}, PATIENCE
    sent = []
    for side, start, stop in events:
        # A guest never takes an acknowledgement back.
        acks[side] += draw(st.sampled_from([0, 0, 0, 1, 7]))
        wait = min(draw(st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.06, 0.2])), left)
        left -= wait
        sent.append(Sent(side, start, stop, acks[side], wait))
    return sent


@dataclass
class Client:
    """What a client makes of segments: RFC 9293, and of RFC 7323 what takes them for old."""

    next: int = 0
    """The place that it waits for."""
    have: set = field(default_factory=set)
    recent: int = 0

    def receive(self, start, stop, stamp):
        if stamp != NO_STAMP:
            assert (stamp - self.recent) & 0xFFFFFFFF < HALF, f"{start} to {stop} is old: {stamp} after {self.recent}"
            if start <= self.next:
                # It acknowledges at once, which is the hardest for what comes later.
                self.recent = stamp
        self.have |= set(range(start, stop))
        while self.next in self.have:
            self.next += 1


@dataclass
class World:
    """A compare between two guests."""

    mine: bytes
    its: bytes
    isn: int
    stamp: int = 100
    play: Play = field(default_factory=Play)
    sent: dict = field(default_factory=lambda: {"P": Counter(), "S": Counter()})
    long: set = field(default_factory=set)
    """Places that the primary has sent in segments of more than one byte: a single one may be a keep-alive's."""
    acked: int = 0
    left: Counter = field(default_factory=Counter)
    client: Client = field(default_factory=Client)

    def __post_init__(self):
        options = craft.mss(1460) + craft.timestamps(self.stamp, 1)
        for side, number in (("P", self.isn), ("S", 7777)):
            self.play >> syn(side, number, ack=CLIENT, opts=options)
        self.client.recent = self.stamp
        self.seen = len(self.play.sent)
        self.heads = 0

    def stream(self, side):
        return self.mine if side == "P" else self.its

    def give(self, one):
        """A segment arrives, then time passes; what left by that is looked at."""
        stream = self.stream(one.side)
        body, fin = stream[one.start : one.stop], FIN * (one.start <= len(stream) < one.stop)
        self.stamp += 5 + int(one.wait * 1000)
        self.sent[one.side].update(range(one.start, one.stop))
        if one.side == "S":
            self.acked = max(self.acked, one.ack)
        elif len(body) > 1:
            self.long |= set(range(one.start, one.stop))
        flags = ACK | (PSH if body else 0) | fin
        more = {"options": craft.timestamps(self.stamp, 1), "window": 500 if one.side == "P" else 60000}
        self.play >> tcp(one.side, self.isn + 1 + one.start, body, flags, CLIENT + one.ack, **more)
        self.look()
        if one.wait:
            self.play.at(one.wait)
            self.look()

    def reach(self, side):
        """Where the first hole is in what this guest has sent."""
        end = 0
        while self.sent[side][end]:
            end += 1
        return end

    def look(self):
        """Judge what has left since the last look."""
        committed = min(self.reach("P"), self.reach("S"))
        before, self.heads = self.heads, self.play.core.counters["heads_released"]
        parts = self.heads - before == len(self.play.sent) - self.seen
        for frame in self.play.sent[self.seen :]:
            seg, payload = fields(frame)
            start = (seg.seq - self.isn - 1 + HALF & 0xFFFFFFFF) - HALF
            stop = start + len(payload) + (seg.flags & FIN)
            assert payload == self.mine[start : start + len(payload)] or start < 0
            assert stop <= committed or stop == start, "only what both have sent"
            assert seg.ack - CLIENT <= self.acked, "only what the secondary has acknowledged"
            if parts and not self.waiting():
                assert start <= self.client.next, "a part of a segment is for a client that can use it"
            self.left.update(range(start, stop))
            self.client.receive(start, stop, tsval(frame, dissect(frame).l4, seg.data))
        for at, count in self.left.items():
            allowed = self.sent["P"][at] + max(self.sent["S"][at] - 1, 0)
            assert count <= allowed, f"place {at} left {count} times, guests sent it {allowed} times"
        self.seen = len(self.play.sent)

    def waiting(self):
        """Does something equal wait for an ACK? Then the client has a hole."""
        return any(flow.waiting for flow in self.play.core.table.flows.values())

    def differs(self):
        """Has compare seen what shows that the streams differ?"""
        ends = {side: len(self.stream(side)) for side in "PS"}
        ended = {side: self.sent[side][ends[side]] > 0 for side in "PS"}
        for side, other in (("P", "S"), ("S", "P")):
            beyond = any(count and at > ends[side] for at, count in self.sent[other].items())
            if ended[side] and ends[side] != ends[other] and (beyond or ended[other] or self.sent[other][ends[side]]):
                return True
        both = min(self.reach("P"), self.reach("S"))
        known = (at for at in self.sent["P"] if self.sent["S"][at] and (at in self.long or at < both))
        return any(at < min(ends.values()) and self.mine[at] != self.its[at] for at in known)


def text(size):
    return bytes(n * 7 & 255 for n in range(size))


@CASE
@given(st.data(), ISNS, st.integers(1, MOST))
def test_identical_streams(data, isn, size):
    world = World(text(size), text(size), isn)
    for one in data.draw(deliveries(size + 1, size + 1)):
        world.give(one)
    for side in data.draw(st.sampled_from(["PS", "SP"])):
        cuts = sorted({0, size + 1, *data.draw(st.lists(st.integers(0, size + 1), max_size=3))})
        for start, stop in pairwise(cuts):
            world.give(Sent(side, start, stop, 200))
    assert world.client.next == size + 1, "it has all of it, FIN included"
    world.play.at(10)
    world.look()
    assert not world.play.wanted
    assert world.play.held == 0


@CASE
@given(st.data(), ISNS, st.integers(1, MOST))
def test_a_byte_that_differs(data, isn, size):
    at = data.draw(st.integers(0, size - 1))
    other = bytearray(text(size))
    other[at] ^= 0x40
    world = World(text(size), bytes(other), isn)
    told_at_once(world, data.draw(deliveries(size + 1, size + 1)))
    assert not world.left[at]


@CASE
@given(st.data(), ISNS, st.integers(0, MOST), st.integers(1, 9), st.booleans())
def test_a_stream_that_ends_before_the_other(data, isn, size, more, mine):
    lengths = (size, size + more) if mine else (size + more, size)
    world = World(text(lengths[0]), text(lengths[1]), isn)
    told_at_once(world, data.draw(deliveries(lengths[0] + 1, lengths[1] + 1)))
    assert max(world.left, default=-1) < size


def told_at_once(world, events):
    """A checkpoint is asked for with the segment that shows the difference, and not before."""
    for one in events:
        world.give(replace(one, wait=0.0))
        assert bool(world.play.wanted) == world.differs()
        if world.play.wanted:
            assert world.play.wanted[0].reason in {"payload", "fin"}
