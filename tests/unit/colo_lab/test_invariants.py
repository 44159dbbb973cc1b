from collections import Counter

import pytest

from colo_lab.invariants import Facts, judge
from colo_lab.observed import Process, Usage

COMPARE = {
    "frames_primary": 100,
    "frames_secondary": 90,
    "released": 96,
    "released.compared": 90,
    "released.pass": 6,
    "synthesized": 1,
    "dropped.reset": 2,
    "secondary_dropped.compared": 88,
    "secondary_dropped.pass": 3,
    "secondary_split": 3,
    "bytes_compared": 5000,
    "flows_opened": 4,
    "link.secondary_in.frames_in": 90,
}
REWRITER = {"link.indev.frames_in": 47, "link.indev.gap_frames": 1, "link.outdev.frames_out": 90}
CHANGE = {"at": 1.0, "continued": 1}
GAUGES = {"held": 3, "held_secondary": 2, "flows": 1, "flows_unprotected": 0, "held_oldest_ms": 50}


def process(role, name, counters=None, gauges=None, *, host="host-p", complete=True, detail=None):
    said = {"counters": Counter(counters), "gauges": Counter(gauges), "detail": detail or {}}
    return Process(
        *(role, name, host, 7, Usage(1.5, 1 << 20), 0 if complete else 1),
        complete=complete,
        reported=counters is not None,
        **said,
    )


def cast(compare=None, gauges=None, **more):
    return [
        process("compare", "comp0", {**COMPARE, **(compare or {})}, {**GAUGES, **(gauges or {})}, **more),
        process("mirror", "m0", {"frames": 50, "link.outdev.frames_out": 50, "link.outdev.dropped.x": 2}),
        process("rewriter", "rew0", {"rewritten": 40, "flows_opened": 2, **REWRITER}, host="host-s"),
    ]


def verdicts(processes, **facts):
    given = {"mode": "enforce", "same_guests": True, "settled": True, "wiring": "lean", **facts}
    return {k: v.verdict for k, v in judge(Facts(processes=processes, **given)).items()}


def test_everything_adds_up():
    got = verdicts(cast())
    assert {k: got[k] for k in ("S1", "S4", "S5", "S6", "L1", "E2")} == dict.fromkeys(
        ("S1", "S4", "S5", "S6", "L1", "E2"), "held"
    )
    assert got["S2"] == got["S3"] == "unknown", "nobody looked at the client's bytes"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"frames_primary": 101}, "S6"),
        ({"dropped.reset": 1}, "S6"),
        ({"secondary_dropped.pass": 4}, "S6"),
        ({"released.compared": 80}, "S1"),
        ({"checkpoints_wanted.payload": 1}, "E2"),
    ],
)
def test_a_sum_that_does_not_add_up_is_found(change, name):
    assert verdicts(cast(change))[name] == "violated"


def test_frames_that_moved_to_another_worker_are_in_the_books():
    source = {"released": 90, "released.compared": 84, "handed_over": 6, "secondary_dropped.pass": 1}
    source["secondary_handed_over"] = 2
    target = {"taken_over": 6, "released": 6, "released.compared": 6, "secondary_taken_over": 2}
    target["secondary_dropped.compared"] = 2
    both = [*cast(source), process("compare", "comp1", target, {"held": 0, "held_secondary": 0})]
    # Links are looked at elsewhere.
    assert verdicts(both, settled=False)["S6"] == "unknown"
    for name in ("taken_over", "secondary_taken_over"):
        changed = {**target, name: target[name] - 1}
        lost = [*both[:-1], process("compare", "comp1", changed, {"held": 0, "held_secondary": 0})]
        assert verdicts(lost)["S6"] == "violated"


@pytest.mark.parametrize("name", ["link.indev.frames_in", "link.indev.gap_frames"])
def test_a_link_that_does_not_add_up_is_found(name):
    processes = cast()
    processes[2].counters[name] -= 1
    assert verdicts(processes)["S6"] == "violated"
    assert verdicts(processes, settled=False)["S6"] == "unknown", "frames may be under way"


def test_a_frame_held_too_long_without_a_request():
    assert verdicts(cast(gauges={"held_oldest_ms": 4001}))["L1"] == "violated"
    wanted = {"checkpoints_wanted.timeout": 1}
    assert verdicts(cast(wanted, {"held_oldest_ms": 4001}))["L1"] == "held"


def test_a_compare_says_how_long_it_waits():
    patient = cast(gauges={"held_oldest_ms": 9000}, detail={"asks_after_ms": 11000})
    assert verdicts(patient)["L1"] == "held"
    assert verdicts(cast(gauges={"held_oldest_ms": 1600}, detail={"asks_after_ms": 1500}))["L1"] == "violated"


def test_what_was_killed_cannot_testify():
    got = verdicts(cast(complete=False))
    assert {got[k] for k in ("S1", "S6", "L1", "E2")} == {"unknown"}
    silent = [process("compare", "comp0"), *cast()[1:]]
    assert verdicts(silent)["S6"] == "unknown"
    assert verdicts([])["S6"] == "unknown"


def test_other_modes_and_other_guests():
    assert verdicts(cast(), mode="bypass")["S1"] == "unknown"
    assert verdicts(cast({"checkpoints_wanted.payload": 1}), same_guests=False)["E2"] == "unknown"


@pytest.mark.parametrize(("lost", "verdict"), [(0, "violated"), (3, "unknown")])
def test_what_a_capture_with_gaps_says_is_no_proof(lost, verdict):
    lan = {
        "frames": {"lan-p": 5, "lan-s": 5},
        "late": 0,
        "lost": lost,
        "broken": ["byte 7 never came"],
        "changes": [CHANGE],
    }
    assert verdicts(cast(), lan=lan)["S3"] == verdict
