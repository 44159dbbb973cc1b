"""What was wrong once."""

import pytest

from colo_proto.messages import Mode, SetMode
from colo_proto.net.tcp import ACK, FIN, SYN
from playbook import PA, P, Play, S, open_connection, syn

D = b"ABCDEFGHIJ"


@pytest.fixture
def play():
    return open_connection(Play())


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
