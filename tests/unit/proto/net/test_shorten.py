"""The head of a segment: what a second, shorter segment of the same sender would look like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import craft
from checksums import ip_checksum_ok, l4_checksum_ok
from colo_proto.net.packet import dissect
from colo_proto.net.shorten import shorten
from colo_proto.net.tcp import ACK, FIN, PSH, URG, segment
from craft import VnetHdr

ENDS = {4: ("10.0.0.2", "10.0.0.9"), 6: ("fd00::2", "fd00::9")}


def cut(frame, keep, skip=0, **more):
    packet = dissect(frame)
    data = segment(frame, packet.l4, packet.end).data
    return shorten(frame, packet.l4, data, packet.end, keep, skip, **more)


@given(
    st.sampled_from([4, 6]),
    st.binary(min_size=2, max_size=90),
    st.integers(1, 89),
    st.sampled_from([(), (7,), (3, 4)]),
    st.booleans(),
    st.sampled_from([b"", craft.timestamps(7, 9)]),
)
def test_it_is_what_the_sender_would_have_sent(family, payload, keep, tags, partial, options):
    keep = min(keep, len(payload) - 1)
    more = {"tags": tags, "partial": partial, "options": options, "ident": 7}
    whole = craft.tcp(*ENDS[family], 80, 5000, 100, 200, ACK | PSH | FIN, payload, **more)
    assert cut(whole, keep) == craft.tcp(*ENDS[family], 80, 5000, 100, 200, ACK, payload[:keep], **more)


@given(
    st.sampled_from([4, 6]),
    st.binary(min_size=2, max_size=90),
    st.integers(0, 90),
    st.integers(0, 90),
    st.sampled_from([100, 2**32 - 3, 2**32 - 1, 0xFFFE, 0xFFFF]),
    st.sampled_from([(), (7,), (3, 4)]),
    st.booleans(),
    st.sampled_from([b"", craft.timestamps(7, 9)]),
    st.integers(0, 99),
)
def test_so_is_any_part(family, payload, skip, keep, seq, tags, partial, options, urgent):
    """The rest has what belongs to the last byte; the urgent pointer points to the same byte while that is to come."""
    keep = min(keep, len(payload))
    skip = min(skip, keep)
    more = {"tags": tags, "partial": partial, "options": options, "ident": 7}
    flags = ACK | PSH | FIN | (URG if urgent else 0)
    whole = craft.tcp(*ENDS[family], 80, 5000, seq, 200, flags, payload, urgent=urgent, **more)
    flags &= ~(0 if keep == len(payload) else PSH | FIN) & ~(URG if urgent <= skip else 0)
    more["urgent"] = max(urgent - skip, 0)
    part = craft.tcp(*ENDS[family], 80, 5000, (seq + skip) % 2**32, 200, flags, payload[skip:keep], **more)
    assert l4_checksum_ok(cut(whole, keep, skip))
    assert same(cut(whole, keep, skip)) == same(part)


@given(
    st.sampled_from([4, 6]),
    st.binary(min_size=1, max_size=90),
    st.integers(0, 89),
    st.booleans(),
)
def test_the_bytes_without_the_fin_behind_them(family, payload, skip, partial):
    skip = min(skip, len(payload) - 1)
    ends, more = ENDS[family], {"partial": partial, "ident": 7}
    whole = craft.tcp(*ends, 80, 5000, 100, 200, ACK | PSH | FIN, payload, **more)
    part = craft.tcp(*ends, 80, 5000, 100 + skip, 200, ACK | PSH, payload[skip:], **more)
    assert same(cut(whole, len(payload), skip, fin=False)) == same(part)


def same(frame):
    """A TCP checksum of all zeros and one of all ones say the same."""
    at = dissect(frame).l4 + 16
    return frame[:at] + (b"\0\0" if frame[at : at + 2] == b"\xff\xff" else frame[at : at + 2]) + frame[at + 2 :]


@pytest.mark.parametrize("family", [4, 6])
def test_padding_goes(family):
    frame = craft.tcp(*ENDS[family], 80, 5000, 100, 200, ACK, b"abc")
    assert cut(frame + b"\xee" * 9, 1) == craft.tcp(*ENDS[family], 80, 5000, 100, 200, ACK, b"a")


@pytest.mark.parametrize(("skip", "keep", "gso"), [(0, 100, 0), (0, 101, 100), (150, 250, 0), (149, 250, 100)])
def test_a_gso_frame_that_fits_one_segment_is_one(skip, keep, gso):
    frame = craft.tcp(*ENDS[4], 80, 5000, 100, 200, ACK, bytes(range(250)), gso=100)
    short = cut(frame, keep, skip)
    assert VnetHdr.of(short).gso_size == gso
    assert bool(VnetHdr.of(short).gso_type) == bool(gso)
    assert l4_checksum_ok(short)
    assert ip_checksum_ok(short)


def test_a_wrong_checksum_stays_wrong():
    frame = bytearray(craft.tcp(*ENDS[4], 80, 5000, 100, 200, ACK, b"abcdef"))
    frame[-1] ^= 1
    assert not l4_checksum_ok(bytes(frame))
    assert l4_checksum_ok(cut(craft.tcp(*ENDS[4], 80, 5000, 100, 200, ACK, b"abcdef"), 3))
    frame[-1] ^= 1
    frame[-6] ^= 1
    assert not l4_checksum_ok(cut(bytes(frame), 3))
