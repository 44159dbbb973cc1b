"""Flows without a stream: matched by payload, in any order, within the flow."""

import pytest

import craft
from colo_compare.config import CompareConfig
from colo_proto.messages import Reason
from playbook import CLIENT, GUEST, Frame, Play, udp


@pytest.fixture
def play():
    return Play()


@pytest.mark.parametrize("first", ["P", "S"])
def test_equal_datagrams_leave(play, first):
    p, s = udp("P", b"x", ident=1), udp("S", b"x", ident=2, ttl=3)
    play >> (p if first == "P" else s) >> (s if first == "P" else p)
    assert play.released == [p]


def test_pipelined_datagrams_leave_in_order_without_a_checkpoint(play):
    ps = [udp("P", bytes([n])) for n in range(64)]
    for p in ps:
        play >> p
    for n in range(64):
        play >> udp("S", bytes([n]))
    play.at(10)
    assert play.released == ps
    assert not play.wanted


def test_crosswise_pairs_are_pairs(play):
    a, b = udp("P", b"a"), udp("P", b"b")
    play >> a >> udp("S", b"b") >> b >> udp("S", b"a")
    play.at(10)
    assert sorted(play.sent) == sorted([a.data, b.data])
    assert not play.wanted


def test_a_difference_is_named_after_the_grace(play):
    play >> udp("P", b"same") >> udp("S", b"same") >> udp("P", b"hello") >> udp("S", b"hellO")
    assert not play.wanted
    play.at(0.2)
    (wanted,) = play.wanted
    assert (wanted.reason, wanted.offset, wanted.detail["byte"]) == (Reason.DATAGRAM, 1, 4)
    assert len(play.sent) == 1


def test_a_lost_counterpart_of_the_primary_never_asks(play):
    """The primary's own datagram was lost on the way: legal, and the secondary's expires."""
    play >> udp("S", b"lost")
    for n in range(5):
        play >> udp("P", bytes([n])) >> udp("S", bytes([n]))
        play.at(1)
    assert not play.wanted
    assert len(play.sent) == 5
    assert play.core.counters["secondary_dropped.expired"] == 1


def test_an_overtaken_secondary_datagram_is_no_evidence(play):
    play >> udp("S", b"lost") >> udp("S", b"1") >> udp("P", b"1") >> udp("P", b"2")
    play.at(0.5)
    assert not play.wanted
    play >> udp("S", b"2")
    play.at(10)
    assert not play.wanted


def test_silent_secondary_asks_by_timeout(play):
    play >> udp("P", b"x")
    play.at(4.1)
    assert play.wanted[0].reason == Reason.TIMEOUT
    play.done(copied=False)
    assert len(play.sent) == 1
    play >> udp("P", b"y")
    assert len(play.sent) == 2, "the flow is unprotected now"


def test_flush_keeps_the_order(play):
    ps = [udp("P", bytes([n])) for n in range(4)]
    for p in ps:
        play >> p
    play.done(copied=True)
    assert play.released == ps


def test_bounds_ask_for_a_checkpoint():
    play = Play(CompareConfig(max_queue_size=2))
    for n in range(5):
        play >> udp("P", bytes([n]))
    assert play.wanted[0].reason == Reason.QUEUE_FULL
    play.done(copied=True)
    assert len(play.sent) == 2
    for n in range(5):
        play >> udp("S", bytes([n]))
    assert play.core.gauges()["held_secondary"] == 2


@pytest.mark.parametrize("size", [0, 1, 1472, 1473, 9000, 60000])
def test_fragmented_datagrams_match_by_flow_not_by_ip_id(play, size):
    body = bytes(i * 7 & 255 for i in range(size))
    mine = craft.fragments(udp("P", body, ident=100).data, 1500)
    its = craft.fragments(udp("S", body, ident=777).data, 1400)
    for f in mine[::-1]:
        play >> Frame("P", f)
    assert play.sent == []
    for f in its:
        play >> Frame("S", f)
    assert sorted(play.sent) == sorted(mine)
    assert not play.wanted


def test_fragments_that_never_become_whole_are_dropped_and_counted(play):
    mine = craft.fragments(udp("P", bytes(5000)).data, 1500)
    for f in mine[:-1]:
        play >> Frame("P", f)
    play.at(10)
    assert play.sent == []
    assert play.core.counters["dropped.fragments"] == len(mine) - 1
    assert play.held == 0


def test_icmp_echo_by_payload_and_address(play):
    p = Frame("P", craft.icmp_echo(GUEST, CLIENT, ident=7, seq=1, payload=b"ping", reply=True))
    play >> p >> Frame("S", craft.icmp_echo(GUEST, CLIENT, ident=7, seq=1, payload=b"ping", reply=True))
    assert play.released == [p]
    play >> Frame("P", craft.icmp_echo(GUEST, CLIENT, ident=7, seq=2, payload=b"ping", reply=True))
    play >> Frame("S", craft.icmp_echo(GUEST, CLIENT, ident=7, seq=3, payload=b"ping", reply=True))
    play.at(0.2)
    assert play.wanted[0].reason == Reason.DATAGRAM


def test_ports_are_flows_of_their_own(play):
    play >> udp("P", b"x", sport=1) >> udp("S", b"x", sport=2)
    assert play.sent == []
    assert play.core.gauges()["flows"] == 2


def test_arp_and_neighbours_pass_uncompared(play):
    arp = Frame("P", craft.arp_request("10.0.0.2", "10.0.0.9"))
    ns = Frame("P", craft.neighbour_solicitation("fe80::1", "fe80::2"))
    play >> arp >> ns
    assert play.released == [arp, ns]
    play >> Frame("S", arp.data) >> Frame("S", ns.data)
    assert play.core.counters["released.pass"] == 2
    assert play.core.counters["secondary_dropped.pass"] == 2


def test_idle_flows_are_forgotten(play):
    play >> udp("P", b"x") >> udp("S", b"x")
    play.at(130)
    assert play.core.gauges()["flows"] == 0


def test_a_full_table_evicts_the_oldest():
    play = Play(CompareConfig(max_flows=16))
    for n in range(40):
        play >> udp("P", b"x", sport=1000 + n)
        play.now += 0.001
    assert play.core.gauges()["flows"] <= 16
    assert play.core.counters["flows_evicted"] >= 24


def test_several_datagrams_that_find_no_equal_in_shadow_mode_leave_the_books_right():
    play = Play(CompareConfig(mode="shadow"))
    for n in range(3):
        play >> udp("P", bytes([n]))
    play.at(10)
    assert len(play.sent) == 3
    assert play.core.counters["miscompares"] == 1, "the flow was reported, and left alone from then on"
    assert play.core.gauges()["held_bytes"] == 0


# -- a primary that is far ahead in shadow mode ----------------------------------------------------------------


def ahead(count, **options):
    play = Play(CompareConfig(mode="shadow", max_queue_size=8, **options))
    for n in range(count):
        play >> udp("P", bytes([n]) * 20)
    assert len(play.sent) == count
    return play


def verdict(play):
    counters = play.core.counters
    wanted = sum(n for name, n in counters.items() if name.startswith("checkpoints_wanted."))
    return counters["miscompares"], wanted


def test_a_primary_that_is_far_ahead_is_not_different():
    play = ahead(30)
    for n in range(30):
        play.at(0.05) >> udp("S", bytes([n]) * 20)
    play.at(10)
    assert verdict(play) == (0, 0)
    assert play.core.counters["frames_unkept"] == 22
    assert play.core.counters["bytes_unjudged"] == 22 * 20
    assert play.core.counters["secondary_dropped.unkept"] == 22
    play >> udp("P", b"equal") >> udp("S", b"equal")
    play >> udp("P", b"one") >> udp("S", b"other")
    play.at(1)
    assert verdict(play) == (1, 1)


@pytest.mark.parametrize("number", [0, 7])
def test_a_difference_in_what_was_kept_is_found(number):
    play = ahead(30)
    for n in range(30):
        play >> udp("S", bytes([n + (n == number)]) * 20)
    play.at(10)
    assert verdict(play) == (1, 1)


def test_what_was_not_kept_excuses_nothing_for_long():
    play = ahead(30)
    for n in range(8):
        play >> udp("S", bytes([n]) * 20)
    play.at(4)
    play >> udp("P", b"one") >> udp("S", b"other")
    play.at(1)
    assert verdict(play) == (1, 1)


def test_a_secondary_that_goes_on_is_only_behind():
    play = ahead(8)
    for n in range(8):
        play.at(1) >> udp("S", bytes([n]) * 20)
    assert verdict(play) == (0, 0)
    assert play.core.counters["bytes_compared"] == 160


def test_and_one_that_then_stops_is_another_one():
    play = ahead(8)
    for n in range(4):
        play.at(1) >> udp("S", bytes([n]) * 20)
    play.at(6)
    assert verdict(play) == (1, 1)


def test_one_that_the_secondary_has_left_out_is_different_though_it_goes_on():
    play = ahead(8)
    for n in range(1, 8):
        play.at(1) >> udp("S", bytes([n]) * 20)
    assert verdict(play) == (1, 1)
