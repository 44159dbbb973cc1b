"""Shadow mode, and a secondary host that is slower: its guest falls behind as a whole, which is no difference."""

import pytest

from colo_compare.config import CompareConfig
from colo_proto.messages import Mode
from playbook import P, Play, S, syn, udp


def play():
    return Play(CompareConfig(mode=Mode.SHADOW, compare_timeout=3000, expired_scan_cycle=500))


def connection(play, side, port):
    """A guest opens a connection and answers in it."""
    kind = {"P": P, "S": S}[side]
    play >> syn(side, 999, dport=port) >> kind(1000, b"hello %d" % port, dport=port)


def datagram(play, side, port):
    play >> udp(side, b"hello %d" % port, dport=port)


@pytest.mark.parametrize("say", [connection, datagram])
def test_a_secondary_that_is_ever_further_behind_but_goes_on_in_order(say):
    one = play()
    answered = 0
    for port in range(200):
        say(one, "P", 5000 + port)
        # It comes half as far as the primary: after 20 s it is 10 s behind.
        if port % 2:
            say(one, "S", 5000 + answered)
            answered += 1
        one.at(0.1)
    assert one.core.counters["miscompares"] == 0
    assert 9000 <= one.core.gauges()["behind_ms"] <= 11000
    for port in range(answered, 200):
        say(one, "S", 5000 + port)
        one.at(0.05)
    one.at(10)
    assert one.core.counters["miscompares"] == 0
    assert one.core.gauges()["behind_ms"] == 0


@pytest.mark.parametrize("say", [connection, datagram])
def test_one_that_left_something_out_is_found_once_it_is_well_past_that(say):
    one = play()
    for port in range(200):
        say(one, "P", 5000 + port)
        if port % 2 and port != 41:
            say(one, "S", 5000 + port // 2)
        one.at(0.1)
    # It comes to what the primary did at 2.0 s after 4.0 s, and to 3 s later after 10 s.
    assert one.core.counters["miscompares"] == 1
    assert one.core.status()["last"][0]["flow"].endswith(":5020")


@pytest.mark.parametrize("say", [connection, datagram])
def test_one_that_stops_altogether_is_found_as_before(say):
    one = play()
    for port in range(100):
        say(one, "P", 5000 + port)
        if port % 2:
            say(one, "S", 5000 + port // 2)
        one.at(0.1)
    assert one.core.counters["miscompares"] == 0
    one.at(7.5)
    assert one.core.counters["miscompares"] == 50


def test_a_single_flow_that_gets_no_answer_among_others_that_do():
    one = play()
    connection(one, "P", 4999)
    for port in range(80):
        connection(one, "P", 5000 + port)
        connection(one, "S", 5000 + port)
        one.at(0.1)
        if one.core.counters["miscompares"]:
            break
    assert 30 <= port <= 37, "after compare_timeout and a scan"
