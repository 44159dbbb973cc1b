"""Rewriters hear whether they have to pace clients, even if messages are lost."""

import pytest

from colo_frame.frame import Frame
from colo_proto.messages import Heartbeat, Mode, SetMode

from .frames import PRIMARY, SECONDARY, hello, report, told


def beat(mode=Mode.ENFORCE, **body):
    return Heartbeat("primary", 7, 1, 0, 0, mode, None, body)


def secondary():
    frame = Frame(SECONDARY, incarnation=1)
    outputs = frame.hear("rew0", hello("rewriter", "rew0"), 0.0)
    assert [m.mode for m in told(outputs, SetMode, "rew0")] == [Mode.ENFORCE]
    return frame


def test_a_change_of_mode_at_the_primary_reaches_the_secondarys_rewriter():
    frame = secondary()
    outputs = frame.hear("peer", beat(Mode.SHADOW), 0.1)
    assert [m.mode for m in told(outputs, SetMode, "rew0")] == [Mode.SHADOW]
    assert told(frame.hear("peer", beat(Mode.SHADOW), 0.2), SetMode) == []
    outputs = frame.hear("peer", beat(), 0.3)
    assert [m.mode for m in told(outputs, SetMode, "rew0")] == [Mode.ENFORCE]


def test_a_rule_that_lets_flows_out_at_once_counts_like_the_mode():
    primary = Frame(PRIMARY, incarnation=1)
    primary.hear("comp0", hello(), 0.0)
    primary.hear("comp0", report(status={"rules": ["compare tcp", "shadow tcp guest-port 80"]}), 0.1)
    primary.side.beat(0.2)
    (sent,) = told(primary.side.out.take(), Heartbeat)
    assert sent.body["shadow_rules"] is True
    frame = secondary()
    outputs = frame.hear("peer", beat(shadow_rules=True), 0.1)
    assert [m.mode for m in told(outputs, SetMode, "rew0")] == [Mode.SHADOW]
    assert [m.mode for m in told(frame.hear("peer", beat(), 0.2), SetMode, "rew0")] == [Mode.ENFORCE]


@pytest.mark.parametrize("garbage", [None, "shadow", [1, ["shadow"]], {"a": 1}, [""]])
def test_rules_that_are_none_change_nothing(garbage):
    primary = Frame(PRIMARY, incarnation=1)
    primary.hear("comp0", hello(), 0.0)
    primary.hear("comp0", report(status={"rules": garbage}), 0.1)
    assert not primary.side.modes.shadow_rules


def test_a_rewriter_that_missed_it_is_told_again_when_it_reports():
    frame = secondary()
    frame.hear("peer", beat(Mode.SHADOW), 0.1)
    stale = report("rewriter", "rew0", status={"promoted": False, "paced": False})
    assert [m.mode for m in told(frame.hear("rew0", stale, 1.0), SetMode, "rew0")] == [Mode.SHADOW]
    right = report("rewriter", "rew0", status={"promoted": False, "paced": True})
    assert told(frame.hear("rew0", right, 2.0), SetMode) == []
    promoted = report("rewriter", "rew0", status={"promoted": True, "paced": False})
    assert told(frame.hear("rew0", promoted, 3.0), SetMode) == []


def test_a_rewriter_that_was_restarted_is_told():
    frame = secondary()
    frame.hear("peer", beat(Mode.SHADOW), 0.1)
    outputs = frame.hear("rew0", hello("rewriter", "rew0", incarnation=2), 1.0)
    assert [m.mode for m in told(outputs, SetMode, "rew0")] == [Mode.SHADOW]
