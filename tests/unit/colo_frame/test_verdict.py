"""The verdict in states that were made on purpose: what both hosts say, its exit status, its metric, and the alert.

Each state is followed by the death of the primary's host: a pair that is called protected or degraded survives it, and
a secondary of one that is called unprotected does not take over by itself.
"""

import re
from pathlib import Path

import pytest

from colo_cli.pairview import exit_status
from colo_frame.transitions import WRITING
from colo_frame.verdict import (
    DEGRADED,
    NUMBERS,
    PROTECTED,
    UNPROTECTED,
    Other,
    View,
    Why,
    judge,
)
from colo_proto.claim import State
from colo_proto.messages import Mode, Reason
from whole_pair import Pair, whole

AUTO = {"secondary": {"failover": "auto"}}
FAITHFUL, LEAN = "faithful", "lean"


def dead(*names):
    return lambda pair: pair.kill(*names)


def frozen(name):
    def freeze(pair):
        pair.processes[name].frozen = True

    return freeze


def cut(*names):
    return lambda pair: pair.cut.update(names)


def without_tap(name, port):
    return lambda pair: pair.no_tap.add((name, port))


def deaf(guest):
    def silence(pair):
        pair.traffic = True
        pair.run(3.0)
        pair.deaf.add(guest)

    return silence


def mode(wanted):
    return lambda pair: pair.ask("primary", "mode", mode=wanted)


def diverged(unprotected, flows, ended=0):
    return lambda pair: pair.checkpoint(Reason.PAYLOAD, unprotected, flows, ended)


def given_up(pair):
    """The secondary's host was away, and the primary's frame waits for an order to compare again."""
    pair.cut.add("peer")
    pair.until(lambda: pair.state("primary") == State.ALONE)
    pair.cut.clear()
    pair.until(lambda: pair.state("primary") == State.HOLDING)


def failed_over(pair):
    assert pair.ask("secondary", "failover").ok
    pair.until(lambda: (pair.state("primary"), pair.state("secondary")) == (State.FENCED, State.PROMOTED))


def promoted_alone(pair):
    pair.kill("primary")
    pair.until(lambda: pair.state("secondary") == State.PROMOTED)


def both_ways(pair):
    """A planned failover, and then the link is cut."""
    failed_over(pair)
    pair.cut.add("peer")


def nothing(_pair):
    pass


STATES = {
    # name: (wiring, what is done, seconds, level, reason at the primary, at the secondary, part of the text)
    "whole": (FAITHFUL, nothing, 1, PROTECTED, "", "", "protected"),
    "whole, lean": (LEAN, nothing, 1, PROTECTED, "", "", "protected"),
    "f1 dead": (FAITHFUL, dead("f1"), 1.1, UNPROTECTED, Why.PROCESS, Why.PROCESS, "f1 silent"),
    "f2 dead": (FAITHFUL, dead("f2"), 1.1, UNPROTECTED, Why.PROCESS, Why.PROCESS, "f2 silent"),
    "rew0 dead": (FAITHFUL, dead("rew0"), 1.1, UNPROTECTED, Why.PROCESS, Why.PROCESS, "rew0 silent"),
    "rew0 dead, lean": (LEAN, dead("rew0"), 1.1, UNPROTECTED, Why.PROCESS, Why.PROCESS, "rew0 silent"),
    "rew0 stands still": (FAITHFUL, frozen("rew0"), 6.5, UNPROTECTED, Why.PROCESS, Why.PROCESS, "rew0 silent"),
    "m0 dead": (FAITHFUL, dead("m0"), 1.1, DEGRADED, Why.PROCESS, Why.PROCESS, "m0 silent"),
    "redire1 dead": (FAITHFUL, dead("redire1"), 1.1, DEGRADED, Why.PROCESS, Why.PROCESS, "redire1 silent"),
    "comp0 dead": (FAITHFUL, dead("comp0"), 1.1, DEGRADED, Why.PROCESS, Why.PROCESS, "comp0 silent"),
    "redire0 dead": (FAITHFUL, dead("redire0"), 1.1, DEGRADED, Why.PROCESS, Why.PROCESS, "redire0 silent"),
    "netdev-p dead": (FAITHFUL, dead("netdev-p"), 6.5, DEGRADED, Why.NETDEV, Why.NETDEV, "netdev-p silent"),
    "netdev-s dead": (FAITHFUL, dead("netdev-s"), 6.5, DEGRADED, Why.NETDEV, Why.NETDEV, "netdev-s silent"),
    "mirror0 cut": (FAITHFUL, cut("mirror0"), 2, UNPROTECTED, Why.LINK, Why.LINK, "m0 (outdev)"),
    "red0 cut": (FAITHFUL, cut("red0"), 2, UNPROTECTED, Why.LINK, Why.LINK, "f1 (netdev)"),
    "red1 cut": (FAITHFUL, cut("red1"), 2, UNPROTECTED, Why.LINK, Why.LINK, "rew0 (outdev)"),
    "compare1 cut": (FAITHFUL, cut("compare1"), 2, UNPROTECTED, Why.LINK, Why.LINK, "comp0 (secondary_in)"),
    "compare0 cut": (FAITHFUL, cut("compare0"), 2, DEGRADED, Why.LINK, Why.LINK, "redire1 (outdev)"),
    "compare_out cut": (FAITHFUL, cut("compare_out"), 2, DEGRADED, Why.LINK, Why.LINK, "redire0 (indev)"),
    "mirror0 cut, lean": (LEAN, cut("mirror0"), 2, UNPROTECTED, Why.LINK, Why.LINK, "m0 (outdev)"),
    "the link cut": (FAITHFUL, cut("peer"), 4, UNPROTECTED, Why.NO_SECONDARY, Why.NO_PRIMARY, "unprotected"),
    "the LAN cut": (FAITHFUL, cut("lan"), 4, PROTECTED, "", "", "protected"),
    "the secondary's LAN heartbeat": (FAITHFUL, cut("lan-s"), 4, DEGRADED, Why.LAN, Why.LAN, "LAN heartbeat"),
    "no tap": (FAITHFUL, without_tap("rew0", "netdev"), 2, UNPROTECTED, Why.TAP, Why.TAP, "rew0 (netdev) has no tap"),
    "guest-s deaf": (FAITHFUL, deaf("guest-s"), 6, UNPROTECTED, Why.GUEST, Why.GUEST, "guest-s answers nothing"),
    "guest-p deaf": (LEAN, deaf("guest-p"), 6, DEGRADED, Why.GUEST, Why.GUEST, "guest-p answers nothing"),
    "mode shadow": (FAITHFUL, mode(Mode.SHADOW), 1, UNPROTECTED, Why.MODE, Why.MODE, "mode shadow"),
    "mode bypass": (FAITHFUL, mode(Mode.BYPASS), 1, UNPROTECTED, Why.MODE, Why.MODE, "mode bypass"),
    "3 of 40": (
        FAITHFUL,
        diverged(3, 40),
        2,
        DEGRADED,
        Why.FLOWS,
        Why.FLOWS,
        "3 of 40 connections unprotected, payload",
    ),
    "all of them": (FAITHFUL, diverged(40, 40), 2, UNPROTECTED, Why.FLOWS, Why.FLOWS, "40 of 40 connections"),
    "all of them, which have ended": (FAITHFUL, diverged(46, 46, 46), 3, PROTECTED, "", "", "protected"),
    "one that is open": (FAITHFUL, diverged(3, 40, 2), 2, DEGRADED, Why.FLOWS, Why.FLOWS, "1 of 38 connections"),
    "resync needed": (
        FAITHFUL,
        given_up,
        2,
        UNPROTECTED,
        Why.RESYNC_NEEDED,
        Why.RESYNC_NEEDED,
        "colo resync is needed",
    ),
    "the secondary's host dead": (FAITHFUL, dead("secondary"), 4, UNPROTECTED, Why.NO_SECONDARY, None, "no secondary"),
    "promoted": (FAITHFUL, promoted_alone, 1, UNPROTECTED, None, Why.NO_SECONDARY, "no secondary"),
    "failed over": (FAITHFUL, failed_over, 1, UNPROTECTED, Why.FENCED, Why.FENCED, "the primary is fenced"),
    "fenced, not heard": (FAITHFUL, both_ways, 4, UNPROTECTED, Why.FENCED, Why.FENCED, "the primary is fenced"),
}
PAST = {"the secondary's host dead", "promoted", "failed over", "fenced, not heard"}
"""States in which there is nobody to take over from the primary."""


@pytest.mark.parametrize("name", STATES)
def test_a_state(name):
    wiring, act, seconds, level, *reasons, text = STATES[name]
    pair = whole(wiring, **AUTO)
    act(pair)
    pair.run(seconds)
    for side, reason in zip(("primary", "secondary"), reasons, strict=True):
        if reason is None:
            assert side in pair.dead
            continue
        body = pair.body(side)
        found = body["verdict"]
        assert found["level"] == level, (side, found)
        assert text in found["text"], (side, found)
        assert (found["causes"][0]["reason"] if reason else found["causes"]) == (reason or []), (side, found)
        assert exit_status(body) == NUMBERS[level] == found["number"]
        gauges = pair.frames[side].gauges()
        assert gauges["verdict"] == NUMBERS[level]
        assert bool(gauges.get(f"verdict_causes.{reason}")) == bool(reason)
        assert alerts(gauges["verdict"]) == ALERTS[level]
        assert found["lan"] == lan(pair)
    if name not in PAST:
        prove(pair, survives=level != UNPROTECTED, ordered=name == "the secondary's LAN heartbeat")


def lan(pair):
    """On which side the client LAN is, from who could write."""
    states = {side: pair.state(side) for side in pair.frames if side not in pair.dead}
    (writes,) = [side for side, state in states.items() if state in WRITING]
    return writes


def prove(pair, *, survives, ordered):
    """The primary's host dies. `ordered`: the secondary cannot know that, and needs an order."""
    refused = "" if survives else pair.ask("secondary", "failover").error
    assert ("no replica" in refused) != survives
    pair.kill("primary")
    if ordered:
        assert pair.ask("secondary", "failover", force=True).ok
    pair.run(8.0)
    assert (pair.state("secondary") == State.PROMOTED) == survives


RULES = Path(__file__).parents[3] / "compose" / "observability" / "alerts.yml"
ALERTS = {PROTECTED: set(), DEGRADED: {"ColoDegraded"}, UNPROTECTED: {"ColoUnprotected"}}


def alerts(value):
    """The alerts that fire when the gauge has this value."""
    found = re.findall(r"- alert: (\w+)\n +expr: colo_frame_verdict == (\d)\n", RULES.read_text())
    assert len(found) == 2
    return {name for name, number in found if int(number) == value}


MANUAL = Path(__file__).parents[3] / "services" / "colo_frame" / "README.md"


def test_every_cause_is_in_the_manual_page():
    page = MANUAL.read_text().partition("## The verdict")[2].partition("\n## ")[0]
    rows = "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    words = {value for name, value in vars(Why).items() if name.isupper()}
    assert set(re.findall(r"`(\w+)`", rows)) == words | set(NUMBERS)


# -- a secondary that is none ---------------------------------------------------------------------

BROKEN = [
    "f1 dead",
    "f2 dead",
    "rew0 dead",
    "rew0 dead, lean",
    "red0 cut",
    "red1 cut",
    "mirror0 cut",
    "compare1 cut",
    "no tap",
]


def mended(pair):
    pair.cut.clear()
    pair.no_tap.clear()
    for one in pair.processes.values():
        if one.dead:
            pair.start(one.id)


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("resync", ["auto", "manual"])
def test_a_primary_does_not_wait_for_it(name, resync):
    wiring, act, *_ = STATES[name]
    pair = whole(wiring, primary={"resync": resync})
    act(pair)
    took = pair.until(lambda: pair.body("primary")["mode"] == Mode.BYPASS)
    # The timeout, and a report and two heartbeats until it was heard. A link has a report more to be whole again.
    least = 2.5 + (1.5 if name.endswith(("cut", "tap")) else 0.0)
    assert least <= took <= least + 2.1
    assert pair.state("primary") == State.HOLDING
    assert "secondary.given_up" in [one.event for one in pair.logs["primary"]]
    pair.run(20.0)
    assert pair.body("primary")["mode"] == Mode.BYPASS
    assert pair.body("primary")["verdict"]["causes"][0]["reason"] in (Why.PROCESS, Why.LINK, Why.TAP)
    mended(pair)
    if resync == "manual":
        pair.until(lambda: pair.body("secondary")["verdict"]["causes"][0]["reason"] == Why.RESYNC_NEEDED)
        pair.run(5.0)
        assert pair.body("primary")["mode"] == Mode.BYPASS
        assert pair.ask("primary", "resync").ok
    assert pair.until(pair.protected) < 5.0
    assert pair.body("primary")["mode"] == Mode.ENFORCE
    prove_planned(pair)


def test_an_order_to_bring_it_back_waits_until_it_is_whole():
    pair = whole()
    pair.kill("rew0")
    pair.until(lambda: pair.body("primary")["mode"] == Mode.BYPASS)
    assert pair.ask("primary", "resync").ok
    pair.run(10.0)
    assert pair.body("primary")["mode"] == Mode.BYPASS
    pair.start("rew0")
    assert pair.until(pair.protected) < 5.0
    pair.kill("rew0")
    pair.until(lambda: pair.body("primary")["mode"] == Mode.BYPASS)
    pair.start("rew0")
    pair.run(10.0)
    assert pair.body("primary")["mode"] == Mode.BYPASS, "the order was for the break before"


def test_a_fenced_primary_says_so_when_it_is_told_to_compare_again():
    pair = whole()
    failed_over(pair)
    assert "fenced" in pair.ask("primary", "resync").error


def prove_planned(pair):
    assert pair.ask("secondary", "failover").ok
    pair.until(lambda: pair.state("secondary") == State.PROMOTED)


def test_a_filter_that_is_back_in_time_changes_no_mode():
    pair = whole()
    pair.kill("rew0")
    pair.run(2.0)
    assert pair.body("primary")["verdict"]["level"] == UNPROTECTED
    pair.start("rew0")
    pair.until(pair.protected)
    assert "mode.set" not in [one.event for one in pair.logs["primary"]]


def test_with_hold_nothing_is_released():
    pair = whole(primary={"on_loss": "hold"})
    pair.kill("rew0")
    pair.run(20.0)
    assert pair.body("primary")["mode"] == Mode.ENFORCE
    assert pair.body("primary")["verdict"]["level"] == UNPROTECTED


def test_a_secondary_that_is_starting_is_waited_for():
    pair = Pair()
    pair.kill("rew0")
    pair.run(30.0)
    assert pair.body("primary")["mode"] == Mode.ENFORCE
    assert pair.body("primary")["verdict"]["causes"][0]["reason"] == Why.PROCESS
    pair.start("rew0")
    pair.until(pair.protected)


def test_a_guest_that_is_deaf_for_long_is_given_up_and_taken_back_when_it_speaks():
    pair = whole(primary={"resync": "auto"})
    deaf("guest-s")(pair)
    pair.run(6.0)
    assert pair.body("primary")["verdict"]["causes"][0]["reason"] == Why.GUEST
    assert pair.body("primary")["mode"] == Mode.ENFORCE, "that may be an overload"
    pair.until(lambda: pair.body("primary")["mode"] == Mode.BYPASS, 10.0)
    pair.run(10.0)
    assert pair.body("primary")["mode"] == Mode.BYPASS
    pair.deaf.clear()
    assert pair.until(pair.protected) < 6.0


def test_guests_that_both_say_nothing_are_not_deaf():
    pair = whole()
    pair.traffic = True
    pair.run(3.0)
    pair.deaf.update({"guest-p", "guest-s"})
    pair.run(30.0)
    assert pair.protected()


def test_a_secondary_knows_at_once_that_its_own_chain_is_broken():
    """Both die in the same moment: the primary could not say that any more."""
    pair = whole(**AUTO)
    pair.kill("rew0", "primary")
    pair.run(20.0)
    assert pair.state("secondary") == State.STANDBY
    assert "rew0 silent" in pair.ask("secondary", "failover").error
    pair.start("rew0")
    pair.until(lambda: pair.state("secondary") == State.PROMOTED)


def test_an_operator_can_order_it_all_the_same():
    pair = whole()
    pair.kill("f1")
    pair.run(1.1)
    assert not pair.ask("secondary", "failover").ok
    assert pair.ask("secondary", "failover", force=True).ok
    pair.until(lambda: pair.state("secondary") == State.PROMOTED)


def test_two_frames_of_one_side_are_no_pair():
    pair = whole()
    beat = pair.body("secondary")["peer"]
    assert beat["role"] == "primary"
    view = View(primary=True, state=State.HOLDING, other=Other(alive=True, heard=0.0, conflict=True))
    assert judge(view).causes[0].reason == Why.CONFLICT


def test_both_hosts_say_which_checkpoint_and_which_failover_was_the_last():
    pair = whole()
    pair.checkpoint(Reason.PAYLOAD, 3, 40)
    pair.run(2.0)
    last = pair.body("primary")["checkpoint"]["last"]
    assert (last["epoch"], last["reason"]) == (1, "payload")
    assert pair.body("secondary")["peer"]["peer_checkpoint"]["reason"] == "payload"
    assert pair.body("secondary")["peer"]["peer_flows"]["unprotected"] == 3
    failed_over(pair)
    for side in pair.frames:
        assert pair.body(side)["leadership"]["takeover"]["side"] == "secondary"
