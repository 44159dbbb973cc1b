"""A flow put into another compare goes on there as if nothing had happened; what cannot be read is left behind."""

import msgpack
import pytest

import craft
from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_compare.handover import state as flow_state
from colo_compare.tcp.state import Connection
from colo_proto.core import Send
from colo_proto.errors import WireError
from colo_proto.messages import CheckpointDone, Mode, SetRules
from colo_proto.net.tcp import RST
from playbook import P, S, syn, udp

D = b"ABCDEFGHIJ"


def compare(**config):
    return Compare(CompareConfig(**config))


def feed(core, *some, now=1.0):
    """What is released for these frames."""
    out = []
    for one in some:
        port = "primary_in" if one.side == "P" else "secondary_in"
        for output in core.receive(port, [one.data], now):
            if isinstance(output, Send):
                out += output.frames
    return out


def moved(one, two, now=2.0):
    two_had = two.counters
    data = flow_state.pack(one.table, lambda _key: True, now)
    assert not one.table.flows
    assert one.ledger.held == one.ledger.held_secondary == one.ledger.held_bytes == one.ledger.secondary_bytes == 0
    flow_state.unpack(two.table, data, now)
    assert two.counters["taken_over"] - two_had["taken_over"] == one.counters["handed_over"]
    return two


def bytes_of(*some):
    return [one.data for one in some]


def test_a_connection_goes_on_where_it_stopped():
    one, two = compare(), compare()
    assert feed(one, syn("P", 999), syn("S", 7777)) == bytes_of(syn("P", 999))
    assert feed(one, P(1000, D), P(1010, D), S(1000, D[:4])) == []
    moved(one, two)
    assert feed(two, S(1004, D[4:] + D)) == bytes_of(P(1000, D), P(1010, D))
    # The ACK that the secondary gave and the scale of its window were known before.
    assert feed(two, P(1020, D, ack=900), S(1020, D, ack=500)) == []
    assert feed(two, S(1030, b"", ack=900)) == bytes_of(P(1020, D, ack=900))
    assert two.counters["adopted"] == 0


def test_history_goes_along_for_retransmissions():
    one, two = compare(), compare()
    feed(one, syn("P", 999), syn("S", 7777), P(1000, D), S(1000, D))
    moved(one, two)
    assert feed(two, P(1000, D)) == bytes_of(P(1000, D))
    assert two.counters["bytes_unverified"] == 0
    assert feed(two, P(1000, D[::-1])) == []
    assert two.counters["miscompares"] == 1


def test_a_reset_that_waits_for_the_other_sides():
    one, two = compare(), compare()
    feed(one, syn("P", 999), syn("S", 7777), P(1000, b"", RST))
    moved(one, two)
    assert feed(two, S(1000, b"", RST)) == bytes_of(P(1000, b"", RST))


def test_datagrams_of_both_sides():
    one, two = compare(), compare()
    feed(one, udp("P", b"a"), udp("P", b"b"), udp("S", b"b"), udp("S", b"c"))
    moved(one, two)
    assert feed(two, udp("S", b"a"), udp("P", b"c")) == bytes_of(udp("P", b"a"), udp("P", b"c"))


def test_a_request_for_a_checkpoint_and_what_it_left_behind():
    one, two, three = compare(), compare(), compare()
    feed(one, syn("P", 999), syn("S", 7777), P(1000, D), S(1000, D[::-1]))
    moved(one, two)
    assert len(two.ledger.requests.waiting) == 1
    two.tell(CheckpointDone(1, state_copied=False), 3.0)
    moved(two, three)
    assert feed(three, P(1010, D), S(1010, D[::-1])) == bytes_of(P(1010, D))
    assert three.gauges()["flows_unprotected"] == 1


def test_fragments_that_are_not_whole_yet():
    one, two = compare(), compare()
    whole = craft.udp("10.0.0.2", "10.0.0.9", 53, 5000, bytes(4000), ident=7, dont_fragment=False)
    pieces = craft.fragments(whole, 1280)
    for port, upto in (("primary_in", 2), ("secondary_in", 3)):
        one.receive(port, pieces[:upto], 1.0)
    moved(one, two)
    assert two.gauges()["held"] == 2
    two.receive("secondary_in", pieces[3:], 2.0)
    (out,) = [o for o in two.receive("primary_in", pieces[2:], 2.0) if isinstance(o, Send)]
    assert list(out.frames) == pieces


def test_in_shadow_mode_what_has_gone_is_not_sent_again():
    one, two = compare(mode=Mode.SHADOW), compare(mode=Mode.SHADOW)
    assert feed(one, syn("P", 999), syn("S", 7777), P(1000, D)) == bytes_of(syn("P", 999), P(1000, D))
    moved(one, two)
    assert feed(two, S(1000, D)) == []
    assert two.counters["bytes_compared"] == 10


def test_a_flow_that_a_rule_exempts_here_is_let_out():
    one, two = compare(), compare()
    two.tell(SetRules("pass tcp\npass udp"), 0.0)
    feed(one, syn("P", 999), syn("S", 7777), P(1000, D), udp("P", b"x"), udp("S", b"y"))
    data = flow_state.pack(one.table, lambda _key: True, 2.0)
    flow_state.unpack(two.table, data, 2.0)
    assert two.counters["released.rule"] == two.counters["taken_over"] == 2
    assert two.gauges()["held"] == two.gauges()["held_secondary"] == 0


def test_only_the_chosen_go():
    one = compare()
    feed(one, P(1000, D, dport=1), P(1000, D, dport=2), udp("P", b"x"))
    stays = [key for key in one.table.flows if key[:1] == b"\x11"]
    flow_state.pack(one.table, lambda key: key[:1] == b"\x06", 2.0)
    assert list(one.table.flows) == stays
    assert one.gauges()["held"] == 1


@pytest.mark.parametrize("data", [b"", b"\xc1", msgpack.packb(5), msgpack.packb([]), msgpack.packb([[], [[]]])])
def test_what_is_no_flow_state_is_refused(data):
    with pytest.raises(WireError):
        flow_state.unpack(compare().table, data, 1.0)


def test_a_flow_that_cannot_be_read_does_not_hurt_the_others():
    one, two = compare(), compare()
    feed(one, syn("P", 999), syn("S", 7777), P(1000, D), udp("P", b"x"))
    flows, pieces = msgpack.unpackb(flow_state.pack(one.table, lambda _key: True, 2.0), strict_map_key=False)
    stream = next(flow for flow in flows if flow["kind"] == "tcp")
    wrong = [
        {}, {"kind": "tcp"}, {"kind": "datagrams", "key": b"k"}, stream | {"data": [1]}, stream | {"segments": [(1,)]},
        stream | {"first": 3}, stream | {"p_syn": [1, 2, 3, 4, 5]}, stream | {"committed": "x"},
        stream | {"committed": None}, stream | {"p_ack": True}, stream | {"s_rst": 1}, stream | {"advanced_at": None},
        stream | {"isn": 1.5},
    ]  # fmt: skip
    flow_state.unpack(two.table, msgpack.packb([[*wrong, *flows], pieces]), 2.0)
    assert two.counters["flows_taken_over"] == 2
    assert two.counters["handovers_malformed"] == len(wrong)
    assert feed(two, S(1000, D), udp("S", b"x")) == bytes_of(P(1000, D), udp("P", b"x"))


def test_every_field_of_a_stream_goes_along_or_has_a_way_of_its_own():
    apart = {
        "clamped", "counted", "data", "key", "ledger", "mark", "next_syn", "p_syn", "ref", "resets", "rivals", "rule",
        "s_syn", "shadow", "touched", "waiting", "wanted",
    }  # fmt: skip
    every = {name for kind in Connection.__mro__ for name in getattr(kind, "__slots__", ())}
    assert set(flow_state.FIELDS) == every - apart


def test_flows_of_every_kind_move_with_what_they_hold():
    """Also those that are kinds of another: compiled, `isinstance` denies them (`Flow.kept`)."""
    ends = "10.0.0.2", "10.0.0.9"
    asked = craft.udp(ends[1], ends[0], 6000, 9, b"a")
    error = craft.icmp_error(*ends, asked, code=3)
    one, two = compare(), compare()
    for core in (one, two):
        core.tell(SetRules("shadow tcp\nshadow udp"), 0.5)
    assert one.receive("secondary_in", [error, udp("S", b"x").data, S(1000, D).data], 1.0) == []
    assert one.gauges()["held_secondary"] == 3
    moved(one, two)
    assert one.counters["flows_handed_over"] == two.counters["flows_taken_over"] == 3
    assert two.gauges()["held_secondary"] == one.counters["secondary_handed_over"] == 3
    assert {type(flow).__name__ for flow in two.table.flows.values()} == {"ErrorFlow", "DatagramFlow", "TcpFlow"}
    (sent,) = (output for output in two.receive("primary_in", [error], 3.0) if isinstance(output, Send))
    assert sent.frames == [error]
    assert two.gauges()["held_secondary"] == 2
