"""The redirector: which way each frame goes, and to which worker."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import craft
from colo_proto.core import Send, Way
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
    """Which worker gets a flow is decided by the link (`test_splitlink.py`): the core sends to the port alone."""

    @pytest.mark.parametrize("endpoints", [{"netdev": TAP, "outdev": SPLIT}, {"indev": IN, "outdev": SPLIT}])
    def test_a_split_output_is_one_output(self, endpoints):
        core = make(**endpoints)
        port = "netdev" if "netdev" in endpoints else "indev"
        flows = [craft.udp(A, B, 53, number, b"x") for number in range(40)]
        assert core.receive(port, flows, 0.0) == [Send("outdev", flows)]
        assert (core.gauges(), core.status()) == ({}, {})

    def test_into_the_chain_nothing_goes_out(self):
        core = make(netdev=TAP, indev=IN, outdev=SPLIT)
        assert core.receive("indev", frames(0, 3), 0.0) == [Send("netdev", frames(0, 3))]

    @pytest.mark.parametrize(
        "message",
        [SetMode("bypass"), CheckpointDone(1, state_copied=True), Drain(), WorkerTable(1, ["comp0"], [0] * SLOTS)],
    )
    def test_other_messages_mean_nothing(self, message):
        for core in (make(netdev=TAP, outdev=SPLIT), make(netdev=TAP, outdev=OUT)):
            assert core.tell(message, 0.0) == []

    @given(st.lists(st.binary(min_size=24, max_size=90), max_size=30))
    @settings(deadline=None)
    def test_counters_add_up_for_any_bytes(self, batch):
        core = make(netdev=TAP, outdev=SPLIT)
        out = core.receive("netdev", batch, 1.0)
        assert sum(len(send.frames) for send in out) == core.counters["frames.netdev"] == len(batch)
