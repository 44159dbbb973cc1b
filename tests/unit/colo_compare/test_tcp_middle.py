"""Connections from the middle, and changes of the mode."""

import pytest

import craft
from colo_compare.config import CompareConfig
from colo_proto.messages import Mode, Reason, SetMode
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK, SYN
from playbook import P, Play, S, open_connection, syn

D = b"ABCDEFGHIJ"


@pytest.fixture
def play():
    return open_connection(Play())


def test_connections_from_the_middle_are_adopted():
    play = Play()
    p = P(5000, D)
    play >> p >> S(5000, D)
    assert play.released == [p]
    assert play.core.counters["adopted"] == 1
    play >> P(5010, b"abc") >> S(5010, b"abX")
    assert play.wanted[0].reason == Reason.PAYLOAD


def test_pure_acks_from_the_middle():
    play = Play()
    p = P(5000, flags=ACK, ack=77)
    play >> p
    assert play.sent == []
    play >> S(4000, flags=ACK, ack=77)
    assert play.released == [p]


def test_what_differed_in_shadow_mode_is_compared_again_in_enforce_mode(play):
    play.tell(SetMode(Mode.SHADOW))
    play >> P(1000, D) >> S(1000, b"x" * 10)
    play.tell(SetMode(Mode.ENFORCE))
    before = len(play.sent)
    play >> P(1010, D) >> S(1010, b"y" * 10)
    assert len(play.sent) == before
    assert [request.reason for request in play.wanted] == [Reason.PAYLOAD]


def test_modes_switch_without_losing_a_frame(play):
    held = P(1000, D)
    play >> held
    play.tell(SetMode(Mode.BYPASS))
    assert play.released == [held]
    direct = P(1010, D)
    play >> direct >> S(1010, D)
    assert play.released == [held, direct]
    play.tell(SetMode(Mode.ENFORCE))
    back = P(1020, D)
    play >> back
    assert len(play.sent) == 2
    play >> S(1020, D)
    assert play.released[-1] == back


def test_shadow_releases_and_reports():
    play = open_connection(Play())
    play.tell(SetMode(Mode.SHADOW))
    play >> P(1000, D) >> S(1000, D[::-1])
    assert len(play.sent) == 1
    assert not play.wanted
    assert play.core.counters["miscompares"] == 1
    assert any(log.event == "miscompare.found" for log in play.logs)


def test_truncated_and_absurd_headers_pass_and_are_counted(play):
    frame = bytearray(P(1000, D).data)
    frame[dissect(bytes(frame)).l4 + 12] = 0x10
    play >> type(P(0))("P", bytes(frame))
    assert play.sent == [bytes(frame)]
    assert play.core.counters["released.malformed"] == 1


def test_a_repeated_syn_ack_of_the_secondary_lets_waiting_segments_go():
    """Both ends opened at once: the primary's SYN/ACK waits for nothing but the secondary's acknowledgement."""
    play = Play()
    first, second = syn("P", 999, flags=SYN, ack=0), syn("P", 999, ack=301)
    play >> first >> syn("S", 7777, flags=SYN, ack=0) >> second
    assert play.released == [first]
    play >> syn("S", 7777, ack=301)
    assert play.released == [first, second]


def test_options_that_differ_are_reported_once_in_shadow_mode():
    play = Play(CompareConfig(mode=Mode.SHADOW))
    play >> syn("P", 999, opts=craft.mss(1460)) >> syn("P", 999, opts=craft.mss(1460))
    play >> syn("S", 7777, opts=craft.mss(1400))
    assert play.core.counters["miscompares"] == 1
    assert len(play.sent) == 2
