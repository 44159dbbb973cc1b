"""Frames of every shape find their flow: tags, fragments, errors, several datagrams in one."""

import pytest

import craft
from colo_proto.messages import Reason
from playbook import CLIENT, GUEST, PA, Frame, P, Play, S, udp

D = b"ABCDEFGHIJ"


@pytest.mark.parametrize("tags", [(), (5,), (7, 42)])
@pytest.mark.parametrize("ends", [(GUEST, CLIENT), ("fd00::2", "fd00::9")])
def test_every_shape_is_compared(tags, ends):
    play = Play()

    def make(side, payload):
        return Frame(side, craft.udp(*ends, 53, 5000, payload, tags=tags))

    equal = make("P", b"same")
    play >> equal >> make("S", b"same") >> make("P", b"mine") >> make("S", b"its!")
    assert play.released == [equal]
    play.at(1)
    assert play.wanted[0].reason == Reason.DATAGRAM
    assert play.wanted[0].flow.count("vlan") == len(tags)


@pytest.mark.parametrize("tags", [(), (5,), (7, 42)])
def test_tcp_in_tags_has_its_own_stream(tags):
    play = Play()
    frames = [P(5000, D, tags=tags), P(5000, D, tags=(99,))]
    play >> frames[0] >> S(5000, D, tags=tags) >> frames[1]
    assert play.released == [frames[0]]


@pytest.mark.parametrize("proto", [47, 50, 94, 132])
def test_tunnels_are_opaque(proto):
    play = Play()

    def make(side, body):
        return Frame(side, craft.ip(GUEST, CLIENT, proto, b"\0\1\0\2" + body))

    p = make("P", b"inner")
    play >> p >> make("S", b"inner") >> make("P", b"inner") >> make("S", b"Inner")
    assert play.released == [p]
    play.at(1)
    assert play.wanted[0].reason == Reason.DATAGRAM


def error(side, about, **more):
    return Frame(side, craft.icmp_error(GUEST, CLIENT, about, **more))


def test_icmp_errors_belong_to_the_flow_they_are_about():
    play = Play()
    first, second = udp("P", b"a", sport=6000).data, udp("P", b"b", sport=7000).data
    mine = [error("P", first), error("P", second)]
    play >> mine[0] >> mine[1]
    assert play.core.gauges()["flows"] == 2
    play >> error("S", second)
    assert play.released == [mine[1]]
    play >> error("S", first, code=1)
    play.at(1)
    assert play.wanted[0].flow == "icmp 10.0.0.2 > 10.0.0.9 about udp 10.0.0.9:5000 > 10.0.0.2:6000"


def test_an_icmp_error_may_quote_what_the_rewriter_changed():
    """The secondary guest saw another ACK, and other timestamps, than the primary's."""
    play = Play()

    def quoted(ack, stamp, seq=77):
        return craft.tcp(CLIENT, GUEST, 5000, 80, seq, ack, PA, b"data", options=craft.timestamps(1, stamp))

    p = error("P", quoted(1000, 5))
    play >> p >> error("S", quoted(888_000, 99))
    assert play.released == [p]
    other = error("P", quoted(1, 1))
    play >> other >> error("S", quoted(1, 1, seq=78))
    play.at(10)
    assert other.data not in play.sent, "each is about another packet, so each is without its equal"
    assert play.core.counters["dropped.unmatched"] == play.core.counters["secondary_dropped.unmatched"] == 1


def test_neighbours_and_groups_pass_but_ping6_does_not():
    play = Play()
    igmp = Frame("P", craft.ip(GUEST, "224.0.0.22", 2, bytes(16)))
    ping = Frame("P", craft.icmp_echo("fd00::2", "fd00::9", ident=1, seq=1, payload=b"", reply=True))
    play >> igmp >> ping
    assert play.released == [igmp]
    assert play.core.counters["released.pass"] == 1


def uso(side, payloads):
    """UDP segmentation offload: several datagrams of one size in one frame."""
    frame = bytearray(craft.udp(GUEST, CLIENT, 53, 5000, b"".join(payloads)))
    frame[:10] = b"\1\5" + (42).to_bytes(2, "little") + len(payloads[0]).to_bytes(2, "little") + b"\x22\0\6\0"
    return Frame(side, bytes(frame))


def test_segmented_datagrams_are_compared_one_by_one():
    play = Play()
    parts = [bytes([n]) * 100 for n in range(5)]
    play >> uso("P", parts) >> uso("S", parts[:2]) >> udp("S", parts[2]) >> uso("S", parts[3:])
    assert [data[52:] for data in play.sent] == parts
    assert play.held == 0
    assert not play.wanted


def test_a_frame_that_contradicts_itself_passes_and_is_counted():
    play = Play()
    for side in "PS":
        for data in (bytes(10), bytes(24), craft.udp(GUEST, CLIENT, 1, 2, b"x" * 50)[:60]):
            play >> Frame(side, data)
    assert play.core.counters["released.malformed"] == 2
    assert play.core.counters["secondary_dropped.malformed"] == 2
    assert len(play.sent) == 3
