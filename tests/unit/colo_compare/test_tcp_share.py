"""The share of a connection on which a client sends, which bounds its window when there are hundreds."""

import pytest

from colo_proto.net.tcp import ACK, SYN
from playbook import P, Play, S, fields, open_connection, syn


@pytest.fixture
def play():
    return open_connection(Play())


def window(play):
    return fields(play.sent[-1])[0].window


def upload(play, received, window=4000):
    """Both guests have received so many bytes, and offer `window` << 7 more."""
    (
        play
        >> S(1000, flags=ACK, ack=500 + received, window=window)
        >> P(1000, flags=ACK, ack=500 + received, window=window)
    )


def edge(play, at=-1):
    seg, _ = fields(play.sent[at])
    return seg.ack - 500 + (seg.window << 7)


def crowd(play, number):
    for _ in range(number):
        play.core.ledger.share.count()


def test_one_upload_has_the_whole_window(play):
    for step in range(20):
        play.at(0.1)
        upload(play, step * 100_000)
        assert window(play) == 4000
    assert play.core.counters["windows_lowered"] == 0


def test_with_hundreds_of_uploads_each_has_its_share(play):
    crowd(play, 512)
    upload(play, 100_000)
    assert window(play) == (64 << 10) >> 7
    upload(play, 200_000, window=300)
    assert window(play) == 300
    assert play.core.counters["windows_lowered"] == 1


def test_what_a_client_was_offered_is_not_taken_back_for_others(play):
    upload(play, 0)
    crowd(play, 2047)
    before = edge(play)
    for received in (100_000, 300_000, 490_000):
        upload(play, received)
        assert before - 128 < edge(play) <= before
    upload(play, 510_000)
    assert window(play) == (16 << 10) >> 7


def test_the_rest_is_offered_when_the_others_have_ended(play):
    crowd(play, 2047)
    upload(play, 100_000)
    assert window(play) == (16 << 10) >> 7
    play.at(60.0)
    upload(play, 100_100)
    assert window(play) == 4000
    assert play.core.counters["synthesized"] == 0


def test_uploads_are_counted_once_a_tick_and_others_are_not():
    play = Play()
    share = play.core.ledger.share
    for port in range(5000, 5100):
        play >> syn("P", 999, dport=port) >> syn("S", 7777, dport=port)
    for received in (50_000, 100_000, 150_000):
        for port in range(5000, 5064):
            more = {"flags": ACK, "ack": 500 + received, "dport": port}
            play >> S(1000, **more) >> P(1000, **more)
        for port in range(5064, 5100):
            more = {"dport": port, "ack": 501 + received // 50_000}
            play >> S(1000, b"answer", **more) >> P(1000, b"answer", **more)
    play.at(0.3)
    upload(play, 0)
    assert share.active == 64


def test_a_guest_that_opens_connections_has_no_share():
    """Whether its windows are scaled is not known, and a share in one reading is nothing in the other."""
    play = Play()
    for side, seq in (("P", 999), ("S", 7777)):
        play >> syn(side, seq, flags=SYN, ack=0)
    play >> S(1000, flags=ACK, window=4000) >> P(1000, flags=ACK, window=4000)
    crowd(play, 2047)
    upload(play, 100_000)
    assert window(play) == 4000


def test_after_a_checkpoint_nothing_is_known_of_the_client(play):
    upload(play, 0)
    crowd(play, 2047)
    play.done(copied=True)
    upload(play, 100_000)
    assert window(play) == 4000, "what it was told while everything left was not watched"
    upload(play, 600_000)
    assert window(play) == (16 << 10) >> 7
