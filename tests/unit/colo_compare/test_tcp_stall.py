"""Two stacks that differ in segment sizes, congestion windows and buffers: nobody may wait for ever, or needlessly."""

import pytest

import craft
from checksums import l4_checksum_ok
from colo_compare.config import CompareConfig
from colo_compare.tcp.partial import HEAD_WAIT
from colo_proto.net.tcp import ACK, RST, SYN
from playbook import P, Play, S, fields, open_connection, syn

D = b"ABCDEFGHIJ"


@pytest.fixture
def play():
    return open_connection(Play())


def payloads(play):
    return [fields(data)[1] for data in play.sent]


def test_the_equal_part_of_a_longer_segment_goes_when_nothing_moves(play):
    """With one segment in flight each, the shorter one of the secondary is all there will be."""
    play >> P(1000, D) >> S(1000, D[:4])
    assert play.sent == []
    play.at(HEAD_WAIT / 2)
    assert play.sent == []
    play.at(HEAD_WAIT)
    (head,) = play.sent
    seg, payload = fields(head)
    assert (seg.seq, payload) == (1000, D[:4])
    assert l4_checksum_ok(head)
    play.at(1)
    assert len(play.sent) == 1
    play >> S(1004, D[4:])
    assert payloads(play) == [D[:4], D[4:]], "what has left does not leave again"
    assert not play.wanted


def test_it_goes_again_when_the_secondary_repeats_itself(play):
    play >> P(1000, D) >> S(1000, D[:4])
    play.at(0.2)
    play >> S(1000, D[:4])
    assert payloads(play) == [D[:4], D[:4]]


def test_the_newest_copy_gives_the_head(play):
    """Its ACK and window are of now, and its timestamp is one that the client does not take for old."""
    play >> P(1000, D, options=craft.timestamps(10, 1)) >> S(1000, D[:4], options=craft.timestamps(5, 1))
    play >> P(1000, D, options=craft.timestamps(20, 1))
    play.at(0.2)
    (head,) = play.sent
    assert craft.timestamps(20, 1) in head


def test_forty_repeated_segments_are_no_forty_heads(play):
    """What the secondary sends again may leave again, and nothing else."""
    whole = bytes(range(250)) * 240
    play >> P(1000, whole)
    for at in range(0, 57_920, 1448):
        play >> S(1000 + at, whole[at : at + 1448])
    play.at(0.2)
    for at in range(0, 57_920, 1448):
        play >> S(1000 + at, whole[at : at + 1448])
    assert sum(map(len, payloads(play))) == 2 * 57_920
    play >> S(1000 + 57_920, whole[57_920:])
    assert sum(map(len, payloads(play))) == 57_920 + len(whole)
    assert all(l4_checksum_ok(data) for data in play.sent)


def test_forty_short_segments_one_after_the_other_are_one_frame(play):
    whole = bytes(range(250)) * 240
    play >> P(1000, whole)
    for at in range(0, 57_920, 1448):
        play >> S(1000 + at, whole[at : at + 1448])
        play.at(HEAD_WAIT * 1.2)
        play >> P(70_000, b"far ahead")
    play >> S(1000 + 57_920, whole[57_920:])
    assert b"".join(payloads(play)) == whole


def test_one_short_segment_forty_times(play):
    whole = bytes(range(250)) * 240
    play >> P(1000, whole) >> S(1000, whole[:59_000])
    for _ in range(40):
        play >> S(1000, whole[:100])
    assert payloads(play) == [whole[:59_000]] + 39 * [whole[:100]]


def test_a_head_obeys_the_ack_rule(play):
    play >> P(1000, D, ack=900) >> S(1000, D[:4], ack=500)
    play.at(0.2)
    assert play.sent == []


def test_progress_postpones_the_head(play):
    play >> P(1000, D) >> S(1000, D[:2])
    for at in range(2, 8, 2):
        play.at(HEAD_WAIT * 0.8)
        play >> S(1000 + at, D[at : at + 2])
    assert play.sent == []


def test_what_the_primary_sent_ahead_is_dropped_in_time_while_bytes_are_found_equal(play):
    play >> P(1000, D) >> P(1010, D) >> P(1020, D)
    for step in range(8):
        play.at(0.5)
        play >> S(1000 + step, D[step : step + 1])
    assert not play.wanted
    assert play.core.counters["dropped.stale"] == 3
    play >> P(1000, D) >> S(1008, D[8:])
    assert payloads(play)[-1] == D


def test_without_progress_it_is_asked_for(play):
    play >> P(1000, D) >> P(1010, D) >> S(1000, D)
    play.at(4.1)
    assert [request.reason for request in play.wanted] == ["timeout"]


def test_an_ack_that_waits_goes_before_bytes_that_the_same_segment_frees(play):
    """They were sent in this order, and the second offers a larger window."""
    ack, data = P(1000, ack=900, flags=ACK, window=100), P(1000, D, ack=900, window=200)
    play >> ack >> data >> S(1000, D, ack=900)
    assert [fields(sent)[0].window for sent in play.sent] == [100, 200]


@pytest.mark.parametrize("scaled", [False, True])
def test_an_openers_window_passes_the_secondarys_edge_in_neither_reading(scaled):
    """The guests open and offer to scale; whether the client agreed is not seen here."""
    play = Play(CompareConfig())
    play >> syn("P", 999, flags=SYN, ack=0) >> syn("S", 7777, flags=SYN, ack=0)
    # The client's buffer fills: the edge stays, the fields shrink, by bytes or by units of 128.
    first, second = (1000, 996) if scaled else (1000, 488)
    play >> S(1000, ack=500, flags=ACK, window=first) >> S(1000, ack=1012, flags=ACK, window=second)
    play >> P(1000, ack=1012, flags=ACK, window=1000)
    assert fields(play.sent[-1])[0].window <= (996 if scaled else 488)


def test_after_a_copy_the_secondary_has_acknowledged_and_offers_what_the_primary_does(play):
    play >> P(1000, ack=500, flags=ACK, window=10) >> S(1000, ack=900, flags=ACK, window=500)
    play >> S(1000, flags=RST | ACK, ack=900)
    play.done(copied=True)
    before = len(play.sent)
    play >> P(1000, ack=700, flags=ACK, window=10)
    assert len(play.sent) == before, "the copy has received no more than the primary had"
    play >> S(1000, ack=700, flags=ACK, window=4)
    edge = 500 + (10 << 7)
    assert fields(play.sent[-1])[0].window == (edge - 700) >> 7, (
        "up to the edge at the checkpoint, not to the old one's"
    )
    play >> P(1000, flags=RST, ack=0)
    assert len(play.sent) == before + 1, "the copy has reset nothing"


def test_the_ack_rule_holds_however_often_ports_are_used_again(play):
    """The clients' numbers step down by almost half of all numbers each time, and wander far."""
    client = 500
    for round_ in range(1, 8):
        client = (client - (1 << 31) + 1000) & 0xFFFFFFFF
        isn = 1000 + 100_000 * round_
        play >> syn("S", isn + 7, ack=client) >> syn("P", isn, ack=client)
        assert fields(play.sent[-1])[0].seq == isn
        before = len(play.sent)
        play >> P(isn + 1, flags=ACK, ack=client + 100)
        for less in (50, 60):
            play >> S(isn + 1, flags=ACK, ack=client + less)
            assert len(play.sent) == before, "the secondary has not acknowledged that"
        play >> S(isn + 1, flags=ACK, ack=client + 100)
        assert len(play.sent) == before + 1


def test_a_secondary_that_goes_on_has_not_reset_the_connection(play):
    """A segment that belongs to nothing is answered with RST, and the connection beside it lives on."""
    play >> S(1000, flags=RST, ack=0) >> S(1000, D)
    play >> P(1000, flags=RST, ack=0)
    assert play.sent == []
    play >> S(1010, flags=RST, ack=0)
    assert len(play.sent) == 1


def test_a_repeated_syn_ack_is_not_taken_for_the_next_connections():
    """Once the rewriter knows a connection it shifts its SYN/ACK too; then the client uses the ports again."""
    play = Play()
    play >> syn("P", 999, ack=500) >> syn("S", 7777, ack=500) >> syn("S", 999, ack=500)
    play >> syn("P", 99_999, ack=900) >> syn("S", 8888, ack=900)
    assert [fields(data)[0].seq for data in play.sent] == [999, 99_999]
    play.at(5)
    assert not play.wanted
