"""Whether checksums are right: by damage, and where there is none to check."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from checksums import ip_checksum_ok, l4_checksum_ok, tcp_checksum_ok
from colo_proto.net import packet as p

A4, B4, A6, B6 = "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"

WHOLE = [
    craft.tcp(A4, B4, 1, 2, 3, 4, 16, b"hello"),
    craft.tcp(A6, B6, 1, 2, 3, 4, 16, b"hell", options=craft.timestamps(1, 2), tags=(5,)),
    craft.udp(A4, B4, 1, 2, b"hello", options=b"\1" * 4),
    craft.udp(A6, B6, 1, 2, b"hello", tags=(5, 6)),
    craft.icmp_echo(A4, B4, 1, 2, b"hello"),
    craft.icmp_echo(A6, B6, 1, 2, b"hello"),
    craft.neighbour_solicitation(A6, B6),
    craft.icmp_error(A4, B4, craft.udp(A4, B4, 1, 2)),
]


@pytest.mark.parametrize("frame", WHOLE)
def test_right_ones_are_right(frame):
    assert ip_checksum_ok(frame)
    assert l4_checksum_ok(frame)


@given(st.sampled_from(WHOLE), st.integers(0, 10_000), st.integers(1, 255))
@settings(deadline=None)
def test_any_changed_byte_of_the_packet_is_noticed(frame, at, flip):
    packet = p.dissect(frame)
    damaged = bytearray(frame)
    at = packet.l3 + at % (packet.end - packet.l3)
    damaged[at] ^= flip
    after = p.dissect(damaged)
    if after.kind is not p.Kind.IP or (after.proto, after.l4) != (packet.proto, packet.l4):
        return
    if packet.version == 4 and at < packet.l4:
        assert not ip_checksum_ok(damaged)
    elif packet.version == 6 and at < packet.l3 + 8:
        # IPv6 sums neither its class, label and hop limit nor anything but addresses and length.
        return
    else:
        assert not l4_checksum_ok(damaged)


def test_a_partial_one_is_right_when_it_is_the_pseudo_headers_sum():
    for src, dst in ((A4, B4), (A6, B6)):
        good = craft.tcp(src, dst, 1, 2, 3, 4, 16, b"hello", partial=True)
        assert l4_checksum_ok(good)
        # The payload may be anything; the addresses may not.
        packet = p.dissect(good)
        changed = bytearray(good)
        changed[packet.end - 1] ^= 1
        assert l4_checksum_ok(changed)
        changed[packet.l3 + (19 if packet.version == 4 else 39)] ^= 1
        assert not l4_checksum_ok(changed)
        assert l4_checksum_ok(craft.udp(src, dst, 1, 2, b"x", partial=True))


def test_udp_without_a_checksum_is_right_in_ipv4_only():
    assert l4_checksum_ok(craft.udp(A4, B4, 1, 2, b"x", no_checksum=True))
    assert not l4_checksum_ok(craft.udp(A6, B6, 1, 2, b"x", no_checksum=True))


@pytest.mark.slow
def test_a_udp_checksum_that_comes_out_as_zero_is_sent_as_ffff():
    for n in range(65536):
        frame = craft.udp(A4, B4, 1, 2, n.to_bytes(2, "big"))
        packet = p.dissect(frame)
        if frame[packet.l4 + 6 : packet.l4 + 8] == b"\xff\xff":
            assert l4_checksum_ok(frame)
            return
    raise AssertionError("one of them must")


@pytest.mark.parametrize(
    "frame",
    [
        craft.arp_request(A4, B4),
        craft.ip(A4, B4, 50, bytes(20)),
        craft.ip(A6, B6, 59, b""),
        craft.fragments(craft.udp(A4, B4, 1, 2, bytes(3000), dont_fragment=False), 1280)[1],
        craft.udp(A4, B4, 1, 2)[:-1],
        bytes(30),
    ],
)
def test_what_has_no_checksum_that_could_be_checked_is_not_wrong(frame):
    assert l4_checksum_ok(frame)


def test_tcp_only():
    assert tcp_checksum_ok(WHOLE[0])
    assert not tcp_checksum_ok(craft.udp(A4, B4, 1, 2))
    damaged = bytearray(WHOLE[0])
    damaged[-1] ^= 1
    assert not tcp_checksum_ok(damaged)


def test_headers_without_a_checksum():
    assert ip_checksum_ok(craft.udp(A6, B6, 1, 2))
    assert ip_checksum_ok(craft.arp_request(A4, B4))
    broken = bytearray(craft.udp(A4, B4, 1, 2))
    broken[p.dissect(broken).l3 + 8] ^= 1
    assert not ip_checksum_ok(broken)
