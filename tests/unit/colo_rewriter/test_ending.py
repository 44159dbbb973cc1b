"""Connections that cannot be continued: what the scripts (`tests/scenarios/rewriter/ending.txt`) do not show."""

from dataclasses import replace

import pytest

from checksums import l4_checksum_ok
from colo_proto.core import Send
from colo_proto.messages import CheckpointDone, Promote, SetMode, Unprotected
from colo_proto.net.packet import dissect
from colo_proto.net.tcp import RST, segment
from colo_rewriter.backoff import REVIVE_AT
from colo_rewriter.config import RewriterConfig
from colo_rewriter.ending import AT_ONCE, FAR, MAX_SOURCES
from colo_rewriter.rewriter import Rewriter
from colo_rewriter.shift import timestamps
from packets import parse as words


def parse(text):
    side, _, rest = text.partition(" ")
    return words(rest.split(), side)


def opened(form="v4", **config):
    """A connection whose secondary's ISN is 9000 and the primary's 1000, with timestamps."""
    core = Rewriter(RewriterConfig(**config))
    for port, text in (
        ("indev", "c S 100 ts 7000:0"),
        ("netdev", "g SA 9000 101 ts 60:7000"),
        ("indev", "c A 101 1001 ts 7001:50"),
        ("netdev", "g PA 9001 101 +100 ts 90:7001"),
    ):
        core.receive(port, [parse(text).frame(form)], 1.0)
    return core


def key(core):
    (flow,) = core._table
    return b"\x06" + flow.key_guest


def frames(outputs, port):
    return [bytes(one) for out in outputs if isinstance(out, Send) and out.port == port for one in out.frames]


def read(frame):
    packet = dissect(frame)
    return packet, segment(frame, packet.l4, packet.end)


@pytest.mark.parametrize("form", ["v4", "v6", "v4-vlan", "v4-qinq"])
def test_a_probe_carries_timestamps_that_its_receiver_does_not_take_for_old_ones(form):
    core = opened(form)
    core.tell(Unprotected("comp0", 1, lost=[key(core)]), 1.0)
    core.receive("indev", [parse("c A 101 1041 ts 7050:60").frame(form)], 1.5)
    reset, probe = frames(core.tell(Promote(1), 2.0), "netdev")
    packet, seg = read(probe)
    # What the guest echoed last, and what it sent last.
    assert timestamps(probe, packet.l4, seg.data) == (7001, 90)
    assert (101 - seg.seq) & 0xFFFFFFFF == FAR
    again, probe = frames(core.on_timer(2.0 + REVIVE_AT[0]), "outdev")
    packet, seg = read(probe)
    # The client has echoed 60 of the primary's clock; 90 of the guest's is 80 of the primary's.
    assert timestamps(probe, packet.l4, seg.data) == (80, 7001)
    assert (1041 - seg.seq) & 0xFFFFFFFF == FAR
    assert read(again)[1].seq == 1041
    assert read(again)[1].flags == read(reset)[1].flags == RST
    assert all(l4_checksum_ok(frame) for frame in (reset, again, probe))


def test_versions_that_follow_each_other_are_remembered_and_a_missing_one_is_noticed():
    core = opened()
    for version, known in ((1, 1), (2, 2), (4, -1), (5, -1)):
        core.tell(Unprotected("comp0", version), 1.0)
        assert core.status()["unprotected"] == {"comp0": known}
    core.tell(Unprotected("comp0", 6, again=True), 1.0)
    core.tell(Unprotected("comp0", 7), 1.0)
    core.tell(Unprotected("frame-p", 3, everything=True), 1.0)
    assert core.status()["unprotected"] == {"comp0": 7, "frame-p": 3}


def test_sources_are_bounded():
    core = opened()
    for number in range(MAX_SOURCES + 5):
        core.tell(Unprotected(f"comp{number}", 1), 1.0)
    assert len(core.status()["unprotected"]) == MAX_SOURCES


def test_a_key_that_nobody_has_is_nothing():
    core = opened()
    core.tell(Unprotected("comp0", 1, lost=[b"\x06", b"", bytes(41)]), 1.0)
    assert core.gauges()["flows_unprotected"] == 0


def test_a_primary_that_runs_again_after_the_promotion_ends_nothing():
    """It stood still. Now its compares find that the secondary answers nothing, and checkpoints follow."""
    core = opened()
    core.tell(Unprotected("comp0", 1, doubtful=[key(core)]), 1.0)
    core.tell(Promote(1), 2.0)
    core.tell(CheckpointDone(1, state_copied=False), 2.5)
    core.tell(Unprotected("comp0", 2, lost=[key(core)]), 2.5)
    core.tell(Unprotected("frame-p", 1, everything=True), 2.5)
    (sent,) = frames(core.receive("netdev", [parse("g PA 9101 101 +9").frame("v4")], 3.0), "outdev")
    assert read(sent)[1].seq == 1101
    assert core.counters["resets_made"] == 0


def test_what_was_doubtful_stays_lost_when_it_is_said_again():
    core = opened()
    core.tell(Unprotected("comp0", 1, lost=[key(core)]), 1.0)
    core.tell(Unprotected("comp0", 2, again=True, doubtful=[key(core)]), 1.0)
    assert core.gauges()["flows_unprotected"] == 1
    core.tell(CheckpointDone(2, state_copied=False), 1.0)
    assert core.gauges()["flows_unprotected"] == 1


def test_client_frames_that_wait_are_dropped():
    core = Rewriter(RewriterConfig())
    core.tell(SetMode("shadow"), 0.0)
    for port, text in (
        ("indev", "c S 100"),
        ("netdev", "g SA 9000 101"),
        ("indev", "c A 101 1001"),
        ("indev", "c PA 101 1901 +5"),
    ):
        core.receive(port, [parse(text).frame("v4")], 1.0)
    assert core.gauges()["held"] == 1
    core.tell(Unprotected("frame-p", 1, everything=True), 1.0)
    core.tell(Promote(1), 2.0)
    assert core.gauges()["held"] == 0


def test_ten_thousand_are_told_in_portions():
    core = Rewriter(RewriterConfig())
    for number in range(2 * AT_ONCE + 1):
        for side, text in (("indev", "c S 100"), ("netdev", "g SA 9000 101"), ("indev", "c A 101 1001")):
            core.receive(side, [replace(parse(text), ports=(5000 + number, 80)).frame("v4")], 1.0)
    core.tell(Unprotected("frame-p", 1, everything=True), 1.0)
    core.tell(Promote(1), 2.0)
    sizes = []
    while (due := core.deadline()) is not None and due < 3.5:
        sizes.append(len(frames(core.on_timer(due), "outdev")))
    assert sum(sizes) == 3 * 2 * (2 * AT_ONCE + 1)
    assert max(sizes) <= 2 * AT_ONCE
