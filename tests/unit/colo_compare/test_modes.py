"""Enforce, shadow and bypass, and changing between them."""

import pytest

import craft
from colo_proto.messages import CheckpointDone, Mode, SetMode
from colo_proto.net.tcp import ACK, RST, SYN
from playbook import Frame, P, Play, S, open_connection, udp

D = b"ABCDEFGHIJ"


def stream(count=30):
    return [(P(1000 + 10 * n, D), S(1000 + 10 * n, D)) for n in range(count)]


@pytest.mark.parametrize("first", Mode.ALL)
@pytest.mark.parametrize("second", Mode.ALL)
def test_every_change_of_mode_keeps_every_frame(first, second):
    """Whatever is held or in flight when the mode changes: each primary frame leaves exactly once."""
    play = open_connection(Play())
    play.tell(SetMode(first))
    pairs = stream()
    for at, (p, s) in enumerate(pairs):
        play >> p >> udp("P", bytes([at]))
        if at % 10 == 5:
            play.tell(SetMode(second if at == 15 else first))
        play >> s >> udp("S", bytes([at]))
    play.tell(SetMode(Mode.BYPASS))
    sent = [data for data in play.sent if data[33] == 6]
    assert sent == [p.data for p, _ in pairs]
    assert len(play.sent) == 60
    assert play.core.gauges()["held_bytes"] == 0
    assert play.core.gauges()["secondary_bytes"] == 0


def test_fragments_are_not_lost_by_a_change_of_mode():
    play = Play()
    pieces = craft.fragments(udp("P", bytes(4000)).data, 1500)
    for piece in pieces[:-1]:
        play >> Frame("P", piece)
    play.tell(SetMode(Mode.BYPASS))
    play >> Frame("P", pieces[-1])
    assert sorted(play.sent) == sorted(pieces)


def test_after_a_resync_old_connections_are_unprotected_and_new_ones_are_not():
    """Another secondary came, and nothing was copied to it."""
    play = open_connection(Play())
    play.tell(SetMode(Mode.BYPASS))
    sent = len(play.sent)
    play >> P(1000, D)
    assert len(play.sent) == sent + 1
    play.tell(SetMode(Mode.ENFORCE, resync=True))
    play >> P(1010, D)
    assert len(play.sent) == sent + 2, "the new secondary does not have this connection, and nobody waits for it"
    assert play.core.gauges()["flows_unprotected"] == 1
    assert play.core.counters["strangers"] == 1
    play >> S(1010, flags=RST) >> P(5000, flags=SYN | ACK)
    assert play.core.gauges()["flows_unprotected"] == 0
    assert len(play.sent) == sent + 2, "a new connection is compared"
    play >> S(77000, flags=SYN | ACK)
    assert len(play.sent) == sent + 3
    play >> P(5001, D)
    assert len(play.sent) == sent + 3
    play >> S(5001, D)
    assert len(play.sent) == sent + 4
    assert not play.wanted


def test_a_resync_without_bypass_lets_go_what_was_held_for_the_lost_secondary():
    play = open_connection(Play()) >> P(1000, D) >> udp("P", b"x")
    held = len(play.sent)
    play.tell(SetMode(Mode.ENFORCE, resync=True))
    assert len(play.sent) == held + 2
    assert play.core.gauges()["flows_unprotected"] == 2
    assert play.core.gauges()["held"] == 0


def test_a_checkpoint_that_copied_state_makes_strangers_known():
    play = open_connection(Play())
    play.tell(SetMode(Mode.BYPASS))
    play.tell(SetMode(Mode.ENFORCE, resync=True))
    play.tell(CheckpointDone(1, state_copied=True))
    sent = len(play.sent)
    play >> P(1000, D)
    assert len(play.sent) == sent
    assert play.core.gauges()["flows_unprotected"] == 0
