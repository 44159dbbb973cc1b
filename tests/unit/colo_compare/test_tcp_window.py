"""The pair's flow control: the window that leaves never passes the secondary's."""

import pytest

from colo_compare.config import CompareConfig
from colo_proto.messages import Mode, SetMode
from colo_proto.net import craft
from colo_proto.net.tcp import ACK, SYN
from colo_proto.net.verify import tcp_checksum_ok
from playbook import P, Play, S, fields, open_connection, syn


@pytest.fixture
def play():
    return open_connection(Play())


def window(play, at=-1):
    return fields(play.sent[at])[0].window


def test_edges_never_move_back(play):
    """The secondary's edge is the farthest it ever offered (RFC 9293 §3.8.6: shrinking is for nobody to rely on)."""
    play >> S(1000, flags=ACK, window=400) >> S(1000, flags=ACK, window=10) >> P(1000, flags=ACK, window=300)
    assert window(play) == 300


def test_a_syn_is_lowered_unscaled():
    play = Play()
    play >> syn("P", 999, window=60000) >> syn("S", 7, window=5000)
    assert window(play) == 5000
    assert tcp_checksum_ok(play.sent[0])


def test_an_opening_syn_offers_nothing_yet():
    play = Play()
    p = syn("P", 999, flags=SYN, ack=0, window=60000)
    play >> p >> syn("S", 7, flags=SYN, ack=0, window=5000)
    assert play.released == [p]


def test_without_scaling_windows_are_plain():
    plain = craft.mss(1460)
    play = Play()
    play >> syn("P", 999, opts=plain) >> syn("S", 5, opts=plain)
    play >> S(1000, flags=ACK, window=100) >> P(1000, flags=ACK, window=65535)
    # 500 unscaled in the secondary's SYN/ACK reaches farther than 100 now.
    assert window(play) == 500


def test_adopted_connections_keep_their_windows():
    play = Play()
    p = P(5000, b"x", window=60000)
    play >> p >> S(5000, b"x", window=1)
    assert play.released == [p], "the scale is unknown, so the edges are"


def test_a_small_gain_is_not_announced(play):
    """Receiver-side silly window avoidance."""
    play >> S(1000, flags=ACK, window=100) >> P(1000, flags=ACK, window=1000)
    assert window(play) == 100
    play >> S(1000, flags=ACK, window=101)
    assert len(play.sent) == 1
    play >> S(1000, flags=ACK, window=150)
    assert window(play) == 150
    assert play.core.counters["synthesized"] == 1


def test_a_closed_window_is_opened_again(play):
    """A client that waits for a window update would wait for its persist timer."""
    play >> S(1000, b"x" * 64000, window=0) >> P(1000, b"x" * 64000, ack=64500, window=500)
    assert not play.sent
    play >> S(65000, flags=ACK, ack=64500, window=0)
    assert window(play) == 0
    play >> S(65000, flags=ACK, ack=64500, window=400)
    seg, payload = fields(play.sent[-1])
    assert (seg.window, seg.seq, seg.ack, payload) == (400, 65000, 64500, b"")


def test_a_retransmission_does_not_make_an_update_old(play):
    play >> S(1000, b"abc", window=100) >> P(1000, b"abc", window=1000)
    play >> S(1003, b"def", window=100) >> P(1003, b"def", window=1000) >> P(1000, b"abc", window=1000)
    play >> S(1006, flags=ACK, window=1000)
    assert fields(play.sent[-1])[0].seq == 1006


def test_a_frame_that_lowers_nothing_ends_the_waiting(play):
    play >> S(1000, flags=ACK, window=100) >> P(1000, flags=ACK, window=1000) >> P(1000, flags=ACK, window=90)
    play >> S(1000, flags=ACK, window=1000)
    assert play.core.counters["synthesized"] == 0


def test_shadow_changes_no_window(play):
    play.tell(SetMode(Mode.SHADOW))
    p = P(1000, b"x", window=60000)
    play >> S(1000, b"x", window=1) >> p >> S(1001, flags=ACK, window=60000)
    assert play.released == [p]
    assert play.core.counters["windows_lowered"] == 0


@pytest.mark.parametrize("tags", [(), (5,), (5, 6)])
@pytest.mark.parametrize("ends", [("10.0.0.2", "10.0.0.9"), ("fd00::2", "fd00::9")])
def test_updates_are_right_in_every_family_and_tag(tags, ends):
    play = Play(CompareConfig())
    more = {"tags": tags, "src": ends[0], "dst": ends[1]}
    play >> syn("P", 999, **more) >> syn("S", 5, **more)
    play >> S(1000, b"abc", window=10, **more) >> P(1000, b"abc", window=1000, **more)
    play >> S(1003, flags=ACK, window=1000, **more)
    assert len(play.sent) == 3
    assert all(tcp_checksum_ok(data) for data in play.sent)
    seg, payload = fields(play.sent[-1])
    assert (seg.window, seg.seq, payload) == (1000, 1003, b"")
