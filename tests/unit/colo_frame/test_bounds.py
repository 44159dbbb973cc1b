"""What one process, or a thousand, can make the frame keep is bounded, counted and logged once; `colo status` works."""

import tracemalloc

import pytest

from colo_frame.bounds import EACH, MAX_DEPTH, MAX_KEPT, MAX_NAME, MAX_REPORT, TooMuchError, weigh
from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_frame.registry import MAX_PROCESSES
from colo_proto.codec import MAX_MESSAGE, decode, encode
from colo_proto.core import Log, Tell
from colo_proto.messages import (
    Answer,
    CheckpointWanted,
    Heartbeat,
    Hello,
    Query,
    Reason,
    Report,
    SetRules,
    Yielded,
)

MANY = 1 << 62
PEERED = "tcp://192.0.2.2:9005"


def frame(side="primary", **more):
    return Frame(FrameConfig(id="f", side=side, peer=PEERED, **more), 1, 0.0)


def hear(f, sender, message, now=0.0):
    """Send a message as it comes from the wire. Returns what is logged."""
    return [o for o in f.hear(sender, decode(encode(message)), now) if isinstance(o, Log)]


def joined(f, *names, role="mirror"):
    for name in names:
        hear(f, name, Hello(role, name, 1))


def report(name, counters=None, status=None, gauges=None):
    return Report("mirror", name, 1, counters or {}, gauges or {}, status or {})


def status(f, now=1.0):
    """The answer to a query, decoded as the asking process does it."""
    (said,) = [o.message for o in f.hear("cli", Query(), now) if isinstance(o, Tell) and isinstance(o.message, Answer)]
    data = encode(said)
    assert len(data) < MAX_MESSAGE
    return decode(data).body


def of(body, name):
    return next(one for one in body["processes"] if one["id"] == name)


def nested(depth):
    value = 1
    for _ in range(depth):
        value = {"x": value}
    return value


@pytest.mark.parametrize("depth", range(1, 17))
def test_a_nested_report_never_breaks_the_status(depth):
    f = frame()
    joined(f, "m0", "m1")
    hear(f, "m1", report("m1", {"x": 3}))
    hear(f, "m0", report("m0", {"good": 1}))
    logs = hear(f, "m0", report("m0", {"bad": 1}, {"s": nested(depth - 1)}))
    body = status(f)
    assert of(body, "m1")["counters"] == {"x": 3}
    kept = depth <= MAX_DEPTH
    assert of(body, "m0")["counters"] == ({"bad": 1} if kept else {"good": 1}), "the last one that could be kept"
    assert f.counters["reports_refused.depth"] == (not kept)
    assert [log.event for log in logs] == ([] if kept else ["report.refused"])


@pytest.mark.parametrize("what", ["counters", "status", "text", "list"])
def test_a_large_report_is_refused_and_said_once(what):
    f = frame()
    joined(f, "m0")
    many = {f"name{n}": n for n in range(50_000)}
    said = {
        "counters": report("m0", many),
        "status": report("m0", status=many),
        "text": report("m0", status={"x": "y" * MAX_REPORT}),
        "list": report("m0", status={"x": [{}] * (MAX_REPORT // 10)}),
    }[what]
    assert [log.event for log in hear(f, "m0", said)] == ["report.refused"]
    assert hear(f, "m0", said) == []
    assert f.counters["reports_refused.size"] == 2
    assert of(status(f), "m0")["counters"] == {}


def test_keys_are_text():
    """JSON has only keys of text, and other keys cannot be sorted."""
    f = frame()
    joined(f, "m0")
    hear(f, "m0", report("m0", status={"x": {b"\xff": 1, "a": 2}}))
    assert f.counters["reports_refused.key"] == 1


@pytest.mark.slow
def test_what_all_reports_weigh_is_bounded_and_the_heaviest_goes_first():
    f = frame()
    joined(f, "light", *(f"p{n}" for n in range(50)))
    hear(f, "light", report("light", {"x": 1}))
    heavy = {"x": [{}] * (MAX_REPORT // EACH - 20)}
    logs = [log for n in range(50) for log in hear(f, f"p{n}", report(f"p{n}", status=heavy))]
    assert f.side.registry.weight <= MAX_KEPT
    body = status(f)
    assert of(body, "light")["counters"] == {"x": 1}
    assert sum(one["report_age_ms"] is not None for one in body["processes"]) == MAX_KEPT // MAX_REPORT + 1
    assert f.counters["reports_forgotten"] == 50 - MAX_KEPT // MAX_REPORT
    assert [log.event for log in logs] == ["reports.forgotten"]


@pytest.mark.parametrize("one", [{}, [], 1 << 40, 1.5, "ü", "😀" + "x" * 60, {"a": {}}, [[[]]]])
def test_a_weight_tells_the_memory(one):
    """What is kept takes at most a few times as much memory as it weighs, whatever it is made of."""
    value = [one] * 3000
    data = encode(Query(args={"v": value}))
    tracemalloc.start()
    try:
        read = decode(data).args["v"]
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 8 * weigh(read, 8, MANY)


def test_a_thousand_processes_with_the_longest_names_still_fit_an_answer():
    f = frame()
    names = [f"{n:05}".ljust(MAX_NAME, "n") for n in range(MAX_PROCESSES)]
    for name in names:
        hear(f, name, Hello("r" * 64, name, 1, http="h" * 255))
        hear(f, name, report(name, status={"x": "y" * 2000}))
    for n in range(40):
        hear(f, names[n], CheckpointWanted(Reason.TIMEOUT, "f" * 5000, detail={"x": "y" * 8000}))
    assert len(status(f)["processes"]) == MAX_PROCESSES


def test_what_a_report_says_counts_though_it_is_not_kept():
    """Which workers can be reached, which process has a lease, and the table must not depend on reports of others."""
    f = frame()
    joined(f, "comp0", role="compare")
    joined(f, *(f"p{n}" for n in range(20)))
    heavy = {"x": [{}] * (MAX_REPORT // 16 - 30)}
    hear(f, "comp0", Report("compare", "comp0", 1, {}, {"linked": 1, "leased": 0}, heavy))
    for n in range(20):
        hear(f, f"p{n}", report(f"p{n}", status=heavy))
    assert f.side.registry.processes["comp0"].report is None
    assert f.side.registry.linked() == {"comp0"}
    assert f.side.registry.processes["comp0"].leased


def test_an_introduction_is_bounded():
    f = frame()
    for number, hello in enumerate(
        (Hello("r" * 65, "x", 1), Hello("mirror", "x" * 256, 1), Hello("mirror", "x", 1, http="h" * 256),
         Hello("mirror", "x", 1, mode="m" * 65))
    ):  # fmt: skip
        assert len(hear(f, f"p{number}", hello)) == (not number)
    assert f.counters["hellos_refused"] == 4
    assert not f.side.registry.processes


def test_one_that_is_lost_makes_room_for_one_that_is_there():
    f = frame()
    for n in range(MAX_PROCESSES):
        hear(f, f"p{n}", Hello("mirror", f"p{n}", 1))
    logs = hear(f, "more", Hello("mirror", "more", 1)) + hear(f, "evenmore", Hello("mirror", "evenmore", 1))
    assert [log.event for log in logs] == ["process.refused"]
    assert f.counters["processes_refused"] == 2
    while (due := f.deadline()) < 4.0:
        f.on_timer(due)
    for n in range(1, MAX_PROCESSES):
        hear(f, f"p{n}", report(f"p{n}"), 4.0)
    while (due := f.deadline()) <= 5.0:
        f.on_timer(due)
    assert f.side.registry.processes["p0"].lost
    assert [log.event for log in hear(f, "more", Hello("mirror", "more", 1), 5.0)] == ["process.joined"]
    assert "p0" not in f.side.registry.processes
    assert len(f.side.registry.processes) == MAX_PROCESSES


@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_a_request_is_carried_out_whatever_it_says_beside(side):
    f = frame(side)
    joined(f, "comp0", role="compare")
    for n in range(100):
        request = CheckpointWanted(f"reason{n}" * 99, "flow" * 9999, 1, {"x": "y" * 100_000}, 0, f"s{n}" * 999)
        hear(f, "comp0", request)
    deep = CheckpointWanted(Reason.PAYLOAD, "flow", 1, {"x": nested(15)})
    hear(f, "comp0", deep)
    assert f.counters["details_refused"] == 101
    if side == "primary":
        assert f.counters["checkpoints_wanted.other"] == 100
        assert f.side.checkpoints.completed or not f.side.checkpoints.idle
    kept = repr(f.side.requests._outstanding) + repr(f.side.checkpoints.wanted)
    assert len(kept) < 100_000
    status(f)


def test_a_heartbeat_leaves_little():
    f = frame("secondary")
    beat = Heartbeat("primary", 7, 1, 0, body={"x": nested(15), "y": "z" * 1_000_000}, table={"x": "y" * 1_000_000})
    hear(f, PEER, beat)
    assert f.side.peer.alive
    assert len(repr(f.side.peer.last)) < 10_000
    status(f)
    for wrong in (
        Heartbeat("r" * 1000, 7, 2, 0),
        Heartbeat("primary", 7, 2, 0, mode="m" * 1000),
        Heartbeat("primary", 7, 2, 0, state="s" * 1000),
    ):
        hear(f, PEER, wrong)
    assert f.side.peer.last.count == 1
    assert f.counters["ignored_messages"] == 3


def test_rules_are_learnt_from_a_compare_and_only_such_as_can_be_read():
    f = frame()
    joined(f, "m0")
    joined(f, "comp0", role="compare")
    hear(f, "m0", SetRules("pass tcp port 80"))
    hear(f, "comp0", SetRules("#" * 1_000_000))
    hear(f, "comp0", SetRules("nonsense\n"))
    assert f.side.modes.rules is None
    assert f.counters["rules_refused"] == 3
    hear(f, "comp0", SetRules("# none\n"))
    assert f.side.modes.rules == SetRules("# none\n")


def test_only_processes_that_are_known_can_yield():
    f = frame()
    for n in range(100):
        hear(f, f"stranger{n}", Yielded(1))
    assert not f.side.ownership._yielded


def test_the_names_of_workers_in_a_table_are_names():
    f = frame()
    joined(f, "comp0", role="compare")
    status_of = {"workers": ["w" * 10_000]}
    hear(f, "comp0", Report("compare", "comp0", 1, {}, {"table_version": 5}, status_of))
    assert all(len(worker) < 256 for worker in f.side.table.workers)


def test_weights():
    assert weigh({"a": 1}, 1, MANY) == 16 + 17 + 16
    assert weigh("ü", 0, MANY) == 18
    with pytest.raises(TooMuchError):
        weigh([[]], 1, MANY)
    for value in ({"a": [1, 2.0, None, True, "xyz", b"ab"]}, [], {}, "x" * 70000, list(range(300))):
        assert len(encode(Query(args={"v": value}))) - len(encode(Query(args={"v": 1}))) <= weigh(value, 9, MANY)
