"""Compare tells the secondary's rewriter which connections are unprotected, before their frames leave."""

from colo_compare.config import CompareConfig
from colo_compare.telling import Telling
from colo_proto.core import Send, Tell
from colo_proto.messages import (
    JOINING,
    MAX_KEYS,
    CheckpointDone,
    CheckpointWanted,
    Mode,
    SetMode,
    SetRules,
    Unprotected,
    Welcome,
)
from colo_proto.net.packet import dissect
from playbook import P, Play, S, open_connection, syn, udp

KEY = bytes(dissect(P(1).data).key)
D = b"ABCDEFGHIJ"


def told(play):
    return [one for one in play.messages if isinstance(one, Unprotected)]


def differing():
    play = open_connection(Play())
    return play >> P(1000, D) >> S(1000, D[::-1])


def test_a_connection_that_differs_is_doubtful_first_and_lost_before_its_bytes_leave():
    play = differing()
    assert told(play) == [Unprotected("comp0", 1, doubtful=[KEY])]
    assert isinstance(play.messages[-1], CheckpointWanted), "the request comes behind it"
    outputs = play.core.tell(CheckpointDone(1, state_copied=False), play.now)
    kinds = [type(one.message) if isinstance(one, Tell) else type(one) for one in outputs]
    assert kinds.index(Unprotected) < kinds.index(Send)
    assert Tell(Unprotected("comp0", 2, lost=[KEY])) in outputs


def test_a_checkpoint_that_copies_state_takes_it_back():
    play = differing().done(copied=True)
    assert told(play)[-1] == Unprotected("comp0", 2, kept=[KEY])


def test_another_connection_on_the_same_ports_is_kept_once_both_guests_have_it():
    play = differing().done()
    before = len(told(play))
    play >> syn("P", 50_000, ack=700)
    assert len(told(play)) == before, "the rewriter may not know it yet"
    play >> syn("S", 60_000, ack=700)
    assert told(play)[before:] == [Unprotected("comp0", 3, kept=[KEY])]


def test_equal_connections_are_nothing_to_tell():
    play = open_connection(Play()) >> P(1000, D) >> S(1000, D)
    play.done()
    assert not told(play)


def test_datagrams_cannot_be_reset():
    play = Play() >> udp("P", b"x") >> udp("S", b"y")
    play.at(1).done()
    assert play.core.gauges()["flows_unprotected"] == 1
    assert not told(play)


def test_what_a_rule_passes_is_lost_each_time_that_it_begins():
    play = Play().tell(SetRules("pass tcp"))
    play >> syn("P", 1) >> P(2, D) >> syn("P", 900)
    assert told(play) == [Unprotected("comp0", 1, lost=[KEY]), Unprotected("comp0", 2, lost=[KEY])]
    play.tell(Welcome(0))
    assert told(play)[-1] == Unprotected("comp0", 3, again=True, lost=[KEY])


def test_in_shadow_mode_a_difference_is_lost_at_once():
    play = Play(CompareConfig(mode=Mode.SHADOW))
    play >> syn("P", 999) >> syn("S", 7777) >> P(1000, D) >> S(1000, D[::-1])
    assert told(play) == [Unprotected("comp0", 1, lost=[KEY])]


def test_after_a_resync_strangers_are_lost_and_what_begins_is_kept_for_a_while():
    play = Play(CompareConfig(mode=Mode.BYPASS))
    play.tell(SetMode(Mode.ENFORCE, resync=True))
    play >> P(1000, D)
    assert told(play) == [Unprotected("comp0", 1, lost=[KEY])]
    play >> syn("P", 1, dport=6000) >> syn("S", 5, dport=6000)
    other = bytes(dissect(P(1, dport=6000).data).key)
    assert told(play)[-1] == Unprotected("comp0", 2, kept=[other])
    play.tell(Welcome(0))
    assert told(play)[-1] == Unprotected("comp0", 3, again=True, lost=[KEY], kept=[other])
    play.at(JOINING)
    play >> syn("P", 1, dport=7000) >> syn("S", 5, dport=7000)
    assert told(play)[-1].version == 3


def test_everything_is_told_again_with_each_welcome():
    play = differing()
    play.tell(Welcome(0))
    assert told(play)[-1] == Unprotected("comp0", 2, again=True, doubtful=[KEY])
    play.done().tell(Welcome(1))
    assert told(play)[-1] == Unprotected("comp0", 4, again=True, lost=[KEY])


def test_a_flow_that_is_forgotten_stays_unprotected():
    play = differing().done()
    before = told(play)
    play.tell(SetMode(Mode.BYPASS))
    assert told(play) == before


def test_many_keys_are_told_in_several_messages():
    outputs = []
    telling = Telling("comp0", outputs)
    keys = [b"\x06" + number.to_bytes(12, "big") for number in range(2 * MAX_KEYS + 1)]
    for key in keys:
        telling.lost(key)
    telling.flush()
    messages = [one.message for one in outputs]
    assert [(one.version, len(one.lost)) for one in messages] == [(1, MAX_KEYS), (2, MAX_KEYS), (3, 1)]
    assert [key for one in messages for key in one.lost] == keys
    telling.flush()
    assert len(outputs) == 3
