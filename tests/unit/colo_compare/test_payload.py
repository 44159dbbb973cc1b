"""What has to be equal of packets that are no TCP segments."""

from struct import pack

import pytest

import craft
from colo_compare.payload import UNCOMPARED, payload
from colo_proto.net.flow import about, describe, parts, tags_of
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK
from colo_proto.shard import slot_of

GUEST, CLIENT = "10.0.0.2", "10.0.0.9"
GUEST6, CLIENT6 = "fd00::2", "fd00::9"


def of(frame):
    packet = dissect(frame)
    return payload(packet.key, packet.proto, tags_of(packet.key), frame, packet.l4, packet.end)


def test_udp_without_its_header():
    assert of(craft.udp(GUEST, CLIENT, 1, 2, b"data"))[1] == b"data"


def test_icmp_without_its_checksum():
    body = of(craft.icmp_echo(GUEST, CLIENT, ident=7, seq=1, payload=b"x"))[1]
    assert body == b"\x08\0" + b"\0\7\0\1x"


def test_icmp_timestamps_without_the_clock_of_the_guest():
    """A client may ask for them as often as it likes, and no two guests have the same time."""

    def reply(receive, originate=1000, seq=1):
        body = pack("!HHIII", 7, seq, originate, receive, receive + 1)
        return of(craft.icmp(GUEST, CLIENT, 14, 0, body))

    assert reply(5000) == reply(9999)
    assert reply(5000) != reply(5000, originate=1001)
    assert reply(5000) != reply(5000, seq=2)
    six = craft.icmp(GUEST6, CLIENT6, 14, 0, pack("!HHIII", 7, 1, 1000, 5000, 5001))
    assert of(six)[1].endswith(pack("!I", 5001)), "ICMPv6 has no such message"


@pytest.mark.parametrize("quoted", [b"", b"E", bytes(28), b"\x45" + bytes(5) + b"\0\x09" + bytes(20)])
@pytest.mark.parametrize(("guest", "client", "kind"), [(GUEST, CLIENT, 3), (GUEST, CLIENT, 11), (GUEST6, CLIENT6, 3)])
def test_an_error_that_quotes_nothing_readable_is_still_no_answer(guest, client, kind, quoted):
    error = craft.icmp(guest, client, kind, 0, bytes(4) + quoted)
    key, _ = of(error)
    assert key != dissect(error).key, "pings must not be matched with it"
    assert slot_of(key) == slot_of(dissect(error).key), "whoever shares frames out knows only the hosts"


def test_other_protocols_are_opaque():
    assert of(craft.ip(GUEST, CLIENT, 47, b"inner packet"))[1] == b"inner packet"


@pytest.mark.parametrize(
    "frame",
    [
        craft.ip(GUEST, CLIENT, 2, bytes(8)),
        craft.neighbour_solicitation("fe80::1", "fe80::2"),
        craft.icmp(GUEST6, CLIENT6, 143, 0, bytes(8)),
        craft.icmp(GUEST6, CLIENT6, 152, 0, bytes(8)),
        craft.icmp(GUEST, "224.0.0.2", 10, 0, bytes(4)),
    ],
)
def test_the_links_own_chatter(frame):
    assert of(frame)[0] == UNCOMPARED


@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize(("guest", "client"), [(GUEST, CLIENT), (GUEST6, CLIENT6)])
def test_errors_have_the_key_of_both(guest, client, tags):
    quoted = craft.udp(client, guest, 6000, 53, b"question", tags=tags)
    error = craft.icmp_error(guest, client, quoted, tags=tags)
    key, _ = of(error)
    assert key.startswith(dissect(error).key)
    assert about(key) == dissect(craft.udp(guest, client, 53, 6000, b"", tags=tags)).key
    assert parts(key) == parts(dissect(error).key)
    assert " about " in describe(key)
    assert about(about(key)) == about(dissect(error).key) == b""


def test_a_quoted_udp_checksum_may_be_partial_on_one_side():
    whole = bytearray(craft.udp(CLIENT, GUEST, 6000, 53, b"question"))
    partial = bytearray(whole)
    partial[50] ^= 0x55
    assert (
        of(craft.icmp_error(GUEST, CLIENT, bytes(whole)))[1] == of(craft.icmp_error(GUEST, CLIENT, bytes(partial)))[1]
    )


@pytest.mark.parametrize("size", range(8, 40))
def test_quotes_may_be_cut_anywhere(size):
    """RFC 792 wants eight bytes behind the IP header; whatever comes must not break anything."""
    quoted = craft.tcp(CLIENT, GUEST, 5000, 80, 77, 1, ACK, b"data")[24 : 24 + size]
    frame = craft.ip(GUEST, CLIENT, 1, b"\3\3\0\0\0\0\0\0" + quoted)
    key, body = of(frame)
    assert body.startswith(b"\3\3")
    # What cannot be read names no other flow than that of the two hosts, but an error it is all the same.
    answer = craft.tcp(GUEST, CLIENT, 80, 5000, 1, 1, ACK) if size >= 24 else frame
    assert about(key) == dissect(answer).key
