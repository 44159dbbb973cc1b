"""Joining segments: cut up again they are the ones that went in, and nothing is joined that GRO would not join."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.frame import ETH, GSO_TCPV4, GSO_TCPV6
from colo_proto.net.coalesce import LONG_ENOUGH, coalesce
from colo_proto.net.offload import to_plain
from craft import VnetHdr

ACK, PSH, FIN = 16, 8, 1
GUEST, CLIENT = {4: "10.0.0.2", 6: "fd00::2"}, {4: "10.0.0.9", 6: "fd00::9"}


def segment(
    at, size, version=4, *, port=5000, gso=0, flags=ACK, ack=77, win=500, tsval=9, partial=True, base=1000, **more
):
    """Bytes `at` to `at + size` of a stream in which every byte follows from its place and the port."""
    payload = bytes((place * 7 + port) & 255 for place in range(at, at + size))
    return craft.tcp(
        GUEST[version], CLIENT[version], 80, port, (base + at) % 2**32, ack, flags, payload,
        options=craft.timestamps(tsval, 3), window=win, partial=partial or bool(gso), gso=gso, **more,
    )  # fmt: skip


def cut(frames):
    """Wire frames by connection, in order; identification and header checksum aside (GRO does not keep them)."""
    found = {}
    for frame in frames:
        for plain in to_plain(frame):
            one = bytearray(plain)
            if one[12:14] == b"\x08\x00":
                one[18:20] = one[24:26] = bytes(2)
                key = bytes(one[26:38])
            else:
                key = bytes(one[22:58])
            # PSH goes with the last byte of what was joined: a hint, not a part of the stream.
            l4 = 34 if one[12:14] == b"\x08\x00" else 54
            one[l4 + 13] &= ~PSH
            one[l4 + 16 : l4 + 18] = bytes(2)
            found.setdefault(key, []).append(bytes(one))
    return found


def test_segments_that_follow_each_other_become_one_frame():
    for version, kind in ((4, GSO_TCPV4), (6, GSO_TCPV6)):
        frames = [segment(0, 2896, version, gso=1448), segment(2896, 2896, version, gso=1448)]
        frames += [segment(5792, 1000, version, flags=ACK | PSH)]
        (one,) = coalesce(frames)
        header = VnetHdr.of(one)
        l4 = 34 if version == 4 else 54
        assert header == VnetHdr(1, kind, l4 + 32, 1448, l4, 16)
        plain = to_plain(one)
        assert [len(frame) - l4 - 32 for frame in plain] == [1448] * 4 + [1000]
        assert cut([one]) == cut(frames)
        assert plain[-1][l4 + 13] == ACK | PSH


def test_checksums_are_right():
    for version in (4, 6):
        frames = [segment(0, 1448, version), segment(1448, 1448, version), segment(2896, 7, version)]
        (one,) = coalesce(frames)
        whole = segment(0, 2903, version, gso=1448)
        assert one[ETH:] == whole[ETH:]


def test_connections_that_alternate():
    frames = []
    for at in (0, 1000, 2000):
        frames += [segment(at, 1000, port=5001), segment(at, 1000, 6, port=5002)]
    joined = coalesce(frames)
    assert len(joined) == 2
    assert cut(joined) == cut(frames)


def test_what_is_not_joined():
    first = segment(0, 1000)
    for other in (
        segment(1001, 1000),  # a hole
        segment(0, 1000),  # a repetition
        segment(1000, 1001),  # longer than the first
        segment(1000, 1000, ack=78),
        segment(1000, 1000, win=501),
        segment(1000, 1000, tsval=10),
        segment(1000, 1000, flags=ACK | FIN),
        segment(1000, 1000, partial=False),  # its checksum was not looked at
        segment(1000, 2000, gso=500),
        segment(1000, 1000, ttl=63),
        segment(1000, 1000, tos=1),
        segment(1000, 1000, 6),
        segment(1000, 1000, tags=(5,)),
        segment(1000, 0),
    ):
        assert list(coalesce([first, other])) == [first, other]


def test_after_a_short_one_nothing_follows():
    frames = [segment(0, 1000), segment(1000, 10), segment(1010, 1000)]
    assert cut(coalesce(frames)) == cut(frames)
    assert len(coalesce(frames)) == 2


def test_long_frames_stay_as_they_are_and_none_becomes_too_long():
    long = segment(0, LONG_ENOUGH, gso=1024)
    assert coalesce([long, segment(LONG_ENOUGH, 1024)])[0] is long
    frames = [segment(at, 10240, gso=1024) for at in range(0, 102400, 10240)]
    joined = coalesce(frames)
    assert max(map(len, joined)) <= ETH + 65535
    assert cut(joined) == cut(frames)


def test_sequence_numbers_wrap():
    frames = [segment(at, 1000, base=2**32 - 1500) for at in (0, 1000, 2000)]
    assert cut(coalesce(frames)) == cut(frames)
    assert len(coalesce(frames)) == 1


PIECE = st.tuples(
    st.sampled_from([5000, 5001]), st.sampled_from([4, 6]), st.sampled_from([1, 500, 1000, 2000, 3000]),
    st.sampled_from([0, 500, 1000]), st.sampled_from([ACK, ACK, ACK | PSH, ACK | FIN]), st.sampled_from([77, 77, 78]),
    st.sampled_from([0, 0, 0, -1000, 7]), st.booleans(),
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(PIECE, max_size=24))
def test_any_batch_is_the_same_on_the_wire(pieces):
    places = {}
    frames = []
    for port, version, size, gso, flags, ack, jump, partial in pieces:
        at = max(places.get((port, version), 0) + jump, 0)
        places[port, version] = at + size
        gso = gso if gso and size > gso else 0
        frames.append(segment(at, size, version, port=port, gso=gso, flags=flags, ack=ack, partial=partial))
    joined = coalesce(frames)
    assert len(joined) <= len(frames)
    assert cut(joined) == cut(frames)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(min_size=24, max_size=200), max_size=8))
def test_garbage_passes_as_it_is(frames):
    assert list(coalesce(frames)) == frames
