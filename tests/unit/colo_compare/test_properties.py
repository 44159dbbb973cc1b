"""Output commit for any stream, cut two ways, with retransmissions, overlaps, holes filled late, reordering and
wrap, whoever is ahead; and for datagrams in any order. The oracle knows only who has sent which bytes.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.net.tcp import ACK, FIN, PSH
from playbook import CLIENT, GUEST, Frame, Play, fields, tcp, udp

pytestmark = pytest.mark.slow

CASE = settings(max_examples=150, deadline=None)
MANY_ACKS = 40
FLIP = 0x40


@dataclass(frozen=True)
class Piece:
    """A segment of a stream: bytes `start` to `stop`, acknowledging `ack` bytes of the client's."""

    start: int
    stop: int
    ack: int


@st.composite
def sides(draw):
    """A stream's length, and how each guest sends it: all of it, in any pieces, some of them more than once, in any
    order; and which side's next segment arrives.
    """
    size = draw(st.integers(1, 3000))
    place = st.integers(0, size)
    both = []
    for _ in range(2):
        points = sorted({0, size, *draw(st.lists(place, max_size=10))})
        base = list(pairwise(points))
        again = draw(st.lists(st.tuples(place, place), max_size=6))
        spans = base + [(min(a, b), max(a, b)) for a, b in again]
        # Near its turn, or much later: reordered, or lost and sent again.
        turns = draw(st.lists(st.sampled_from([0, 0, 0, 1, 2, 5, 20]), min_size=len(spans), max_size=len(spans)))
        order = sorted(range(len(spans)), key=lambda n, turns=turns: (n + turns[n], n))
        acks = draw(st.lists(st.integers(0, MANY_ACKS), min_size=len(spans), max_size=len(spans)))
        both.append([Piece(*spans[n], acks[n]) for n in order])
    first = draw(st.lists(st.booleans(), min_size=sum(map(len, both)), max_size=sum(map(len, both))))
    return size, both[0], both[1], first


class Prefix:
    """How far one guest has produced its stream, SYN not counted, FIN as a byte."""

    def __init__(self):
        self.spans = []

    def add(self, start, stop):
        self.spans = sorted([*self.spans, (start, stop)])

    @property
    def end(self):
        end = 0
        for start, stop in self.spans:
            if start > end:
                break
            end = max(end, stop)
        return end


def turns(mine, its, first):
    """Both sides' pieces, one after the other."""
    queues = {"P": list(mine), "S": list(its)}
    for choice in first:
        side = "P" if choice else "S"
        if not queues[side]:
            side = "S" if side == "P" else "P"
        yield side, queues[side].pop(0)


@CASE
@given(
    sides(),
    st.sampled_from([999, 2**32 - 1, 2**32 - 100, 2**31 - 5]),
    st.sampled_from([500, 2**32 - 10]),
    st.booleans(),
    st.sampled_from([(GUEST, CLIENT), ("fd00::2", "fd00::9")]),
)
def test_equal_streams_leave_when_both_have_them_and_never_ask(drawn, isn, acked, fin, ends):
    size, mine, its, first = drawn
    stream = bytes(n * 7 & 255 for n in range(size))
    play = opened(isn, acked, ends)
    reach = {"P": Prefix(), "S": Prefix()}
    highest = 0
    out = 0
    sent = []
    for side, piece in turns(mine, its, first):
        last = fin and piece.stop == size
        frame = segment(side, piece, stream, isn, acked, ends, last)
        reach[side].add(piece.start, piece.stop + last)
        if side == "S":
            highest = max(highest, piece.ack)
        else:
            sent.append(frame.data)
        play >> frame
        committed = min(reach["P"].end, reach["S"].end)
        for released in play.sent[out:]:
            seg, payload = fields(released)
            start = seg.seq - isn - 1 & 0xFFFFFFFF
            end = start + len(payload) + (seg.flags & FIN)
            # S1, and the ACK rule; a segment without bytes obeys the latter alone.
            assert end <= committed or not (payload or seg.flags & FIN)
            assert payload == stream[start : start + len(payload)]
            assert (seg.ack - acked & 0xFFFFFFFF) <= highest
        out = len(play.sent)
    # E2: nothing of this is a difference. Then the secondary acknowledges everything, and nothing is left.
    assert not play.wanted
    play >> tcp("S", isn + 1 + size + fin, b"", ACK, acked + MANY_ACKS, src=ends[0], dst=ends[1], window=65535)
    assert_everything_left(play, sent, isn + 1)
    play.at(10)
    assert not play.wanted
    assert play.core.gauges()["held"] == play.core.gauges()["held_bytes"] == 0


@CASE
@given(sides(), st.sampled_from([999, 2**32 - 100]), st.data())
def test_a_byte_that_differs_is_found_at_its_place_and_never_leaves(drawn, isn, data):
    size, mine, its, first = drawn
    at = data.draw(st.integers(0, size - 1))
    stream = bytes(n * 7 & 255 for n in range(size))
    other = stream[:at] + bytes((stream[at] ^ FLIP,)) + stream[at + 1 :]
    ends = (GUEST, CLIENT)
    play = opened(isn, 500, ends)
    for side, piece in turns(mine, its, first):
        play >> segment(side, piece, stream if side == "P" else other, isn, 500, ends, last=False)
    (want,) = play.wanted
    assert (want.reason, want.offset) == ("payload", at)
    for released in play.sent:
        seg, payload = fields(released)
        start = seg.seq - isn - 1 & 0xFFFFFFFF
        assert not start <= at < start + len(payload)


@CASE
@given(sides(), st.booleans())
def test_seen_from_the_middle_equal_streams_never_ask_and_leave(drawn, late):
    """A compare that was restarted: it has seen no SYN."""
    size, mine, its, first = drawn
    stream = bytes(n * 7 & 255 for n in range(size))
    play, ends = Play(), (GUEST, CLIENT)
    sent = []
    for side, piece in turns(mine, its, first):
        frame = segment(side, piece, stream, 5000, 500, ends, last=False)
        sent += [frame.data] if side == "P" else []
        play >> frame
    play >> tcp("S", 5001 + size, b"", ACK, 500 + MANY_ACKS, window=65535)
    play.at(2.5 if late else 10)
    assert not play.wanted
    assert_everything_left(play, sent, 5001)


def assert_everything_left(play, sent, first):
    """Every byte went. Segments that did not leave as they came were cut, because a part of them had left before."""
    assert covered(play.sent, first) == covered(sent, first)
    cut = Counter(sent) - Counter(play.sent)
    counters = play.core.counters
    assert len(play.sent) - len(sent) == counters["synthesized"]
    assert counters["synthesized"] == counters["heads_released"] + counters["probes_released"]
    assert counters["heads_released"] or not cut
    assert all(fields(frame)[1] for frame in cut.elements()), "what has no bytes is never cut"


def covered(frames, first):
    """Places of the stream that frames have, FIN included."""
    found = set()
    for frame in frames:
        seg, payload = fields(frame)
        start = seg.seq - first & 0xFFFFFFFF
        found |= set(range(start, start + len(payload) + (seg.flags & FIN)))
    return found


@CASE
@given(st.lists(st.binary(max_size=3), max_size=30), st.randoms(use_true_random=False), st.booleans())
def test_equal_datagrams_leave_whatever_the_order_and_never_ask(bodies, random, in_order):
    play = Play()
    mine, its = list(bodies), list(bodies)
    if not in_order:
        random.shuffle(its)
    arrivals = [("P", one) for one in mine] + [("S", one) for one in its]
    # Each side's own order stays; whose turn it is does not matter.
    sides_ = [side for side, _ in arrivals]
    random.shuffle(sides_)
    queues = {"P": mine, "S": its}
    frames = []
    for side in sides_:
        frame = udp(side, queues[side].pop(0))
        frames += [frame.data] if side == "P" else []
        play >> frame
        play.now += 0.001
    play.at(10)
    assert not play.wanted
    assert sorted(play.sent) == sorted(frames)
    if in_order:
        assert play.sent == frames


def opened(isn, acked, ends):
    play = Play()
    first = Frame("P", craft.tcp(*ends, 80, 5000, isn, acked, 18, options=craft.mss(1460), window=500))
    second = Frame("S", craft.tcp(*ends, 80, 5000, 7777, acked, 18, options=craft.mss(1460), window=65535))
    play >> first >> second
    assert play.released == [first]
    play.sent.clear()
    play.core.ledger.released -= 1
    play.core.ledger.frames_primary -= 1
    return play


def segment(side, piece, stream, isn, acked, ends, last):
    flags = ACK | (PSH if piece.stop > piece.start else 0) | (FIN if last else 0)
    body = stream[piece.start : piece.stop]
    more = {"src": ends[0], "dst": ends[1], "window": 500 if side == "P" else 65535}
    return tcp(side, isn + 1 + piece.start, body, flags, acked + piece.ack, **more)
