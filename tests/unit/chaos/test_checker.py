"""The checker of chaos campaigns, and the nemesis's plan."""

import pytest

from chaos.checker import EXIT, FAIL, PASS, UNKNOWN, Trial, judge, resets, table, worst
from chaos.nemesis import plan

GOOD = {
    "download": {"bytes": 10, "wrong": 0, "longest_stall": 1.5},
    "upload": {"bytes": 10, "wrong": 0, "longest_stall": 0.5},
    "http": {"requests": 3, "failures": {}, "wrong": 0, "longest_stall": 0.1},
    "rr": {"requests": 3, "wrong": 0, "longest_stall": 0.2},
}
RUNNING = dict.fromkeys(GOOD, True)


def trial(clients=None, **more):
    return Trial("m0", "kill", 1, {**GOOD, **(clients or {})}, more.pop("overlapped", RUNNING), **more)


def test_all_well():
    verdict = judge(trial())
    assert (verdict.verdict, verdict.why, verdict.resets) == (PASS, "", 0)
    assert verdict.stalls["download"] == 1.5


@pytest.mark.parametrize(
    ("change", "why", "count"),
    [
        ({"clients": {"download": {"wrong": "differs at 77"}}}, "differs at 77", 0),
        ({"clients": {"upload": {"wrong": 1}}}, "upload: 1", 0),
        ({"clients": {"rr": {"wrong": "ConnectionResetError: [Errno 104]"}}}, "rr", 1),
        ({"clients": {"http": {"wrong": 2, "failures": {"ConnectionResetError": 1, "TimeoutError": 1}}}}, "http", 1),
        ({"invariants": {"S6": "9 in, 8 out"}}, "S6 violated: 9 in, 8 out", 0),
    ],
)
def test_failures(change, why, count):
    verdict = judge(trial(**change))
    assert verdict.verdict == FAIL
    assert why in verdict.why
    assert verdict.resets == count


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"overlapped": RUNNING | {"upload": False}}, "upload was over before"),
        ({"recovered": False}, "well again"),
        ({"note": "cannot pause"}, "cannot pause"),
        ({"clients": {"rr": {"wrong": "no answer within 180 s"}}}, "no answer"),
        ({"clients": {"rr": {}}}, "no answer"),
    ],
)
def test_what_shows_nothing_is_unknown_and_not_passed(change, why):
    verdict = judge(trial(**change))
    assert verdict.verdict == UNKNOWN
    assert why in verdict.why


def test_harm_weighs_more_than_doubt():
    assert judge(trial({"rr": {"wrong": 1}}, recovered=False)).verdict == FAIL
    assert worst([PASS, UNKNOWN, FAIL]) == FAIL
    assert worst([PASS, UNKNOWN]) == UNKNOWN
    assert worst([PASS, PASS]) == PASS
    assert worst([]) == UNKNOWN, "nothing was tried, nothing is shown"


def test_exit_statuses_tell_the_verdicts_apart():
    assert len({*EXIT.values(), 2}) == 4, "2 is for what could not run"
    assert EXIT[PASS] == 0


def test_only_resets_count_as_resets():
    assert resets({"wrong": "TimeoutError: timed out"}) == 0
    assert resets({"wrong": "BrokenPipeError: x"}) == 1
    assert resets({"wrong": 3, "failures": {"RemoteDisconnected": 2, "TimeoutError": 1}}) == 2


def test_the_table_has_a_line_for_each_service_and_fault():
    trials = [trial(), trial({"download": {"wrong": 0, "longest_stall": 3.5}}), Trial("f1", "cut", 2, GOOD, RUNNING)]
    lines = table([(one, judge(one)) for one in trials]).splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:7] == ["f1", "cut", "1", "1", "0", "0", "0"]
    assert "download 2.50 / 3.50" in lines[2]


def test_a_plan_follows_from_its_seed():
    def made(seed):
        return plan(["m0", "rew0"], ["kill", "cut"], 3, seed, cut=["m0"])

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert (
        sorted((one.service, one.fault) for one in made(1))
        == [("m0", "cut")] * 3 + [("m0", "kill")] * 3 + [("rew0", "kill")] * 3
    )
    assert all(0 <= one.delay <= 1.5 for one in made(1))
