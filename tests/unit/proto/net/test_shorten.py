"""The head of a segment: what a second, shorter segment of the same sender would look like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_proto.frame import VnetHdr
from colo_proto.net import craft
from colo_proto.net.packet import dissect
from colo_proto.net.shorten import shorten
from colo_proto.net.tcp import ACK, FIN, PSH, segment
from colo_proto.net.verify import ip_checksum_ok, l4_checksum_ok

ENDS = {4: ("10.0.0.2", "10.0.0.9"), 6: ("fd00::2", "fd00::9")}


def cut(frame, keep):
    packet = dissect(frame)
    data = segment(frame, packet.l4, packet.end).data
    return shorten(frame, packet.l4, data, packet.end, keep)


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


@pytest.mark.parametrize("family", [4, 6])
def test_padding_goes(family):
    frame = craft.tcp(*ENDS[family], 80, 5000, 100, 200, ACK, b"abc")
    assert cut(frame + b"\xee" * 9, 1) == craft.tcp(*ENDS[family], 80, 5000, 100, 200, ACK, b"a")


@pytest.mark.parametrize(("keep", "gso"), [(100, 0), (101, 100)])
def test_a_gso_frame_that_fits_one_segment_is_one(keep, gso):
    frame = craft.tcp(*ENDS[4], 80, 5000, 100, 200, ACK, bytes(range(250)), gso=100)
    short = cut(frame, keep)
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
