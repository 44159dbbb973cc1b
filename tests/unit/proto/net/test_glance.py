"""A glance at the commonest shapes finds what dissection finds, and never anything else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.net import packet as p

PAIRS = {4: ("10.0.0.9", "10.0.0.2"), 6: ("fd00::9", "fd00::2")}


def agrees(frame):
    """Does the glance give what dissection gives? True when it found the L4 header."""
    proto, l4, end, ends = p.glance(frame[: p.GLANCE], len(frame))
    assert (proto, l4, end, ends) == p.glance(frame, len(frame))
    packet = p.dissect(frame)
    if l4:
        assert packet.kind == p.Kind.IP
        assert (packet.proto, packet.l4, packet.end) == (proto, l4, end)
        if proto in (p.PROTO_TCP, p.PROTO_UDP):
            assert packet.key == bytes((proto,)) + ends
    elif proto >= 0 and packet.kind != p.Kind.MALFORMED:
        assert (packet.version, packet.proto) == (4, proto)
    return l4 > 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tags", [(), (5,), (0x6005,)])
def test_the_commonest_shapes_are_found(version, tags):
    a, b = PAIRS[version]
    assert agrees(craft.tcp(a, b, 5000, 80, 1, 2, 16, b"x", tags=tags))
    assert agrees(craft.udp(a, b, 5000, 53, b"x", tags=tags, pad=60))


@pytest.mark.parametrize("version", [4, 6])
def test_other_shapes_are_left_to_dissection(version):
    a, b = PAIRS[version]
    segment = craft.tcp(a, b, 5000, 80, 1, 2, 16, bytes(3000))
    others = [
        *craft.fragments(craft.udp(a, b, 5000, 53, bytes(3000), dont_fragment=False), 1280), segment[:-1],
        craft.tcp(a, b, 5000, 80, 1, 2, 16, tags=(7, 5)), craft.arp_request(*PAIRS[4]), b"", bytes(24),
        craft.udp(a, b, 1, 2, **({"options": b"\x94\4\0\0"} if version == 4 else {"extensions": [(60, bytes(6))]})),
    ]  # fmt: skip
    assert not any(agrees(frame) for frame in others)


@given(st.sampled_from([4, 6]), st.sampled_from([(), (5,)]), st.data())
@settings(deadline=None)
def test_any_bytes(version, tags, data):
    frame = bytearray(craft.tcp(*PAIRS[version], 5000, 80, 1, 2, 16, b"x" * 9, tags=tags))
    for _ in range(data.draw(st.integers(0, 4))):
        frame[data.draw(st.integers(10, 60))] = data.draw(st.integers(0, 255))
    agrees(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
