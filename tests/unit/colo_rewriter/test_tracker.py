"""What each segment teaches, where a script is not enough; the scripts are in tests/scenarios/rewriter."""

import pytest

from colo_rewriter.config import RewriterConfig
from colo_rewriter.flow import State
from rewriting import Play, Seg

OPENED = """
    client S 100
    guest SA 1500 101
    client A 101 1001 -> ack 1501
"""
STAMPED = """
    client S 100 ts 5:0
    guest SA 1500 101 ts 9000:5
    client A 101 1001 ts 6:7000 -> ack 1501 ts 6:9000
"""


@pytest.mark.parametrize("form", ["v4", "v6", "v4-gso"])
def test_large_frames_stay_whole(form):
    play = Play(form)
    play.run(OPENED)
    play.run("guest PA 1501 101 +60000 -> seq 1001\n client PA 101 1001 +60000 -> ack 1501")


@pytest.mark.parametrize(
    ("script", "state"),
    [
        ("client S 100", State.HALF),
        (OPENED, State.OPEN),
        (OPENED + "client FA 101 1001 -> ack 1501", State.CLOSING),
        (
            OPENED + "client FA 101 1001 -> ack 1501\n guest FA 1501 102 -> seq 1001\n client A 102 1002 -> ack 1502",
            State.CLOSED,
        ),
        (
            OPENED
            + """
            client FA 101 1001 -> ack 1501
            guest A 1501 102 -> seq 1001
            guest PA 1501 102 +6 -> seq 1001
            guest FA 1507 102 -> seq 1007
            client A 102 1008 -> ack 1508
            """,
            State.CLOSED,
        ),
        (
            OPENED
            + """
            guest FA 1501 101 -> seq 1001
            client A 101 1002 -> ack 1502
            client FA 101 1002 -> ack 1502
            guest A 1502 102 -> seq 1002
            """,
            State.CLOSED,
        ),
        (
            OPENED
            + """
            guest FA 1501 101 -> seq 1001
            client FA 101 1001 -> ack 1501
            guest A 1502 102 -> seq 1002
            client A 102 1002 -> ack 1502
            """,
            State.CLOSED,
        ),
        (OPENED + "guest RA 1501 101 -> seq 1001", State.CLOSED),
        (OPENED + "client R 101", State.CLOSED),
    ],
)
def test_states(script, state):
    assert Play().run(script).flow.state is state


def test_a_fin_on_top_of_data_is_acknowledged_as_such():
    play = Play().run(OPENED)
    play.run("guest PFA 1501 101 +10 -> seq 1001\n client A 101 1011 -> ack 1511\n client FA 101 1011 -> ack 1511")
    play.run("guest A 1512 102 -> seq 1012")
    assert play.flow.state is State.CLOSING, "the guest's FIN is not acknowledged yet"
    play.run("client A 102 1012 -> ack 1512")
    assert play.flow.state is State.CLOSED


def test_the_close_works_across_the_wrap():
    play = Play().run(
        """
        client S 4294967200
        guest SA 100 4294967201
        client A 4294967201 4294967290 -> ack 101
        guest FA 101 4294967201 -> seq 4294967290
        client FA 4294967201 4294967291 -> ack 102
        guest A 102 4294967202 -> seq 4294967291
        """
    )
    assert play.flow.state is State.CLOSED


def test_a_wrong_checksum_stays_wrong_and_equal_numbers_change_nothing():
    bad = Seg("c", 16, 101, 1001, spoil=0x1234)
    play = Play().run("client S 100\n guest SA 1000 101\n client A 101 1001")
    play.send(bad.frame(), "indev")
    assert play.to_guest == [bad.frame()]
    play = Play().run(OPENED)
    play.send(bad.frame(), "indev")
    assert play.to_guest == [Seg("c", 16, 101, 1501, spoil=0x1234).frame()]


def test_options_at_odd_offsets():
    """NOP, then timestamps: its fields straddle the 16-bit words of the checksum."""
    play = Play().run(STAMPED)
    odd = Seg("c", 16, 101, 1001, ts=(0x01020304, 7777), extra=b"\x01")
    play.send(odd.frame(), "indev")
    assert play.to_guest == [Seg("c", 16, 101, 1501, ts=(0x01020304, 9777), extra=b"\x01").frame()]
    odd = Seg("g", 16, 1501, 101, ts=(9777, 6), extra=b"\x01")
    play.send(odd.frame(), "netdev")
    assert play.to_client == [Seg("g", 16, 1001, 101, ts=(7777, 6), extra=b"\x01").frame()]


def test_an_option_without_an_end_is_left_alone():
    play = Play().run(STAMPED)
    cut = Seg("c", 16, 101, 1001, extra=b"\x08\x0b\x00\x00")
    play.send(cut.frame(), "indev")
    assert play.to_guest == [Seg("c", 16, 101, 1501, extra=b"\x08\x0b\x00\x00").frame()]


def test_timestamps_of_a_survivor_never_fall_behind_what_the_client_has_echoed():
    """The hosts' clocks drifted apart: without this, PAWS would drop all that the survivor sends."""
    play = Play().run(STAMPED)
    play.run("client A 101 1001 ts 7:8000 -> ack 1501 ts 7:10000")
    play.run("guest A 1501 101 ts 9400:7 -> seq 1001 ts 7400:7")
    play.run("promote")
    play.run("guest A 1501 101 ts 9500:7 -> seq 1001 ts 8000:7")
    play.run("guest A 1501 101 ts 9600:7 -> seq 1001 ts 8100:7")
    play.run("client A 101 1001 ts 8:8100 -> ack 1501 ts 8:9600")


def test_the_floor_holds_for_unusual_option_layouts_too():
    play = Play().run(STAMPED)
    play.send(Seg("c", 16, 101, 1001, ts=(7, 8000), extra=b"\x01").frame(), "indev")
    assert play.to_guest == [Seg("c", 16, 101, 1501, ts=(7, 10000), extra=b"\x01").frame()]
    play.control("promote")
    play.send(Seg("g", 16, 1501, 101, ts=(9500, 7), extra=b"\x01").frame(), "netdev")
    assert play.to_client == [Seg("g", 16, 1001, 101, ts=(8000, 7), extra=b"\x01").frame()]


def test_early_frames_are_bounded_per_flow_and_leave_in_order():
    play = Play(config=RewriterConfig(hold_frames=3))
    play.run("client S 100\n client A 101 1001 -> held\n client PA 101 1001 +1 -> held\n client PA 102 1001 +1 -> held")
    play.send(Seg("c", 24, 103, 1001, 1).frame(), "indev")
    play.run(
        "out client A 101 1001\n out client PA 101 1001 +1\n out client PA 102 1001 +1\n out client PA 103 1001 +1"
    )
    play.run("client PA 104 1001 +1")
    assert play.core.counters["hold_overflows"] == 1
    assert play.core.counters["held_early"] == 3
    assert play.core.counters["held_passed"] == 3


def test_hold_frames_zero_passes_at_once_and_still_learns():
    play = Play(config=RewriterConfig(hold_frames=0))
    play.run("client S 100\n client A 101 1001\n guest SA 1500 101 -> seq 1000\n client PA 101 1001 +1 -> ack 1501")


def test_drain_lets_held_frames_go():
    play = Play().run("client S 100\n client A 101 1001 -> held\n drain\n out client A 101 1001")
    assert play.core.gauges()["held"] == 0


def test_frames_of_an_evicted_or_expired_flow_are_not_lost():
    play = Play(config=RewriterConfig(max_flows=1))
    play.run("client S 100\n client A 101 1001 -> held")
    other = Seg("c", 2, 7, ports=(6000, 80))
    play.send(other.frame(), "indev")
    assert play.to_guest == [Seg("c", 16, 101, 1001).frame(), other.frame()]
    assert play.core.counters["flows_evicted"] == 1


def test_a_successors_early_frames_are_not_lost_either():
    play = Play().run(OPENED + "client S 900000\n client A 900001 2001 -> held")
    play.run("at 1s\n out client A 900001 2001")
    play = Play().run(
        OPENED + "client S 900000\n client A 900001 2001 -> held\n checkpoint copied\n out client A 900001 2001"
    )
    play = Play(config=RewriterConfig(max_flows=1)).run(OPENED + "client S 900000\n client A 900001 2001 -> held")
    play.send(Seg("c", 2, 7, ports=(6000, 80)).frame(), "indev")
    assert len(play.to_guest) == 2


@pytest.mark.parametrize("form", ["v4", "v6"])
def test_expiry_by_state(form):
    config = RewriterConfig(established_timeout=100, half_open_timeout=10, closed_timeout=20)
    play = Play(form, config).run("client S 100\n at 9.5s")
    assert len(play.core._table) == 1
    play.run("at 11.5s")
    assert len(play.core._table) == 0
    play = Play(form, config).run(
        OPENED + "at 95s\n client A 101 1001 -> ack 1501\n at 190s\n guest A 1501 101 -> seq 1001\n at 289s"
    )
    assert len(play.core._table) == 1
    play.run("at 291.5s\n client A 101 1001")
    assert len(play.core._table) == 0
    play = Play(form, config).run(OPENED + "client R 101\n at 19s")
    assert len(play.core._table) == 1
    play.run("at 21.5s")
    assert play.core.counters["flows_expired"] == 1
    assert play.core.deadline() is None
