"""Window updates that the proxy makes: a valid pure ACK of the same connection."""

import dpkt
import pytest

import craft
from checksums import ip_checksum_ok, l4_checksum_ok
from colo_proto.frame import ETH, NO_OFFLOAD
from colo_proto.net import packet as p
from colo_proto.net import tcp
from colo_proto.net.window import window_update

PAIRS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}


def update(frame, seq=111, ack=222, window=333):
    packet = p.dissect(frame)
    found = tcp.segment(frame, packet.l4, packet.end)
    return window_update(frame, packet.l4, found.data, seq, ack, window)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"options": craft.timestamps(7, 8)},
        {"payload": b"hello"},
        {"payload": bytes(5000), "gso": 1400},
        {"urgent": 9, "payload": b"x"},
        {"partial": True},
        {"pad": 80},
    ],
)
def test_it_is_a_pure_ack_with_right_sums(version, tags, more):
    flags = tcp.ACK | tcp.PSH | tcp.FIN | tcp.URG
    frame = craft.tcp(*PAIRS[version], 80, 5000, 1000, 2000, flags, tags=tags, **more)
    out = update(frame)
    assert out[:ETH] == NO_OFFLOAD
    assert ip_checksum_ok(out)
    assert l4_checksum_ok(out)
    packet, before = p.dissect(out), p.dissect(frame)
    assert packet.kind is p.Kind.IP
    assert (packet.key, packet.end) == (before.key, len(out))
    found = tcp.segment(out, packet.l4, packet.end)
    assert (found.seq, found.ack, found.flags, found.window, found.length) == (111, 222, tcp.ACK, 333, 0)
    # MAC addresses, tags and the options of the segment are kept; urgent is not.
    assert out[ETH : packet.l3] == frame[ETH : before.l3]
    assert out[packet.l4 + 20 :] == more.get("options", b"")
    assert out[packet.l4 + 18 : packet.l4 + 20] == b"\0\0"


@pytest.mark.parametrize("version", [4, 6])
def test_another_parser_reads_it(version):
    frame = craft.tcp(*PAIRS[version], 80, 5000, 1000, 2000, tcp.ACK, b"hello", options=craft.timestamps(7, 8))
    ip = dpkt.ethernet.Ethernet(update(frame)[ETH:]).data
    segment = ip.data
    assert (segment.sport, segment.dport, segment.seq, segment.ack) == (80, 5000, 111, 222)
    assert (segment.flags, segment.win, segment.data) == (tcp.ACK, 333, b"")


def test_extension_headers_are_kept():
    frame = craft.tcp(*PAIRS[6], 80, 5000, 1, 2, tcp.ACK, b"hi", extensions=[(p.PROTO_DSTOPTS, b"")])
    out = update(frame)
    assert l4_checksum_ok(out)
    assert p.dissect(out).key == p.dissect(frame).key


def test_the_frame_it_was_made_from_is_not_changed():
    frame = bytearray(craft.tcp(*PAIRS[4], 80, 5000, 1, 2, tcp.ACK, b"hi"))
    copy = bytes(frame)
    update(frame)
    assert frame == copy


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (craft.mss(1460) + craft.sack_permitted() + craft.wscale(7), b""),
        (craft.sack((5, 9)) + craft.timestamps(7, 8), craft.timestamps(7, 8)),
        (b"\x08\x0a" + bytes(3) + b"\7" + bytes(3) + b"\x08\0\0", craft.timestamps(7, 8)),
    ],
)
@pytest.mark.parametrize("version", [4, 6])
def test_of_the_options_the_timestamps_alone_are_kept(version, options, kept):
    """What a SYN negotiates has no place in an ACK, and SACK blocks below another ACK report duplicates (RFC 2883)."""
    out = update(craft.tcp(*PAIRS[version], 80, 5000, 1000, 2000, tcp.ACK, b"hello", options=options))
    packet = p.dissect(out)
    assert out[packet.l4 + 20 :] == kept
    assert out[packet.l4 + 12] >> 4 == 5 + len(kept) // 4
    assert ip_checksum_ok(out)
    assert l4_checksum_ok(out)
