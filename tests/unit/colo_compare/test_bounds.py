"""Bounds on queues, memory and flows."""

import gc
import tracemalloc

import pytest

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_proto.messages import Mode, Reason, SetMode, SetRules
from playbook import P, Play, S, open_connection, syn, udp

D = b"ABCDEFGHIJ"


def ruled(text, **config):
    play = Play(CompareConfig(**config))
    return play.tell(SetRules(text))


def test_the_bound_on_held_bytes_holds_over_all_flows():
    play = Play(CompareConfig(max_held_mib=1))
    for port in range(30):
        play >> udp("P", bytes(60000), dport=1000 + port)
    gauges = play.core.gauges()
    assert gauges["held_bytes"] <= (1 << 20) + 60052
    assert play.core.counters["dropped.queue_full"] == 30 - gauges["held"]
    assert {w.reason for w in play.wanted} == {Reason.QUEUE_FULL}
    assert len(play.wanted) == play.core.counters["dropped.queue_full"], "one request for each flow that lost"


def test_a_report_of_shadow_mode_lets_go_of_each_datagram_once():
    """The first report flushes the flow, with the others that have waited as long."""
    play = ruled("shadow udp")
    for n in range(3):
        play >> udp("P", bytes([n]))
    play.at(10)
    assert play.core.counters["miscompares"] == 1
    assert play.core.gauges()["held_bytes"] == 0


def test_the_bound_on_held_bytes_counts_what_shadow_mode_keeps():
    play = Play(CompareConfig(max_held_mib=1))
    play.tell(SetMode(Mode.SHADOW))
    for port in range(30):
        play >> udp("P", bytes(60000), dport=1000 + port)
    assert len(play.sent) == 30
    assert play.core.gauges()["held_bytes"] <= (1 << 20) + 60052


def secondary_flood(play, flows, segments, size=1000):
    for port in range(flows):
        play >> syn("P", 999, dport=port) >> syn("S", 999, dport=port)
    for n in range(segments):
        for port in range(flows):
            play >> S(1000 + size * n, bytes(size), dport=port)


def test_the_bound_on_the_secondary_refuses_what_will_come_again():
    play = Play(CompareConfig(max_secondary_mib=1))
    secondary_flood(play, 10, 200)
    gauges = play.core.gauges()
    assert gauges["secondary_bytes"] <= (1 << 20) + 2000
    assert play.core.counters["secondary_dropped.queue_full"] > 0
    # The primary catches up, and the guest sends again what was refused.
    for n in range(200):
        for port in range(10):
            play >> P(1000 + 1000 * n, bytes(1000), dport=port) >> S(1000 + 1000 * n, bytes(1000), dport=port)
        play.now += 0.001
    play.at(1.5)
    assert len(play.sent) == 10 + 2000 or play.held, "what is not out is held"
    for n in range(200):
        for port in range(10):
            play >> S(1000 + 1000 * n, bytes(1000), dport=port)
    assert len(play.sent) == 10 + 2000
    assert not play.wanted


def test_history_gives_way_first():
    """Bytes found equal are kept for retransmissions only as long as there is room."""
    play = Play(CompareConfig(max_secondary_mib=1))
    for port in range(10):
        play >> syn("P", 999, dport=port) >> syn("S", 999, dport=port)
    for n in range(300):
        for port in range(10):
            play >> P(1000 + 1000 * n, bytes(1000), dport=port) >> S(1000 + 1000 * n, bytes(1000), dport=port)
    assert len(play.sent) == 10 + 3000
    gauges = play.core.gauges()
    assert 1 << 17 < gauges["secondary_bytes"] <= 1 << 18, "a quarter of the bound is history's"
    assert play.core.counters["history_cut"] == 0
    # The secondary is ahead, as far as the bound allows, which is as far as without history.
    for n in range(300, 378):
        for port in range(10):
            play >> S(1000 + 1000 * n, bytes(1000), dport=port)
    assert play.core.counters["history_cut"] == 1
    assert play.core.counters["secondary_dropped.queue_full"] == 0
    assert play.core.gauges()["secondary_bytes"] == 780 * (len(S(1, bytes(1000)).data) + 256)
    # A retransmission of what is forgotten goes unverified, and is counted.
    again = P(1000 + 1000 * 299, bytes(1000), dport=3)
    play >> again
    assert play.sent[-1] == again.data
    assert play.core.counters["bytes_unverified"] == 1000


@pytest.mark.slow
def test_with_many_connections_the_last_of_each_is_still_compared():
    """History is what was found equal last, whosever it is."""
    play = Play()
    for port in range(500):
        play >> syn("P", 999, dport=port) >> syn("S", 999, dport=port)
    for n in range(20):
        for port in range(500):
            play >> S(1000 + 1000 * n, bytes(1000), dport=port) >> P(1000 + 1000 * n, bytes(1000), dport=port)
    assert play.core.gauges()["secondary_bytes"] <= 1 << 20
    play >> P(1000 + 1000 * 19, bytes(1000), dport=7)
    assert play.core.counters["bytes_unverified"] == 0
    assert not play.wanted
    play >> P(1000 + 1000 * 19, b"?" * 1000, dport=7)
    assert len(play.wanted) == 1
    # Between scans no connection keeps much of what has lost its bytes, and after one nothing.
    assert max(len(flow.ref.pieces) for flow in play.core.table.flows.values()) <= 10
    play.core.ledger.history.clear()
    play.at(play.now + 5)
    assert {len(flow.ref.pieces) for flow in play.core.table.flows.values() if not flow.wanted} == {0}


def test_a_secondary_far_ahead_is_refused():
    play = open_connection(Play(CompareConfig(max_stream_mib=1)))
    play >> S(1000 + (1 << 20), b"far") >> S(1000, D)
    assert play.core.counters["secondary_dropped.queue_full"] == 1
    p = P(1000, D)
    play >> p
    assert play.released == [p]


@pytest.mark.slow
def test_memory_goes_with_the_flows():
    """A million SYNs, in small: the table is bounded, and what it held is given back."""
    play = Play(CompareConfig(max_flows=64))
    for port in range(1000):
        play >> syn("P", 999, dport=port) >> S(4000, bytes(100), dport=port)
        play.now += 0.001
    gauges = play.core.gauges()
    assert gauges["flows"] <= 64
    assert gauges["held"] <= 64
    ledger = play.core.ledger
    assert ledger.secondary_bytes <= 64 * 500
    for table in (ledger.holding, ledger.lingering, ledger.suspects, ledger.requests.waiting, ledger.unprotected):
        assert len(table) <= 64
    play.at(8000)
    assert play.core.gauges()["flows"] == 0
    assert (ledger.held, ledger.held_bytes, ledger.secondary_bytes, ledger.held_secondary) == (0, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_flow_takes_no_more_memory_than_the_readme_says(kind):
    """2 KiB beside the frames that are kept; the table is the only thing that grows with SYNs."""
    core = Compare(CompareConfig(max_flows=512))

    def both(port):
        frame = (syn("P", 999, dport=port) if kind == "tcp" else udp("P", b"x", dport=port)).data
        core.receive("secondary_in", [bytes(bytearray(frame))], 100.0)
        core.receive("primary_in", [frame], 100.0)

    both(1)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for port in range(2, 2000):
            both(port)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(core.table.flows) > 400
    assert grown < 512 * 2048
