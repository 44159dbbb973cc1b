"""FIN and RST."""

import pytest

from colo_proto.messages import Reason
from colo_proto.net.tcp import ACK, FIN, RST
from playbook import PA, P, Play, S, open_connection

D = b"ABCDEFGHIJ"


@pytest.fixture
def play():
    return open_connection(Play())


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
