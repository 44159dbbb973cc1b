"""Causes of checkpoints: told apart by service and client, remembered within bounds, answered more slowly each time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colo_frame.causes import COUNTED, FIRST, REMEMBERED, REPEATED, SHOWN, CauseNames, Causes, causes_of
from colo_proto.messages import CheckpointWanted, Reason

LONGEST = 10.0
WEB = CauseNames("tcp port 80", "10.0.0.9")


def request(flow, reason=Reason.PAYLOAD):
    return CheckpointWanted(reason, flow)


@pytest.mark.parametrize(
    ("flow", "named"),
    [
        ("tcp 10.0.0.2:80 > 10.0.0.9:5000", ("tcp port 80", "10.0.0.9")),
        ("vlan 5 vlan 6 udp 10.0.0.2:53 > 10.0.0.9:6000", ("udp port 53", "10.0.0.9")),
        ("tcp [fd00::2]:80 > [fd00::9]:5000", ("tcp port 80", "fd00::9")),
        ("icmpv6 fd00::2 > fd00::9", ("icmpv6", "fd00::9")),
        ("icmp 10.0.0.2 > 10.0.0.9 about udp 10.0.0.2:53 > 10.0.0.9:6000", ("icmp", "10.0.0.9")),
        ("proto-211 10.0.0.2 > 10.0.0.9", ("proto-211", "10.0.0.9")),
        ("", ("unknown (payload)", "")),
        ("what is this", ("unknown (payload)", "")),
    ],
)
def test_what_a_request_is_caused_by(flow, named):
    assert causes_of(request(flow)) == named


@pytest.mark.parametrize("reason", [Reason.MIRROR_GAP, Reason.WORKER_LOST, Reason.RESYNC, Reason.REQUEST])
def test_what_the_pair_itself_wants_is_nobodys_fault(reason):
    assert causes_of(request("", reason)) == ("", "")
    causes = Causes(LONGEST)
    causes.answered([CauseNames("", "")], 1.0)
    assert causes.due(CauseNames("", "")) == 0
    assert causes.status(1.0) == []


@given(st.text(max_size=400), st.text(max_size=400))
def test_names_are_short_whatever_another_process_says(flow, reason):
    for text in (flow, f"tcp {flow} > {flow}", f"{flow} 10.0.0.2 > {flow}"):
        assert all(len(part) <= 60 for part in causes_of(request(text, reason)))


def test_each_answer_doubles_the_delay_up_to_the_longest():
    causes, now, delays = Causes(LONGEST), 100.0, []
    assert causes.due(WEB) == 0, "the first is answered at once"
    for _ in range(8):
        causes.answered([WEB], now)
        delays.append(causes.due(WEB) - now)
        now = causes.due(WEB)
    assert delays == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST, *[LONGEST] * 4]


def test_quiet_makes_it_short_again():
    causes = Causes(LONGEST)
    for _ in range(50):
        causes.answered([WEB], 0.0)
    causes.answered([WEB], 30.0)
    assert causes.due(WEB) - 30.0 == 4 * FIRST, "three times the longest delay: three doublings are forgotten"
    causes.answered([WEB], 100.0)
    assert causes.due(WEB) - 100.0 == FIRST


def test_another_client_of_the_same_service_waits_as_well_and_another_service_does_not():
    causes = Causes(LONGEST)
    for _ in range(3):
        causes.answered([WEB], 0.0)
    assert causes.due(CauseNames("tcp port 80", "10.0.0.77")) == 4 * FIRST
    assert causes.due(CauseNames("tcp port 22", "10.0.0.9")) == 4 * FIRST
    assert causes.due(CauseNames("tcp port 22", "10.0.0.77")) == 0


def test_made_up_addresses_do_not_push_the_service_out():
    causes = Causes(LONGEST)
    for number in range(5000):
        causes.answered([CauseNames("udp port 53", f"10.{number >> 8}.{number & 255}.1")], float(number))
    assert causes.due(CauseNames("udp port 53", "10.99.99.99")) == 4999 + LONGEST
    assert len(causes._tables[1]) == REMEMBERED


def test_made_up_services_are_bounded_too():
    causes = Causes(LONGEST)
    counters = set()
    for number in range(3000):
        named = CauseNames(f"udp port {number}", "10.0.0.9")
        causes.answered([named], float(number))
        counters.add(causes.counter(named.service))
    assert len(causes._tables[0]) == REMEMBERED
    assert len(counters) == COUNTED + 1
    assert len(causes.status(3000.0)) <= SHOWN


def test_one_checkpoint_counts_once_however_many_asked_for_it():
    causes = Causes(LONGEST)
    causes.answered([CauseNames("udp port 53", f"10.0.0.{number}") for number in range(200)], 0.0)
    assert causes.due(CauseNames("udp port 53", "10.99.99.99")) == FIRST


def test_addresses_are_no_names_of_counters():
    causes = Causes(LONGEST)
    causes.answered([WEB], 0.0)
    assert causes.counter("10.0.0.9") == "client"
    assert causes.counter("tcp port 80") == "tcp port 80"


def test_that_one_waits_is_told_once_between_two_answers():
    causes = Causes(LONGEST)
    causes.answered([WEB], 0.0)
    one = request("tcp 10.0.0.2:80 > 10.0.0.9:5000")
    assert causes.put_off(WEB, one, 0.1) == ("tcp port 80", FIRST)
    assert causes.put_off(WEB, one, 0.2) is None
    causes.answered([WEB], 1.0)
    assert causes.put_off(WEB, one, 1.1) == ("tcp port 80", 2 * FIRST)
    assert causes.put_off(WEB, one, 9.0) is None, "its time has come"


def test_status_says_who_and_how_long():
    causes = Causes(LONGEST)
    for now in (0.0, 1.0, 3.0):
        causes.answered([WEB], now)
    causes.answered([CauseNames("udp port 53", "10.0.0.9")], 4.0)
    causes.put_off(WEB, request("tcp 10.0.0.2:80 > 10.0.0.9:5000"), 5.0)
    worst, *others = causes.status(5.0)
    assert worst == {
        "cause": "10.0.0.9",
        "checkpoints": 4,
        "delay_ms": 8000,
        "wait_ms": 7000,
        "reason": "payload",
        "flow": "tcp 10.0.0.2:80 > 10.0.0.9:5000",
    }
    assert [one["cause"] for one in others] == ["tcp port 80", "udp port 53"]
    assert causes.repeated(5.0) == 2
    assert causes.repeated(5.0 + REPEATED * LONGEST) == 0


def test_without_a_longest_delay_nobody_waits():
    causes = Causes(0.0)
    for _ in range(9):
        causes.answered([WEB], 1.0)
    assert causes.due(WEB) <= 1.0
    assert causes.repeated(1.0) == 0
