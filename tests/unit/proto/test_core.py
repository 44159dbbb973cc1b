"""What every core must be, whichever it is: the shape the shell relies on, under any bytes and any message."""

import copy
from dataclasses import MISSING, fields
from typing import get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.codec import decode, encode
from colo_proto.core import Log, Save, Send, Tell, Way
from colo_proto.messages import TYPES, Heartbeat, Report, SetMode, WorkerTable
from colo_runtime.service import resolve, services

ENDPOINTS = {
    "mirror": {"netdev": "tap://lan", "next": "tap://guest", "outdev": "ipc:///o"},
    "redirector": {"netdev": "tap://guest", "indev": "ipc:///i", "outdev": "ipc:///o?server=on&split=on"},
    "rewriter": {"netdev": "tap://guest", "indev": "ipc:///i", "outdev": "ipc:///o"},
    "compare": {"primary_in": "ipc:///p", "secondary_in": "ipc:///s", "outdev": "ipc:///o"},
}
ROLES = sorted(set(services()) - {"netdev", "frame", "vote"})
each_role = pytest.mark.parametrize("role", ROLES)


def make(role):
    service = services()[role]
    return service.core_class()(resolve(service, service.table(), ENDPOINTS[role], {}).config)


def inputs(core):
    return [port.name for port in core.ports if port.way is not Way.OUT]


def looked_at(core, outputs):
    """Outputs are what the shell can carry out."""
    writable = {port.name for port in core.ports if port.way is not Way.IN}
    for one in outputs:
        assert isinstance(one, Send | Tell | Log | Save)
        if isinstance(one, Send):
            assert one.port in writable
            assert one.frames
            assert all(isinstance(frame, bytes | bytearray | memoryview) for frame in one.frames)
        elif isinstance(one, Tell):
            encode(one.message)
        elif isinstance(one, Log):
            assert one.level in ("debug", "info", "warning", "error")
            assert one.event.count(".") == 1
    return outputs


def shown(role, core):
    """Gauges and status travel in a report."""
    gauges = core.gauges()
    assert all(isinstance(name, str) and type(n) is int for name, n in gauges.items())
    encode(Report(role, "x", 1, dict(core.counters), gauges, core.status()))


GOOD = [
    craft.tcp("10.0.0.2", "10.0.0.9", 80, 5000, 1, 2, 2, options=craft.mss(1460)),
    craft.tcp("10.0.0.9", "10.0.0.2", 5000, 80, 1, 2, 18, b"x", options=craft.timestamps(1, 2), gso=1),
    craft.udp("fd00::2", "fd00::9", 53, 5000, b"x", tags=(5,)),
    craft.fragments(craft.udp("10.0.0.2", "10.0.0.9", 1, 2, bytes(3000), dont_fragment=False), 1280)[1],
    craft.icmp_error("10.0.0.2", "10.0.0.9", craft.udp("10.0.0.9", "10.0.0.2", 1, 2)),
    craft.arp_request("10.0.0.2", "10.0.0.9"),
    craft.neighbour_solicitation("fd00::2", "fd00::9"),
]


@st.composite
def frame(draw):
    """A good one, a damaged one, or anything at all."""
    if draw(st.booleans()):
        return draw(st.binary(min_size=24, max_size=100))
    one = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(0, 3))):
        one[draw(st.integers(0, len(one) - 1))] = draw(st.integers(0, 255))
    return bytes(one[: draw(st.integers(24, len(one)))])


@each_role
def test_ports(role):
    core = make(role)
    names = [port.name for port in core.ports]
    assert len(set(names)) == len(names)
    assert all(port.doc for port in core.ports)
    assert inputs(core)
    assert any(port.way is not Way.IN for port in core.ports)


@each_role
def test_a_new_core_is_at_rest(role):
    core = make(role)
    assert not any(core.counters.values())
    assert core.drain(0.0) == []
    shown(role, core)


@each_role
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_anything_may_come_in_any_order(role, data):
    core, now, counters = make(role), 0.0, {}
    for _ in range(data.draw(st.integers(1, 12))):
        now += data.draw(st.floats(0, 5))
        step = data.draw(st.sampled_from(["frames", "frames", "frames", "timer", "message"]))
        if step == "frames":
            batch = data.draw(st.lists(frame(), min_size=1, max_size=5))
            before = copy.copy(batch)
            looked_at(core, core.receive(data.draw(st.sampled_from(inputs(core))), batch, now))
            # They belong to others as well.
            assert batch == before
        elif step == "timer":
            looked_at(core, core.on_timer(now))
        else:
            message = data.draw(
                st.sampled_from(
                    [SetMode("bypass"), SetMode("nonsense"), WorkerTable(1, ["a"], [0] * 1024), WorkerTable(2, [], []),
                     Heartbeat("primary", 1, 1, 1)]
                )
            )  # fmt: skip
            looked_at(core, core.tell(message, now))
        due = core.deadline()
        assert due is None or isinstance(due, float)
        shown(role, core)
        # Counters only grow.
        assert all(core.counters[name] >= n for name, n in counters.items())
        counters = dict(core.counters)
    looked_at(core, core.drain(now))
    shown(role, core)


def example(kind):
    """Some message of a kind: its required fields, filled by their types."""
    values = {int: 1, str: "x", bool: True, bytes: b"x", float: 1.0}
    cls = TYPES[kind]
    hints = get_type_hints(cls)
    required = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    given = {name: values.get(hints[name]) if hints[name] in values else get_origin(hints[name])() for name in required}
    return decode(encode(cls(**given)))


@each_role
@pytest.mark.parametrize("kind", TYPES)
def test_every_kind_of_message_is_understood_or_ignored(role, kind):
    core = make(role)
    looked_at(core, core.tell(example(kind), 1.0))
    shown(role, core)
