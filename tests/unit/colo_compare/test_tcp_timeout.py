"""Frames that wait too long, bounds of a connection, and checkpoints."""

import pytest

from colo_compare.config import CompareConfig
from colo_proto.messages import Reason
from colo_proto.net.tcp import ACK, FIN, RST
from playbook import P, Play, S, fields, open_connection, syn

D = b"ABCDEFGHIJ"


@pytest.fixture
def play():
    return open_connection(Play())


def test_timeout_asks_once_and_says_what_is_awaited(play):
    play >> P(1000, D)
    play.at(2.5)
    assert not play.wanted
    play.at(1.6)
    (wanted,) = play.wanted
    assert (wanted.reason, wanted.offset, wanted.detail["waits_for"]) == (Reason.TIMEOUT, 0, "bytes")
    play.at(1.5)
    assert len(play.wanted) == 1


def test_an_unanswered_request_is_repeated(play):
    play >> P(1000, D)
    play.at(10)
    assert [w.reason for w in play.wanted][:2] == [Reason.TIMEOUT, "repeated"]
    assert play.core.counters["checkpoints_wanted.timeout"] == 1


def test_secondary_leftovers_never_ask(play):
    play >> S(1000, D) >> S(1010, flags=ACK)
    play.at(60)
    assert not play.wanted


def test_full_queue_asks_and_drops_the_newest():
    play = open_connection(Play(CompareConfig(max_queue_size=2)))
    for at in range(4):
        play >> P(1000 + at, b"x")
    assert play.held == 2
    assert play.wanted[0].reason == Reason.QUEUE_FULL
    assert play.core.counters["dropped.queue_full"] == 2


def test_checkpoint_with_state_releases_everything_in_stream_order(play):
    frames = {seq: P(seq, b"x" * 1000) for seq in (3000, 1000, 2000)}
    for seq in (3000, 1000, 2000):
        play >> frames[seq]
    play.done(copied=True)
    assert play.released == [frames[1000], frames[2000], frames[3000]]
    assert play.flushed[0].released == 3
    # The secondary is the primary's copy now: both go on from there.
    p = P(4000, D)
    play >> p >> S(1000, b"y" * 1000) >> S(4000, D)
    assert play.released[-1] == p
    assert not play.wanted


def test_checkpoint_without_state_unprotects_the_flow_that_differed_only(play):
    other = P(0, flags=RST | ACK, ack=9, dport=6000)
    play >> P(1000, D) >> S(1000, D[::-1]) >> other
    play.done(copied=False)
    assert len(play.sent) == 1
    assert play.core.gauges()["flows_unprotected"] == 1
    play >> P(1010, b"anything") >> S(1010, b"else")
    assert len(play.sent) == 2
    assert play.core.counters["released.unprotected"] == 1
    assert play.held == 1, "the other flow is still compared"
    # A new connection on the same ports is protected again.
    play >> syn("P", 77, ack=1) >> syn("S", 3, ack=1)
    assert play.core.gauges()["flows_unprotected"] == 0
    play >> P(78, D, ack=1)
    assert len(play.sent) == 3


def test_an_unprotected_connection_that_has_ended_needs_no_protection(play):
    play >> P(1000, D) >> S(1000, D[::-1])
    play.done(copied=False)
    play >> P(1010, flags=FIN | ACK) >> P(1011, flags=ACK)
    play.at(0.5)
    assert play.core.gauges()["flows_ended"] == 0, "the client may still send"
    play.at(3.0)
    gauges = play.core.gauges()
    assert (gauges["flows"], gauges["flows_unprotected"], gauges["flows_ended"]) == (1, 1, 1)
    play >> syn("P", 77, ack=1) >> syn("S", 3, ack=1)
    assert play.core.gauges()["flows_ended"] == 0


def test_a_reset_that_answers_a_stray_segment_is_no_difference():
    """A segment of an old connection, within the window of one guest's answer to a SYN and beyond the other's."""
    play = Play() >> syn("P", 2084985274, window=65535) >> syn("S", 4097185488, window=16384)
    play >> P(1876316987, flags=RST, ack=0) >> S(2084985275, flags=ACK)
    play.at(10.0)
    assert play.wanted == []
    assert play.core.counters["dropped.stale"] == 1
    assert not any(fields(data)[0].flags & RST for data in play.sent)


def test_a_reset_of_the_connection_itself_is_one():
    play = Play() >> syn("P", 999) >> syn("S", 7777)
    play >> P(1000, flags=RST, ack=0) >> S(1000, flags=ACK)
    play.at(10.0)
    assert play.wanted[0].reason == Reason.TIMEOUT
