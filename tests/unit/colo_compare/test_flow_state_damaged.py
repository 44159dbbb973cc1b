"""Flow state that nobody packed is refused as a whole, or a flow of it is left out and counted; never an exception."""

import msgpack
import pytest

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_compare.handover import state as flow_state
from colo_proto.errors import WireError
from playbook import P, Play, S, open_connection, udp

HUGE = 2**62


def packed():
    play = open_connection(Play())
    play >> P(1000, b"held") >> udp("P", b"held too") >> S(1000, b"hel") >> udp("S", b"other")
    return msgpack.unpackb(flow_state.pack(play.core.table, lambda _key: True, play.now), raw=False)


def unpack(value):
    core = Compare(CompareConfig())
    flow_state.unpack(core.table, msgpack.packb(value), 1.0)
    return core


def test_what_was_packed_is_understood():
    core = unpack(packed())
    assert (core.counters["flows_taken_over"], core.counters["handovers_malformed"]) == (2, 0)
    assert core.gauges()["held"] == 2


def test_an_older_worker_does_not_know_every_field():
    flows, pieces = packed()
    for flow in flows:
        for name in flow_state.LATER:
            flow.pop(name, None)
    core = unpack([flows, pieces])
    assert (core.counters["flows_taken_over"], core.counters["handovers_malformed"]) == (2, 0)
    assert core.gauges()["held"] == 2


@pytest.mark.parametrize(
    "value", [5, [], [5, [[], []]], [[], 5], [[], [[], 5]], [[], [[[1.0, 5]], []]], [[], [[[1.0, [5]]], []]], {"a": 1}]
)
def test_what_is_no_flow_state_is_refused(value):
    with pytest.raises(WireError, match="flow_state"):
        unpack(value)


@pytest.mark.parametrize("garbage", [None, 5, HUGE, "text", [], {}, float("inf")])
@pytest.mark.parametrize("name", ["kind", "key", "data", "pri", "segments", "first", "sec", "count", "p_syn", "idle"])
def test_a_flow_that_cannot_be_read_is_left_behind(name, garbage):
    flows, pieces = packed()
    for flow in flows:
        if name in flow:
            flow[name] = garbage
    core = unpack([flows, pieces])
    counters = core.counters
    assert counters["flows_taken_over"] + counters["handovers_malformed"] == 2


@pytest.mark.parametrize("where", ["frame", "body"])
def test_numbers_in_the_place_of_bytes_are_no_zeros(where):
    """`bytes(2**62)` would take all memory."""
    flows, pieces = packed()
    for flow in flows:
        for held in flow.get("data", flow.get("pri")):
            if where == "frame":
                held[0] = [HUGE]
            else:
                held[1 if "data" in flow else 2] = HUGE
    assert unpack([flows, pieces]).counters["handovers_malformed"] == 2
