"""ICMP errors: a guest may leave them out, so one that only one guest sent is no difference."""

import random

import pytest

import craft
from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_compare.errors import MAX_WAITING
from colo_compare.handover import state as flow_state
from colo_proto.messages import Reason, SetRules
from playbook import Frame, Play, udp

GUEST, CLIENT = "10.0.0.2", "10.0.0.9"
FAMILIES = [(GUEST, CLIENT), ("fd00::2", "fd00::9")]


@pytest.fixture
def play():
    return Play()


def error(side, asked, ends=(GUEST, CLIENT), kind=None, code=3, port=6000, extra=4):
    """Port unreachable (or another) about a client's datagram `asked`."""
    guest, client = ends
    frame = bytearray(craft.icmp_error(guest, client, craft.udp(client, guest, port, 9, asked), kind=kind, code=code))
    if extra != 4:
        frame[-1] = extra
    return Frame(side, bytes(frame))


@pytest.mark.parametrize("ends", FAMILIES)
@pytest.mark.parametrize("first", ["P", "S"])
def test_what_both_send_leaves(play, ends, first):
    mine, its = error("P", b"a", ends), error("S", b"a", ends)
    play >> (mine if first == "P" else its) >> (its if first == "P" else mine)
    assert play.released == [mine]
    assert not play.wanted


@pytest.mark.parametrize("ends", FAMILIES)
def test_the_primarys_alone_is_dropped_and_asks_for_nothing(play, ends):
    play >> error("P", b"a", ends)
    play.at(3.0)
    assert play.held == 1, "the secondary may be late"
    play.at(1.1)
    assert (play.held, play.sent, play.wanted) == (0, [], [])
    assert play.core.counters["dropped.unmatched"] == play.core.counters["errors_unmatched"] == 1


@pytest.mark.parametrize("ends", FAMILIES)
def test_the_secondarys_alone_is_dropped_and_asks_for_nothing(play, ends):
    play >> error("S", b"a", ends)
    play.at(10)
    assert play.core.counters["secondary_dropped.unmatched"] == 1
    assert not play.wanted


def test_errors_about_different_packets_of_one_flow_are_no_difference(play):
    """Each guest's limit let another one through."""
    play >> error("P", b"one") >> error("S", b"two") >> error("P", b"three") >> error("S", b"three")
    play.at(10)
    assert play.released == [error("P", b"three")]
    assert not play.wanted
    assert play.core.counters["miscompares"] == 0


@pytest.mark.parametrize(
    ("mine", "its"),
    [
        ({"code": 3}, {"code": 1}),
        ({"kind": 3}, {"kind": 11, "code": 0}),
        ({"ends": FAMILIES[1], "kind": 1, "code": 4}, {"ends": FAMILIES[1], "kind": 1, "code": 1}),
    ],
)
@pytest.mark.parametrize("found_equal", [False, True])
def test_other_words_about_the_same_packet_are_a_difference(play, mine, its, found_equal):
    play >> error("P", b"a", **mine) >> error("S", b"a", **its)
    if found_equal:
        play >> error("P", b"b", **mine) >> error("S", b"b", **mine)
    play.at(0.2)
    (wanted,) = play.wanted
    assert (wanted.reason, wanted.offset) == (Reason.DATAGRAM, 0)
    assert error("P", b"a", **mine) not in play.released
    play.at(20)
    assert play.held == 1, "it waits for its checkpoint"
    play.done(copied=True)
    assert error("P", b"a", **mine) in play.released


def test_a_redirect_and_another_error_about_the_same_packet_are_two_things(play):
    play >> error("P", b"a", kind=5, code=1) >> error("S", b"a", code=1)
    play.at(10)
    assert not play.wanted


def test_a_flood_whose_errors_are_limited_differently_asks_for_nothing(play):
    """Two guests that answer a random third of what a client sends from spoofed addresses."""
    rng = random.Random(7)
    for number in range(3000):
        asked, client = b"%d" % number, f"10.0.{number % 7}.{number % 199 + 1}"
        for side in "PS":
            if rng.random() < 0.33:
                play >> error(side, asked, (GUEST, client), port=1024 + number % 3)
        play.at(0.001)
    play.at(10)
    assert not play.wanted
    assert 200 < len(play.sent) < 500
    assert play.core.counters["released.compared"] == len(play.sent)
    assert (play.held, play.core.gauges()["held_secondary"], play.core.gauges()["held_bytes"]) == (0, 0, 0)
    assert play.core.gauges()["flows"] == 0, "they are forgotten as soon as they hold nothing"


def test_errors_that_quote_nothing_readable_are_errors_too(play):
    """Time exceeded about a later fragment, or a quote that is cut short."""
    for quoted in (b"", bytes(28), b"\x45" + bytes(5) + b"\0\x09" + bytes(20)):
        play >> Frame("P", craft.icmp(GUEST, CLIENT, 11, 1, bytes(4) + quoted))
    play.at(10)
    assert not play.wanted
    assert play.core.counters["dropped.unmatched"] == 3


def test_pings_are_compared_as_ever(play):
    """Every host answers them (RFC 1122 §3.2.2.6): a secondary that is silent is not well."""
    play >> Frame("P", craft.icmp_echo(GUEST, CLIENT, ident=7, seq=1, payload=b"x", reply=True))
    play.at(10)
    assert play.wanted[0].reason == Reason.TIMEOUT


def test_few_are_kept_of_a_flow(play):
    for number in range(3 * MAX_WAITING):
        play >> error("P", b"%d" % number)
        play >> error("S", b"x%d" % number)
    assert play.held == play.core.gauges()["held_secondary"] == MAX_WAITING
    assert play.core.counters["dropped.unmatched"] == 2 * MAX_WAITING
    assert not play.wanted


def test_errors_take_no_room_from_what_has_to_be_kept():
    play = Play(CompareConfig(max_held_mib=1, max_secondary_mib=1))
    for number in range(4000):
        for side in "PS":
            play >> error(side, bytes([side == "P"]) * 400, (GUEST, f"10.0.{number >> 8}.{number & 255}"))
    gauges = play.core.gauges()
    assert gauges["held_bytes"] <= 1 << 18
    assert gauges["secondary_bytes"] <= 1 << 18
    play >> udp("P", b"x") >> udp("S", b"x")
    assert len(play.sent) == 1
    assert not play.wanted


@pytest.mark.parametrize("config", [{"max_queue_size": 1}, {"max_held_mib": 1}])
def test_a_bound_of_others_asks_for_nothing_on_their_behalf(config):
    play = Play(CompareConfig(**config))
    if "max_held_mib" in config:
        for number in range(19):
            play >> udp("P", bytes(60000), sport=1000 + number)
    before = len(play.wanted)
    for number in range(5):
        play >> error("P", b"%d" % number)
    assert len(play.wanted) == before
    assert play.core.counters["dropped.unmatched"] >= 4


def test_in_shadow_mode_it_is_only_counted():
    play = Play(CompareConfig(mode="shadow"))
    play >> error("P", b"a") >> error("S", b"b")
    play.at(10)
    assert play.released == [error("P", b"a")]
    assert play.core.counters["miscompares"] == 0
    assert play.core.counters["errors_unmatched"] == play.core.counters["secondary_dropped.unmatched"] == 1
    assert play.core.gauges()["held_bytes"] == 0


@pytest.mark.parametrize(("action", "at_once"), [("shadow", 1), ("pass", 1), ("compare", 0)])
def test_rules_of_the_flow_it_is_about_hold(play, action, at_once):
    play.tell(SetRules(f"{action} udp guest-port 9"))
    play >> error("P", b"a")
    assert len(play.sent) == at_once
    play.at(10)
    assert len(play.sent) == at_once
    assert not play.wanted


def test_they_move_to_another_worker_as_what_they_are():
    one, two = Compare(CompareConfig()), Play()
    one.receive("primary_in", [error("P", b"a").data, error("P", b"b").data], 100.0)
    flow_state.unpack(two.core.table, flow_state.pack(one.table, lambda _key: True, 100.0), 100.0)
    two.take(two.core.receive("secondary_in", [error("S", b"b").data], 100.0))
    two.take(two.core.on_timer(104.5))
    assert two.released == [error("P", b"b")]
    assert two.core.counters["dropped.unmatched"] == 1
    assert not two.wanted
