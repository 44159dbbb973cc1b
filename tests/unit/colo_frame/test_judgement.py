"""The judgement alone: from a view of the pair to a verdict, and its way to the other host."""

import pytest

from colo_frame.verdict import (
    DEGRADED,
    MAX_CAUSES,
    MAX_TEXT,
    PROTECTED,
    UNPROTECTED,
    Cause,
    Flows,
    Other,
    Verdict,
    View,
    Why,
    judge,
    read_causes,
    read_verdict,
    verdict,
)
from colo_proto.claim import State

THERE = Other(alive=True, heard=0.0, state=State.STANDBY, promotable=True)
LEADS = View(primary=True, state=State.HOLDING, other=THERE)


def follows(state, **more):
    return View(primary=False, state=state, other=Other(**{"alive": True, "heard": 0.0, **more}))


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (View(primary=True, state=State.ASKING, other=THERE), Why.ASKING),
        (View(primary=True, state=State.YIELDING, other=THERE), Why.FENCED),
        (View(primary=True, state=State.ALONE, other=THERE), Why.UNPROVEN),
        (View(primary=True, state=State.ALONE), Why.NO_SECONDARY),
        (View(primary=True, state=State.HOLDING, other=Other(alive=True, heard=0.0, state=State.TAKING)), Why.TAKING),
        (View(primary=True, state=State.HOLDING, other=Other(alive=True, heard=0.0, state=State.FENCED)), Why.FENCED),
        (
            View(
                primary=True,
                state=State.HOLDING,
                other=Other(alive=True, heard=0.0, state=State.STANDBY, promotable=False),
            ),
            Why.JOINING,
        ),
        (View(primary=True, state=State.HOLDING, other=THERE, resyncing=True), Why.RESYNC_RUNNING),
        (follows(State.STANDBY), Why.NO_PRIMARY),
        (follows(State.STANDBY, alive=False), Why.NO_PRIMARY),
        (follows(State.TAKING), Why.TAKING),
        (follows(State.FENCED), Why.FENCED),
        (follows(State.STANDBY, conflict=True), Why.CONFLICT),
    ],
)
def test_what_makes_a_pair_unprotected(view, reason):
    found = judge(view)
    assert (found.level, found.causes[0].reason) == (UNPROTECTED, reason)
    assert found.replica == (reason == Why.JOINING)


def test_a_pair_without_any_cause_is_protected():
    assert judge(LEADS) == Verdict(PROTECTED, (), "primary")


def test_the_gravest_cause_decides():
    some, all_ = Cause("a", DEGRADED, "a"), Cause("b", UNPROTECTED, "b")
    assert verdict([some, all_], "primary").causes == (all_, some)
    assert verdict([some], "primary").level == DEGRADED
    assert len(verdict([some] * 100, "primary").causes) == MAX_CAUSES


def test_a_verdict_survives_its_way():
    found = verdict([Cause(Why.FLOWS, DEGRADED, "3 of 40", 7.0, "payload")], "secondary")
    assert read_verdict(found.status(10.0), 110.0) == verdict(
        [Cause(Why.FLOWS, DEGRADED, "3 of 40", 107.0, "payload")], "secondary"
    )


SAID = {"reason": "flows", "level": DEGRADED, "text": "x", "age_ms": 3, "detail": ""}


@pytest.mark.parametrize(
    "said",
    [
        None, 5, [], {}, {"level": "protected"}, {"level": "fine", "lan": "primary"}, {"level": PROTECTED, "lan": 3},
        {"level": PROTECTED, "lan": "primary", "causes": [SAID]}, {"level": DEGRADED, "lan": "primary", "causes": []},
        {"level": UNPROTECTED, "lan": "primary", "causes": [SAID]}, {"level": [], "lan": "primary"},
        {"level": PROTECTED, "lan": []},
    ],
)  # fmt: skip
def test_a_verdict_that_no_frame_can_have_sent_is_none(said):
    assert read_verdict(said, 0.0) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"reason": 3}, {"reason": ""}, {"reason": "a b"}, {"reason": "x" * 65}, {"reason": "é"}, {"level": PROTECTED},
        {"level": 3}, {"level": []}, {"text": None}, {"text": "x" * (MAX_TEXT + 1)}, {"detail": 5},
    ],
)  # fmt: skip
def test_a_cause_that_no_frame_can_have_sent_is_left_out(wrong):
    assert read_causes([{**SAID, **wrong}, SAID], 1.0) == read_causes([SAID], 1.0)


@pytest.mark.parametrize("age", [None, "x", -1, 1 << 60, True, 2.5])
def test_an_age_that_is_none_is_not_known(age):
    assert read_causes([{**SAID, "age_ms": age}], 1.0)[0].since is None


def test_not_more_causes_are_read_than_are_kept():
    assert len(read_causes([SAID] * 1000, 0.0)) == MAX_CAUSES
    assert read_causes({"a": 1}, 0.0) == read_causes(None, 0.0) == ()


def test_flows_that_are_all_unprotected():
    view = View(primary=True, state=State.HOLDING, other=THERE, flows=Flows(2, 2, 1.0, "resync"))
    assert judge(view).text == "unprotected (2 of 2 connections unprotected, resync)"
