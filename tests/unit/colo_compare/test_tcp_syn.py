"""SYNs of both guests, in any order and number."""

import pytest

import craft
from colo_proto.messages import Reason
from colo_proto.net.tcp import ACK, SYN
from playbook import P, Play, S, open_connection, syn

D = b"ABCDEFGHIJ"


@pytest.fixture
def play():
    return open_connection(Play())


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


# -- a guest that answers a repeated SYN with another number (its SYN cookies have another secret) ------------------

FIRST, SECOND = 933001885, 780618716


def two_answers(play):
    return play >> syn("P", FIRST) >> syn("S", 1930416855) >> syn("P", SECOND) >> syn("S", 1478656276)


@pytest.mark.parametrize("primary_first", [True, False])
@pytest.mark.parametrize("isn", [FIRST, SECOND])
def test_what_the_primary_sends_shows_which_answer_the_client_took(isn, primary_first):
    play = two_answers(Play())
    before = len(play.sent)
    frames = [P(isn + 1, D), S(isn + 1, D)]
    for frame in frames if primary_first else reversed(frames):
        play >> frame
    assert play.released[before:] == [P(isn + 1, D)]


@pytest.mark.parametrize("primary_first", [True, False])
def test_numbers_that_the_rewriter_did_not_shift_show_nothing(primary_first):
    """A rewriter that was restarted knows no offset. The primary's bytes are not taken for old ones because of that."""
    play = two_answers(Play())
    before = len(play.sent)
    frames = [P(SECOND + 1, D), S(1478656277, D)]
    for frame in frames if primary_first else reversed(frames):
        play >> frame
    play >> P(SECOND + 11, D) >> S(1478656287, D) >> P(SECOND + 1, D)
    assert play.released[before:] == []
    play.at(5.0)
    assert play.wanted, "they are a difference"


def test_what_lies_before_the_beginning_of_a_stream_is_not_old_data(play):
    before = len(play.sent)
    play >> P(1000, D) >> S(1000, D) >> P(700, D)
    assert play.released[before:] == [P(1000, D)]
    play >> P(999, b"x")
    assert play.released[-1] == P(999, b"x"), "a keep-alive of a stream that has not sent much"
