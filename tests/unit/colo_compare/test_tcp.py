"""A connection is compared by position: cutting, repeating, reordering, differences."""

import pytest

from checksums import tcp_checksum_ok
from colo_compare.config import CompareConfig
from colo_proto.messages import Reason
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK
from playbook import P, Play, S, fields, open_connection

D = b"ABCDEFGHIJ"


@pytest.fixture
def play():
    return open_connection(Play())


@pytest.mark.parametrize("first", ["P", "S"])
def test_equal_segments_leave_whoever_comes_first(play, first):
    p, s = P(1000, D), S(1000, D)
    play >> (p if first == "P" else s)
    assert play.sent == []
    play >> (s if first == "P" else p)
    assert play.released == [p]
    assert not play.wanted


def test_a_differing_byte_is_held_and_named_by_stream_offset(play):
    play >> P(1000, D) >> S(1000, b"ABCDEFGHIX")
    assert play.sent == []
    (wanted,) = play.wanted
    assert wanted.reason == Reason.PAYLOAD
    assert wanted.offset == 9
    assert wanted.flow == "tcp 10.0.0.2:80 > 10.0.0.9:5000"
    context = wanted.detail["context"]
    assert bytes.fromhex(wanted.detail["primary"])[context : context + 1] == b"J"
    assert bytes.fromhex(wanted.detail["secondary"])[context : context + 1] == b"X"


def test_one_request_per_flow_until_it_is_answered(play):
    play >> P(1000, D) >> S(1000, D[::-1]) >> P(1010, D) >> S(1010, D[::-1]) >> P(1020, D)
    assert len(play.wanted) == 1
    assert play.sent == []


@pytest.mark.parametrize(
    ("p_cuts", "s_cuts"), [((10,), (3, 7)), ((3, 7), (10,)), ((4, 6), (6, 4)), ((1,) * 10, (5, 5)), ((10,), (10,))]
)
@pytest.mark.parametrize("order", ["ps", "sp", "mixed"])
def test_segmentation_does_not_matter(play, p_cuts, s_cuts, order):
    def cut(make, cuts):
        at, frames = 0, []
        for size in cuts:
            frames.append(make(1000 + at, D[at : at + size]))
            at += size
        return frames

    ps, ss = cut(P, p_cuts), cut(S, s_cuts)
    if order == "mixed":
        frames = [f for pair in zip(ps + [None] * 10, ss + [None] * 10, strict=False) for f in pair if f]
    else:
        frames = ps + ss if order == "ps" else ss + ps
    for frame in frames:
        play >> frame
    assert play.released == ps
    assert not play.wanted
    assert play.held == 0


def test_gso_frame_against_mtu_segments(play):
    big = bytes(range(256)) * 200
    p = P(1000, big)
    play >> p
    for at in range(0, len(big), 1448):
        assert play.sent == []
        play >> S(1000 + at, big[at : at + 1448])
    assert play.released == [p]


def test_ack_rule_holds_data_and_pure_acks(play):
    data, pure = P(1000, D, ack=900), P(1010, ack=950, flags=ACK)
    play >> data >> S(1000, D, ack=500) >> pure
    assert play.sent == []
    assert not play.wanted
    play >> S(1010, ack=899, flags=ACK)
    assert play.sent == []
    play >> S(1010, ack=900, flags=ACK)
    assert play.released == [data]
    play >> S(1010, ack=1000, flags=ACK)
    assert play.released == [data, pure]


def test_duplicate_acks_and_keep_alives_leave_at_once(play):
    play >> P(1000, D) >> S(1000, D)
    frames = [P(1010, flags=ACK), P(1010, flags=ACK), P(1009, b"\0", flags=ACK), P(1009, flags=ACK)]
    for frame in frames:
        play >> frame
    assert play.released[1:] == frames
    assert not play.wanted


def test_retransmission_leaves_at_once_and_a_changed_one_does_not(play):
    play >> P(1000, D) >> S(1000, D)
    play >> P(1000, D) >> P(1002, D[2:6])
    assert len(play.sent) == 3
    play >> P(1000, b"ABCDxFGHIJ")
    assert len(play.sent) == 3
    assert play.wanted[0].offset == 4


def test_two_versions_of_the_same_held_bytes_are_both_compared(play):
    good, bad = P(1000, D), P(1000, b"ABCDEFGHI?")
    play >> good >> bad >> S(1000, D)
    assert play.released == [good]
    assert play.wanted[0].offset == 9


def test_coalesced_retransmission_spanning_old_and_new(play):
    play >> P(1000, D[:4]) >> S(1000, D)
    merged = P(1000, D)
    play >> merged
    assert play.released[-1] == merged


def test_out_of_order_on_either_side(play):
    late, early = P(1005, D[5:]), P(1000, D[:5])
    play >> late >> S(1005, D[5:]) >> S(1000, D[:5])
    assert play.sent == [], "bytes past a hole of the primary are not committed"
    play >> early
    assert sorted(play.sent) == sorted([early.data, late.data])
    assert not play.wanted


def test_equal_bytes_elsewhere_are_not_equal(play):
    play >> P(1000, b"AAAA") >> S(1004, b"AAAA")
    assert play.sent == []


def test_overlapping_segments_of_the_secondary(play):
    p = P(1000, D)
    play >> S(1000, D[:4]) >> S(1002, D[2:8]) >> S(1000, D) >> p
    assert play.released == [p]


def test_wrap_inside_the_stream():
    play = open_connection(Play(), isn=0xFFFFFFF9)
    frames = [P(0xFFFFFFFA, D[:6]), P(0, D[6:])]
    play >> S(0xFFFFFFFA, D) >> frames[0] >> frames[1]
    assert play.released == frames


def test_long_stream_over_two_wraps():
    play = open_connection(Play(CompareConfig()), isn=0xFFFF0000)
    seq, chunk = 0xFFFF0001, bytes(65000)
    for _ in range(140):
        play.sent.clear()
        play.core.ledger.released = play.core.ledger.frames_primary = 0
        play >> P(seq, chunk) >> S(seq, chunk)
        assert len(play.sent) == 1
        seq = (seq + len(chunk)) & 0xFFFFFFFF
    assert not play.wanted


def test_window_is_lowered_to_the_secondarys_edge_and_reopened(play):
    play >> S(1000, flags=ACK, ack=500, window=100)
    play >> P(1000, flags=ACK, ack=500, window=1000)
    seg, _ = fields(play.sent[0])
    # The secondary's SYN/ACK offered 500 bytes unscaled, its ACK 100 << 7.
    assert seg.window == 100
    packet = dissect(play.sent[0])
    assert tcp_checksum_ok(play.sent[0])
    assert packet.end == len(play.sent[0])
    play >> S(1000, flags=ACK, ack=500, window=1000)
    seg, payload = fields(play.sent[1])
    assert (seg.window, seg.ack, seg.seq, payload) == (1000, 500, 1000, b"")
    assert tcp_checksum_ok(play.sent[1])
    assert play.core.counters["synthesized"] == 1


def test_window_within_the_secondarys_edge_is_untouched(play):
    p = P(1000, flags=ACK, ack=500, window=90)
    play >> S(1000, flags=ACK, ack=500, window=100) >> p
    assert play.released == [p]


def test_partial_checksum_is_left_alone_when_the_window_changes(play):
    frame = P(1000, D, window=1000, partial=True)
    play >> S(1000, D, window=10) >> frame
    before, after = frame.data, play.sent[0]
    l4 = dissect(before).l4
    assert before[l4 + 16 : l4 + 18] == after[l4 + 16 : l4 + 18]
    assert fields(after)[0].window == 10
