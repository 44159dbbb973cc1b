"""Reassembly: in any order, with repeats and overlaps; every frame comes out exactly once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.frame import ETH
from colo_proto.net import packet as p
from colo_proto.net.fragment import Reassembler
from colo_proto.net.packet import dissect

PAIRS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}


def datagram(version=4, size=3000, ident=7, fill=0, **more):
    body = bytes((i + fill) & 255 for i in range(size))
    return craft.udp(*PAIRS[version], 53, 5000, body, ident=ident, dont_fragment=False, **more)


def cut(frame, mtu=1280):
    return craft.fragments(frame, mtu)


def make(max_datagrams=16, max_bytes=1 << 20, timeout=5.0):
    return Reassembler(max_datagrams, max_bytes, timeout)


def feed(reassembler, frames, now=0.0):
    return [whole for frame in frames if (whole := reassembler.add(dissect(frame), now)) is not None]


@pytest.mark.parametrize("version", [4, 6])
def test_in_order(version):
    frame = datagram(version)
    pieces = cut(frame)
    assert len(pieces) == 3
    r = make()
    (whole,) = feed(r, pieces)
    assert whole.body == dissect(frame).payload()
    assert whole.key == dissect(frame).key
    assert whole.proto == p.PROTO_UDP
    assert whole.frames == tuple(pieces)
    assert (r.size, r.dropped(), r.clear()) == (0, [], [])


@given(st.sampled_from([4, 6]), st.integers(1300, 9000), st.integers(600, 1400), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_in_any_order_with_repeats(version, size, mtu, random):
    frame = datagram(version, size)
    pieces = cut(frame, mtu)
    order = pieces + random.sample(pieces[:-1], random.randrange(len(pieces)))
    random.shuffle(order)
    r = make()
    wholes = feed(r, order)
    assert wholes
    assert wholes[0].body == dissect(frame).payload()
    assert wholes[0].key == dissect(frame).key
    came_out = [f for whole in wholes for f in whole.frames] + r.dropped() + r.clear()
    assert sorted(came_out) == sorted(order)


def test_two_datagrams_at_once_by_identification():
    one, two = datagram(ident=1), datagram(ident=2, fill=99)
    mixed = [piece for pair in zip(cut(one), cut(two), strict=True) for piece in pair]
    wholes = feed(make(), mixed)
    assert [w.body for w in wholes] == [dissect(one).payload(), dissect(two).payload()]


@pytest.mark.parametrize(
    "other",
    [
        craft.udp("10.0.0.9", "10.0.0.2", 53, 5000, bytes(3000), ident=7, dont_fragment=False),
        craft.udp("10.0.0.1", "10.0.0.2", 53, 5000, bytes(3000), ident=7, dont_fragment=False, tags=(5,)),
        craft.ip("10.0.0.1", "10.0.0.2", p.PROTO_SCTP, bytes(3008), ident=7, dont_fragment=False),
    ],
)
def test_what_differs_in_address_tag_or_protocol_is_another_datagram(other):
    r = make()
    assert not feed(r, cut(datagram())[:2])
    assert not feed(r, cut(other)[2:])
    assert len(r.clear()) == 3


class TestOverlaps:
    def overlapping(self, version):
        src, dst = PAIRS[version]
        head = cut(datagram(version))
        more = {"ident": dissect(head[0]).ident, "dont_fragment": False}
        return head, craft.ip(src, dst, p.PROTO_UDP, b"X" * 16, offset=1232, more=True, **more)

    def test_in_ipv4_what_came_first_wins(self):
        pieces, overlap = self.overlapping(4)
        r = make()
        (whole,) = feed(r, [pieces[0], overlap, *pieces[1:]])
        assert whole.body == dissect(datagram(4)).payload()
        assert overlap in whole.frames

    def test_an_ipv6_datagram_is_spoilt(self):
        pieces, overlap = self.overlapping(6)
        r = make()
        assert not feed(r, [*pieces[:2], overlap])
        assert sorted(r.dropped()) == sorted([*pieces[:2], overlap])
        assert r.size == 0

    def test_exact_repeats_are_harmless_in_both(self):
        for version in (4, 6):
            pieces = cut(datagram(version))
            (whole,) = feed(make(), [pieces[0], pieces[0], *pieces[1:]])
            assert whole.body == dissect(datagram(version)).payload()
            assert len(whole.frames) == 4


class TestSpoilt:
    def spoilt(self, *frames):
        r = make()
        assert not feed(r, frames)
        assert sorted(r.dropped()) == sorted(frames)
        assert (r.size, r.clear()) == (0, [])

    def piece(self, offset, size, more):
        return craft.ip(*PAIRS[4], p.PROTO_UDP, bytes(size), offset=offset, more=more, ident=7, dont_fragment=False)

    def test_a_middle_that_is_no_multiple_of_eight(self):
        self.spoilt(self.piece(0, 20, more=True))

    def test_an_empty_middle(self):
        self.spoilt(self.piece(8, 0, more=True))

    def test_two_different_ends(self):
        self.spoilt(self.piece(800, 8, more=False), self.piece(1600, 8, more=False))

    def test_beyond_the_largest_datagram(self):
        self.spoilt(self.piece(65528, 16, more=False))

    def test_the_largest_datagram_is_whole(self):
        r = make()
        (whole,) = feed(r, [self.piece(0, 32768, more=True), self.piece(32768, 32760, more=False)])
        assert len(whole.body) == 65528

    def test_a_piece_behind_the_end_keeps_it_from_being_whole(self):
        r = make()
        pieces = [self.piece(0, 16, more=True), self.piece(32, 8, more=True), self.piece(16, 8, more=False)]
        assert not feed(r, pieces)
        assert len(r.clear()) == 3


class TestBounds:
    def test_too_old(self):
        r = make(timeout=5.0)
        first = cut(datagram(ident=1))[0]
        second = cut(datagram(ident=2))[0]
        feed(r, [first], 0.0)
        feed(r, [second], 3.0)
        r.expire(4.9)
        assert r.dropped() == []
        r.expire(5.0)
        assert r.dropped() == [first]
        r.expire(8.0)
        assert r.dropped() == [second]
        assert r.size == 0

    def test_too_many_datagrams(self):
        r = make(max_datagrams=3)
        firsts = [cut(datagram(ident=n))[0] for n in range(5)]
        feed(r, firsts)
        assert r.dropped() == firsts[:2]
        assert r.clear() == firsts[2:]

    def test_too_many_bytes(self):
        pieces = [cut(datagram(ident=n))[0] for n in range(4)]
        r = make(max_bytes=3 * len(pieces[0]))
        feed(r, pieces)
        assert r.dropped() == pieces[:1]
        assert r.size == 3 * len(pieces[0])

    def test_one_datagram_larger_than_the_bound_is_given_up(self):
        r = make(max_bytes=100)
        (piece,) = cut(datagram())[:1]
        feed(r, [piece])
        assert r.dropped() == [piece]
        assert r.size == 0

    def test_a_flood_of_repeats_ends(self):
        tiny = craft.ip(*PAIRS[4], p.PROTO_UDP, bytes(8), more=True, ident=7, dont_fragment=False)
        r = make(max_bytes=1 << 30)
        count = 0
        while not (dropped := r.dropped()):
            feed(r, [tiny])
            count += 1
            assert count < 10_000
        assert len(dropped) == count


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 32), st.booleans()), max_size=60))
@settings(deadline=None)
def test_nothing_is_lost_or_made_up(script):
    r = Reassembler(3, 2000, 5.0)
    given_in, came_out = [], []
    for now, (ident, units, size, more) in enumerate(script):
        frame = craft.ip(
            *PAIRS[4],
            p.PROTO_UDP,
            bytes(size),
            offset=8 * units,
            more=more or not units,
            ident=ident,
            dont_fragment=False,
        )
        packet = dissect(frame)
        if packet.kind is not p.Kind.FRAGMENT:
            continue
        given_in.append(frame)
        whole = r.add(packet, float(now))
        if whole is not None:
            came_out += whole.frames
        if not now % 7:
            r.expire(float(now))
        came_out += r.dropped()
        assert r.size <= 2000
        assert len(given_in) - len(came_out) == len([f for part in r._partials.values() for f in part.frames])
    came_out += r.clear()
    assert sorted(came_out) == sorted(given_in)


def test_vlan_and_ethernet_headers_do_not_enter_the_body():
    frame = datagram(tags=(5, 6))
    (whole,) = feed(make(), cut(frame))
    assert whole.body == frame[dissect(frame).l4 :]
    assert whole.key == dissect(frame).key
    assert all(piece[ETH : ETH + 12] == frame[ETH : ETH + 12] for piece in whole.frames)
