"""What is read from the processes: sums over instances, requests that two of them counted, frames and drops."""

from collections import Counter

import pytest

from colo_lab.observed import Process, Usage, drops, frames, labelled, total, wanted


def process(role, name, host="host-p", counters=None, gauges=None):
    said = {"reported": counters is not None, "counters": Counter(counters), "gauges": Counter(gauges)}
    return Process(role, name, host, 1, Usage(0.5, 1000), 0, complete=True, **said)


def test_a_role_is_summed_over_its_instances():
    some = [
        process("compare", "comp0", counters={"released": 3, "dropped.reset": 1}, gauges={"held": 2}),
        process("compare", "comp1", counters={"released": 4}, gauges={"held": 1}),
        process("compare", "comp2"),
        process("mirror", "m0", counters={"released": 100}),
    ]
    counters, gauges = total(some, "compare")
    assert (counters["released"], counters["dropped.reset"], gauges["held"]) == (7, 1, 3)
    assert total(some, "rewriter") == (Counter(), Counter())


def test_labels():
    counters = Counter({"dropped.reset": 2, "dropped.idle": 0, "dropped": 9, "droppeds.x": 1})
    assert labelled(counters, "dropped") == {"reset": 2}


def test_requests_of_compare_are_not_counted_twice_and_those_of_others_not_left_out():
    some = [
        process("compare", "comp0", counters={"checkpoints_wanted.payload": 2}),
        process("frame", "frame-p", counters={"checkpoints_wanted.payload": 1, "checkpoints_wanted.mirror_gap": 1}),
        process("frame", "frame-s", "host-s", counters={"checkpoints_wanted.mirror_gap": 1}),
    ]
    assert wanted(some) == {"payload": 2, "mirror_gap": 1}


@pytest.mark.parametrize(("counters", "took", "lost"), [
    (None, 0, 0),
    ({}, 0, 0),
    ({"link.netdev.frames_in": 3, "link.indev.frames_in": 4, "frames": 9, "dropped.no_table": 2}, 7, 2),
    ({"secondary_dropped.compared": 5}, 0, 0),
])  # fmt: skip
def test_the_live_table(counters, took, lost):
    one = process("redirector", "r", counters=counters)
    assert (frames(one), drops(one)) == (took, lost)
