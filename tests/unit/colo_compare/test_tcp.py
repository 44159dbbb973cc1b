"""TCP by the rule of output commit, one connection at a time."""

import pytest

import craft
from checksums import tcp_checksum_ok
from colo_compare.config import CompareConfig
from colo_proto.messages import Mode, Reason, SetMode
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import ACK, FIN, RST, SYN
from playbook import PA, P, Play, S, fields, open_connection, syn

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


# -- SYN ------------------------------------------------------------------------------------------------


def test_syn_ack_waits_for_the_secondary_and_ignores_its_isn():
    play = Play()
    p = syn("P", 999)
    play >> p
    assert play.sent == []
    play >> syn("S", 123456)
    assert play.released == [p]


def test_secondary_syn_first():
    play = Play()
    p = syn("P", 999)
    play >> syn("S", 123456) >> p
    assert play.released == [p]
    play >> P(1000, D) >> S(1000, D)
    assert len(play.sent) == 2


@pytest.mark.parametrize(
    "other",
    [
        craft.mss(1400) + craft.sack_permitted() + craft.wscale(7),
        craft.mss(1460) + craft.sack_permitted() + craft.wscale(8),
        craft.mss(1460) + craft.wscale(7),
        craft.mss(1460) + craft.sack_permitted() + craft.wscale(7) + craft.timestamps(1, 2),
    ],
)
def test_syn_options_must_agree(other):
    play = Play()
    play >> syn("P", 999) >> syn("S", 5, opts=other)
    assert play.sent == []
    assert play.wanted[0].reason == Reason.OPTIONS


def test_timestamp_values_and_option_order_do_not_matter():
    play = Play()
    a = craft.mss(1460) + craft.timestamps(1, 2)
    b = craft.timestamps(99, 2) + craft.mss(1460)
    p = syn("P", 999, opts=a)
    play >> p >> syn("S", 5, opts=b)
    assert play.released == [p]


def test_ports_used_again_start_a_new_stream(play):
    play >> P(1000, D) >> S(1000, D)
    again = syn("P", 200, ack=90_000)
    play >> again
    assert len(play.sent) == 1
    play >> syn("S", 50_000, ack=90_000)
    assert play.released[-1] == again
    play >> P(201, b"new", ack=90_000) >> S(201, b"nEw", ack=90_000)
    assert play.wanted[0].offset == 1


def test_ports_used_again_secondary_first(play):
    play >> P(1000, D) >> S(1000, D)
    again = syn("P", 200, ack=90_000)
    play >> syn("S", 50_000, ack=90_000) >> again
    assert play.released[-1] == again
    data = P(201, b"new", ack=90_000)
    play >> data >> S(201, b"new", ack=90_000)
    assert play.released[-1] == data


def test_late_segments_of_the_old_connection_do_not_count_for_the_new(play):
    play >> P(1000, D) >> S(1000, D)
    play >> syn("P", 1004, ack=90_000) >> S(1005, b"stale") >> syn("S", 8, ack=90_000)
    data = P(1005, b"fresh", ack=90_000)
    play >> data >> S(1005, b"fresh", ack=90_000)
    assert play.released[-1] == data
    assert not play.wanted


def test_guest_opens_the_connection():
    play = Play()
    p = syn("P", 999, flags=SYN, ack=0)
    play >> p >> syn("S", 4, flags=SYN, ack=0)
    assert play.released == [p]
    first = P(1000, flags=ACK, ack=70)
    play >> first >> S(1000, flags=ACK, ack=70)
    assert play.released == [p, first]


def test_data_on_the_syn_is_compared():
    play = Play()
    one = syn("P", 999, flags=SYN, ack=0)
    from playbook import tcp as make

    p = make("P", 999, b"aaa", SYN | ACK)
    play >> p >> make("S", 4, b"bbb", SYN | ACK)
    assert play.sent == []
    assert play.wanted[0].offset == 0
    assert one.side == "P"


# -- FIN, RST ---------------------------------------------------------------------------------------------


def test_fin_is_a_byte_of_the_stream(play):
    fin = P(1000, D, flags=PA | FIN)
    play >> fin >> S(1000, D)
    assert play.sent == [], "the secondary has not ended its stream"
    play >> S(1010, flags=ACK | FIN)
    assert play.released == [fin]


def test_fin_against_more_data(play):
    play >> P(1000, D, flags=PA | FIN) >> S(1000, D + b"K")
    assert play.sent == []
    assert (play.wanted[0].reason, play.wanted[0].offset) == (Reason.FIN, 10)


def test_data_against_fin(play):
    play >> S(1000, D[:5], flags=PA | FIN) >> P(1000, D)
    assert (play.wanted[0].reason, play.wanted[0].offset) == (Reason.FIN, 5)


def test_half_close_and_final_acks(play):
    p = [P(1000, flags=ACK | FIN), P(1001, flags=ACK, ack=600), P(1001, flags=ACK, ack=601)]
    for frame in p:
        play >> frame
    play >> S(1000, flags=ACK | FIN) >> S(1001, flags=ACK, ack=601)
    assert play.released == p


def test_rst_waits_for_the_other_side(play):
    rst = P(1000, flags=RST | ACK)
    play >> rst
    assert play.sent == []
    play >> S(1000, flags=RST | ACK)
    assert play.released == [rst]


def test_rst_in_answer_to_a_syn():
    play = Play()
    rst = P(0, flags=RST | ACK, ack=101)
    play >> S(0, flags=RST | ACK, ack=101) >> rst
    assert play.released == [rst]


def test_rst_drops_what_can_never_be_compared(play):
    rst = P(1010, flags=RST)
    play >> P(1000, D) >> S(1000, flags=RST) >> rst
    assert play.released == [rst]
    assert play.core.counters["dropped.reset"] == 1
    assert not play.wanted


# -- window -----------------------------------------------------------------------------------------------


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


# -- time and bounds ----------------------------------------------------------------------------------------


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


# -- checkpoints --------------------------------------------------------------------------------------------


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


# -- from the middle, modes ------------------------------------------------------------------------------------


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
    assert [wish.reason for wish in play.wanted] == [Reason.PAYLOAD]


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


# -- what was wrong once --------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_isn", [70, 0x7FFFFFF0, 0x80000010, 0xFFFFFFF0])
@pytest.mark.parametrize("first", ["P", "S"])
def test_the_ack_rule_holds_whatever_the_clients_isn(client_isn, first):
    """A guest that opens a connection sends a SYN without an ACK: the first ACK comes with data."""
    play = Play()
    play >> syn("P", 999, flags=SYN, ack=0) >> syn("S", 4, flags=SYN, ack=0)
    play.sent.clear()
    play.core.ledger.released -= 1
    play.core.ledger.frames_primary -= 1
    ahead, same = P(1000, D, ack=client_isn + 100), S(1000, D, ack=client_isn + 1)
    play >> (ahead if first == "P" else same) >> (same if first == "P" else ahead)
    assert play.sent == [], "the secondary has not acknowledged as much"
    play >> S(1010, flags=ACK, ack=client_isn + 100)
    assert play.released == [ahead]


def test_a_wild_ack_of_the_primary_does_not_move_the_others(play):
    """Numbers are unwrapped around the secondary's highest ACK, not around whatever came last."""
    for step in (1 << 30, 1 << 31, 3 << 30, 2):
        play >> P(1000, flags=ACK, ack=500 + step, window=1)
    good = P(1000, flags=ACK, ack=500, window=1)
    play >> good
    assert play.released[-1] == good
    ahead = P(1000, flags=ACK, ack=600, window=1)
    play >> ahead
    assert play.released[-1] != ahead


def test_a_keep_alive_in_the_place_of_the_fin(play):
    play >> P(1000, flags=ACK | FIN) >> S(1000, flags=ACK | FIN)
    alive = P(1000, b"\0", flags=ACK)
    play >> alive
    assert play.released[-1] == alive
    assert not play.wanted


def test_a_stale_syn_of_the_secondary_is_no_answer_for_a_later_connection(play):
    play >> P(1000, D) >> S(1000, D) >> syn("S", 50_000, ack=90_000)
    play.at(100)
    play >> syn("P", 200, ack=90_000)
    assert len(play.sent) == 1, "only the first connection's"


def test_shadow_tells_of_a_connection_that_the_secondary_never_answers():
    play = Play()
    play.tell(SetMode(Mode.SHADOW))
    play >> syn("P", 999)
    play.at(5)
    assert play.core.counters["miscompares"] == 1
    assert len(play.sent) == 1


def test_simultaneous_open():
    """Both ends send a SYN; the guest's SYN/ACK repeats its own number."""
    play = Play()
    first, second = syn("P", 999, flags=SYN, ack=0), syn("P", 999, flags=SYN | ACK, ack=71)
    play >> first >> second >> syn("S", 4, flags=SYN, ack=0)
    assert play.released == [first]
    play >> syn("S", 4, flags=SYN | ACK, ack=71)
    assert play.released == [first, second]
    data = P(1000, D, ack=71)
    play >> data >> S(1000, D, ack=71)
    assert play.released[-1] == data
    assert not play.wanted


@pytest.mark.parametrize("order", ["psps", "ppss", "sspp", "spps"])
def test_simultaneous_close(play, order):
    """Both FINs cross; then each side acknowledges the other's."""
    ps = iter([P(1000, flags=ACK | FIN, ack=500), P(1001, flags=ACK, ack=501)])
    ss = iter([S(1000, flags=ACK | FIN, ack=500), S(1001, flags=ACK, ack=501)])
    for side in order:
        play >> next(ps if side == "p" else ss)
    assert len(play.sent) == 2
    assert not play.wanted


def test_urgent_data_is_data(play):
    from colo_proto.net.tcp import URG

    p = P(1000, D, flags=PA | URG)
    play >> p >> S(1000, D)
    assert play.released == [p]
    play >> P(1010, b"abc", flags=PA | URG) >> S(1010, b"abX", flags=PA | URG)
    assert play.wanted[0].offset == 12


def test_a_zero_window_probe_waits_for_its_byte(play):
    probe = P(1000, b"A")
    play >> probe
    assert play.sent == []
    play >> S(1000, b"A")
    assert play.released == [probe]
    # The window opens: the byte is sent again with what follows it.
    rest = P(1000, D)
    play >> rest >> S(1001, D[1:])
    assert play.released == [probe, rest]


def test_many_small_segments_against_one_large(play):
    whole = bytes(n & 0xFF for n in range(2000))
    ps = [P(1000 + n, whole[n : n + 1]) for n in range(1000)]
    for p in ps:
        play >> p
    play >> S(1000, whole)
    assert play.released == ps
    assert play.held == 0
