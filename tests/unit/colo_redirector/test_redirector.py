"""The redirector: which way each frame goes, and to which worker."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.core import Log, Send, Way
from colo_proto.messages import CheckpointDone, Drain, SetMode, WorkerTable
from colo_proto.net.flow import SLOTS
from colo_redirector.config import RedirectorConfig
from colo_redirector.redirector import Redirector
from runtime_helpers import frames

IN, OUT, TAP = "ipc:///run/in", "ipc:///run/out", "tap://guest"
SPLIT = OUT + "?server=on&split=on"
A, B = "10.0.0.1", "10.0.0.2"


def make(**endpoints):
    return Redirector(RedirectorConfig(**endpoints))


def table(version, *workers):
    return WorkerTable(version, list(workers), [n % len(workers) for n in range(SLOTS)])


def ways(core):
    return {port.name: port.way for port in core.ports}


class TestDirections:
    def test_out_of_the_chain(self):
        core = make(netdev=TAP, outdev=OUT)
        assert core.receive("netdev", frames(0, 3), 0.0) == [Send("outdev", frames(0, 3))]
        assert ways(core)["netdev"] is Way.IN

    def test_into_the_chain(self):
        core = make(netdev=TAP, indev=IN)
        assert core.receive("indev", frames(0, 3), 0.0) == [Send("netdev", frames(0, 3))]
        # The tap may be another's to read.
        assert ways(core)["netdev"] is Way.OUT

    def test_both(self):
        core = make(netdev=TAP, indev=IN, outdev=OUT)
        assert core.receive("indev", frames(0, 1), 0.0) == [Send("netdev", frames(0, 1))]
        assert core.receive("netdev", frames(1, 1), 0.0) == [Send("outdev", frames(1, 1))]
        assert ways(core)["netdev"] is Way.BOTH

    def test_a_relay(self):
        core = make(indev=IN, outdev=OUT)
        assert core.receive("indev", frames(0, 3), 0.0) == [Send("outdev", frames(0, 3))]

    def test_frames_are_counted_by_port(self):
        core = make(netdev=TAP, indev=IN, outdev=OUT)
        core.receive("indev", frames(0, 2), 0.0)
        core.receive("netdev", frames(0, 5), 1.0)
        core.receive("netdev", frames(5, 1), 2.0)
        assert core.counters == {"frames.indev": 2, "frames.netdev": 6}

    def test_it_holds_nothing(self):
        core = make(netdev=TAP, indev=IN)
        core.receive("indev", frames(0, 2), 0.0)
        assert core.deadline() is None
        assert core.on_timer(1e9) == core.drain(1e9) == []
        assert (core.gauges(), core.status()) == ({}, {})


class TestSharing:
    def flows(self, count=40):
        return [craft.udp(A, B, 53, port, b"x") for port in range(count)]

    def test_without_a_table_frames_are_dropped_by_reason(self):
        core = make(netdev=TAP, outdev=SPLIT)
        assert core.receive("netdev", self.flows(), 0.0) == []
        assert core.counters["dropped.no_table"] == 40
        assert core.gauges() == {"table_version": -1}

    def test_by_flow(self):
        core = make(netdev=TAP, outdev=SPLIT)
        (log,) = core.tell(table(1, "comp0", "comp1"), 0.0)
        assert log == Log("info", "table.changed", {"version": 1, "workers": ["comp0", "comp1"]})
        out = core.receive("netdev", self.flows(), 1.0)
        assert {send.to for send in out} == {"comp0", "comp1"}
        assert all(send.port == "outdev" for send in out)
        assert sorted(f for send in out for f in send.frames) == sorted(self.flows())
        answers = [craft.udp(B, A, port, 53, b"y") for port in range(40)]
        to = {f: send.to for send in out for f in send.frames}
        back = {f: send.to for send in core.receive("netdev", answers, 2.0) for f in send.frames}
        assert [to[f] for f in self.flows()] == [back[f] for f in answers]
        assert (core.gauges(), core.status()) == ({"table_version": 1}, {"workers": ["comp0", "comp1"]})

    def test_a_newer_table_moves_flows_and_an_older_one_is_ignored(self):
        core = make(netdev=TAP, outdev=SPLIT)
        core.tell(table(5, "comp0", "comp1"), 0.0)
        assert core.tell(table(4, "comp9"), 1.0) == core.tell(table(5, "comp9"), 1.0) == []
        assert core.tell(table(6, "comp1"), 2.0)
        assert {send.to for send in core.receive("netdev", self.flows(), 3.0)} == {"comp1"}
        assert core.counters["tables"] == 2

    def test_a_broken_table_is_ignored(self):
        core = make(netdev=TAP, outdev=SPLIT)
        core.tell(table(1, "comp0"), 0.0)
        assert core.tell(WorkerTable(2, ["a"], [0]), 1.0) == core.tell(WorkerTable(2, ["a"], [7] * SLOTS), 1.0) == []
        assert {send.to for send in core.receive("netdev", self.flows(), 2.0)} == {"comp0"}

    def test_into_the_chain_nothing_is_shared_out(self):
        core = make(netdev=TAP, indev=IN, outdev=SPLIT)
        assert core.receive("indev", self.flows(), 0.0) == [Send("netdev", self.flows())]

    def test_a_relay_may_share_out(self):
        core = make(indev=IN, outdev=SPLIT)
        core.tell(table(1, "comp0", "comp1"), 0.0)
        assert {send.to for send in core.receive("indev", self.flows(), 1.0)} == {"comp0", "comp1"}

    @pytest.mark.parametrize("message", [SetMode("bypass"), CheckpointDone(1, state_copied=True), Drain()])
    def test_other_messages_mean_nothing(self, message):
        for core in (make(netdev=TAP, outdev=SPLIT), make(netdev=TAP, outdev=OUT)):
            assert core.tell(message, 0.0) == []
        assert make(netdev=TAP, outdev=OUT).tell(table(1, "comp0"), 0.0) == []

    @given(st.lists(st.binary(min_size=24, max_size=90), max_size=30), st.integers(1, 5))
    @settings(deadline=None)
    def test_counters_add_up_for_any_bytes(self, batch, workers):
        core = make(netdev=TAP, outdev=SPLIT)
        core.tell(table(1, *(f"comp{n}" for n in range(workers))), 0.0)
        out = core.receive("netdev", batch, 1.0)
        assert sum(len(send.frames) for send in out) == core.counters["frames.netdev"] == len(batch)
