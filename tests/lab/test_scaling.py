"""Workers start, leave, or die while many connections run through real TCP/IP stacks."""

import os
import signal

import pytest

from colo_proto.messages import Query
from colo_runtime.client import ask

from .conftest import CLIENT, SERVER, wait_for


def process_of(state, name):
    """What the frame of the primary knows about a process."""
    body = ask(state["frames"]["primary"], Query("status"), 10).body
    return next(one for one in body["processes"] if one["id"] == name)


def table(state, side="primary"):
    """The worker table as the frame shows it."""
    return ask(state["frames"][side], Query("status"), 10).body["table"]


def unharmed(run, *, wrong=0):
    """Check that there was no reset and no wrong byte, and nothing was released uncompared or lost in a handover."""
    assert run.status == 0, run.out + run.err
    assert [line["wrong"] for line in run.lines if "wrong" in line] == [wrong] * len(run.lines)
    compare = run.report["compare"]
    assert set(compare["released_by"]) <= {"compared", "pass"}
    assert compare["miscompares"] == compare["flows_adopted"] == compare["handovers_given_up"] == 0
    assert compare["checkpoints_wanted"] == {}
    assert compare["held"] == 0
    assert compare["dropped"] == {}
    why = run.report["invariants_why"]
    assert {name: run.report["invariants"][name] for name in ("S1", "S6", "E2")} == dict.fromkeys(
        ("S1", "S6", "E2"), "held"
    ), why


@pytest.mark.parametrize(
    ("wiring", "workers", "scale", "left"),
    [("faithful", 1, "4@3,2@7", {"comp0", "comp1"}), ("lean", 2, "4@3,1@7", {"comp0"})],
)
def test_up_and_down_under_200_connections(lab, wiring, workers, scale, left):
    run = lab(
        "--wiring", wiring, "--compare", str(workers), "--scale", scale, "--guest", SERVER,
        client=f"{CLIENT} crowd --connections 200 --seconds 11 --timeout 60 & crowd=$!; "
        f"{CLIENT} rr --count 2000 --timeout 60 && {CLIENT} download --size 5000000 --timeout 60 && wait $crowd",
        timeout=200,
    )  # fmt: skip
    unharmed(run)
    assert run.report["compare"]["flows_moved"] > 200
    (frame,) = [one for one in run.report["processes"] if one["id"] == "frame-p"]
    assert set(frame["status"]["table"]["workers"]) == left
    assert frame["status"]["table"]["unsettled"] == []
    stopped = [one for one in run.report["processes"] if one["role"] == "compare" and one["id"] not in left]
    assert len(stopped) == 4 - len(left)
    assert all(one["gauges"]["flows"] == one["gauges"]["held"] == 0 for one in stopped)


def test_a_worker_that_dies_has_its_slots_taken_over(background, tmp_path):
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    ask_more = f"{CLIENT} http --count 40 --timeout 60"
    process, read = background(
        "--no-restart", "--compare", "3", "--guest", SERVER, client=f"{ask_more} && {wait} && {ask_more}"
    )
    state = read()
    assert set(table(state)["workers"]) == {"comp0", "comp1", "comp2"}
    victim = next(one["pid"] for one in state["processes"] if one["id"] == "comp1")
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: set(table(state)["workers"]) == {"comp0", "comp2"}, 40, "its slots to be taken over")
    shown = ask(state["frames"]["primary"], Query("status"), 10).body
    assert shown["counters"]["checkpoints_wanted.worker_lost"] >= 1
    wait_for(
        lambda: (
            ask(state["frames"]["secondary"], Query("status"), 10).body["table"]["version"] == table(state)["version"]
        ),
        20,
        "the other host to share out by it as well",
    )
    (tmp_path / "go").touch()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    assert out.count('"wrong": 0') == 2


def test_a_worker_that_is_stopped_hands_over_first(background, tmp_path):
    """SIGTERM, as `docker stop` sends it: the worker says that it leaves, hands over its flows, and ends by itself."""
    ask_more = f"{CLIENT} crowd --connections 20 --seconds 8 --timeout 60"
    process, read = background("--no-restart", "--compare", "2", "--guest", SERVER, client=ask_more)
    state = read()
    victim = next(one for one in state["processes"] if one["id"] == "comp1")
    wait_for(lambda: process_of(state, "comp1")["gauges"].get("flows", 0) > 5, 20, "connections")
    os.kill(victim["pid"], signal.SIGTERM)
    wait_for(lambda: next(p for p in read()["processes"] if p["id"] == "comp1")["pid"] == 0, 40, "it to end")
    assert set(table(state)["workers"]) == {"comp0"}
    last = process_of(state, "comp1")
    assert last["gauges"]["flows"] == last["gauges"]["held"] == 0
    assert last["counters"]["flows_handed_over"] > 0
    assert not any(n for name, n in last["counters"].items() if name.startswith("dropped."))
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, out + err
    assert '"wrong": 0' in out
