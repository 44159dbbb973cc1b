"""The books: what is held and kept, requests once until they are answered, bounds on all flows together."""

import pytest

from colo_compare.arrival import Arrival
from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_compare.ledger import Ledger
from colo_compare.requests import LAST_DIFFERENCES, REPEAT_AFTER
from colo_compare.tcp.flow import TcpFlow
from colo_compare.tcp.history import PIECE_COST, Piece
from colo_compare.tcp.state import Held
from colo_proto.core import Log, Tell
from colo_proto.messages import Reason
from colo_proto.net.packet import dissect
from colo_proto.rules import DEFAULT
from playbook import P


@pytest.fixture
def ledger():
    return Ledger(CompareConfig(max_queue_size=4, max_held_mib=1, max_secondary_mib=4))


def flow(ledger, port=5000):
    return TcpFlow(ledger, dissect(P(1, dport=port).data).key, DEFAULT, 1.0)


def held(unit):
    return Held(Arrival(unit), 0, 0, 0, 1.0)


@pytest.mark.parametrize(("unit", "frames", "size"), [(b"x" * 70, 1, 70), ((b"x" * 70, b"y" * 30), 2, 100)])
@pytest.mark.parametrize("shadow", [False, True])
def test_what_is_held_is_given_back(ledger, unit, frames, size, shadow):
    ledger.shadow = shadow
    one = held(unit)
    ledger.hold(flow(ledger), one)
    assert (ledger.held, ledger.held_bytes, one.out) == (0 if shadow else frames, size, shadow)
    ledger.unhold(one)
    assert (ledger.held, ledger.held_bytes) == (0, 0)


def test_let_out_is_kept_but_no_longer_held(ledger):
    who, one = flow(ledger), held((b"x", b"y"))
    ledger.hold(who, one)
    ledger.let_out(who, one, "mode")
    ledger.let_out(who, one, "mode")
    assert (ledger.held, ledger.held_bytes) == (0, 2)
    assert ledger.sink == [(b"x", b"y")]
    assert ledger.counters["released.mode"] == 2
    ledger.drop(one, "evicted")
    assert ledger.counters["dropped.evicted"] == 0, "it was sent"
    assert ledger.held_bytes == 0


def test_a_flow_asks_once_until_it_is_answered_and_again_after_a_while(ledger):
    who = flow(ledger)
    for _ in range(3):
        ledger.want(who, Reason.PAYLOAD, 7, {"age_ms": 1}, 10.0)
    told, request = (one.message for one in ledger.outputs if isinstance(one, Tell))
    assert told.doubtful == [who.key], "the secondary's rewriter is told before the checkpoint can come"
    assert request.reason == Reason.PAYLOAD
    assert len([one for one in ledger.outputs if isinstance(one, Log)]) == 1
    ledger.requests.repeat(10.0 + REPEAT_AFTER - 0.1)
    assert len(ledger.outputs) == 3
    ledger.requests.repeat(10.0 + REPEAT_AFTER)
    assert ledger.outputs[-1].message.reason == Reason.REPEATED


def test_only_the_last_differences_are_kept(ledger):
    for port in range(LAST_DIFFERENCES + 5):
        ledger.want(flow(ledger, port), Reason.FIN, port, {}, 1.0)
    assert [seen["offset"] for seen in ledger.requests.last] == list(range(5, LAST_DIFFERENCES + 5))


def test_the_bounds_are_looked_at_before_anything_is_kept(ledger):
    who = flow(ledger)
    assert ledger.room(who)
    ledger.held_bytes = ledger.max_held_bytes // 2
    assert ledger.room(who)
    who.wanted = 1.0
    assert not ledger.room(who), "the other half is for those that wait for no checkpoint"
    assert ledger.room(flow(ledger, 1))
    ledger.held_bytes = ledger.max_held_bytes
    assert not ledger.room(flow(ledger, 1))


def test_what_is_refused_is_counted_and_asks_for_a_checkpoint(ledger):
    ledger.refuse(flow(ledger), held(b"x"), 4)
    ledger.refuse(flow(ledger, 1), held(b"x"), 0)
    ledger.refuse(flow(ledger, 2), held(b"x"), 0, ask=False)
    assert ledger.counters["dropped.queue_full"] == 3
    assert ledger.counters["checkpoints_wanted.queue_full"] == 2


def test_history_gives_way_before_anything_is_refused(ledger):
    past = Piece(0, 1000, bytes(1000), 0)
    ledger.secondary_bytes = ledger.max_secondary_bytes + 1 + 1000 + PIECE_COST
    ledger.history.add(past)
    ledger.secondary_bytes -= 1
    ledger.squeeze()
    assert (past.buffer, ledger.history.size) == (b"", 0)
    assert ledger.secondary_bytes == ledger.max_secondary_bytes
    assert ledger.secondary_quota == ledger.max_queue_size
    assert ledger.counters["history_cut"] == 1


def test_what_cannot_be_given_up_stops_the_taking(ledger):
    ledger.secondary_bytes = ledger.max_secondary_bytes + 1
    ledger.squeeze()
    assert ledger.secondary_quota == 0
    assert ledger.counters["history_cut"] == 0
    ledger.secondary_bytes = 0
    ledger.relax()
    assert ledger.secondary_quota == 4


def test_all_counters_are_shown_together(ledger):
    ledger.released, ledger.counters["released.pass"], ledger.secondary_compared = 5, 2, 3
    shown = ledger.folded()
    assert (shown["released"], shown["released.compared"], shown["secondary_dropped.compared"]) == (5, 3, 3)


def test_a_difference_is_seen_as_an_increase():
    """An alert looks for an increase, and there is none in a counter that begins with its first event."""
    assert Compare(CompareConfig()).counters["miscompares"] == 0
    assert "miscompares" in Compare(CompareConfig()).counters
