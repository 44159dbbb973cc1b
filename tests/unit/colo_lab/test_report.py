"""The report file: its keys, its sums, and how long a failover took."""

import dataclasses

from colo_lab.circle import DIED, PLANNED, Failover
from colo_lab.invariants import Facts
from colo_lab.report import build

from .test_invariants import cast, process


def facts(processes, **more):
    return Facts(**{"mode": "enforce", "same_guests": True, "settled": True, "processes": processes, **more})


def test_the_report_has_the_promised_keys_and_sums():
    processes = cast({"checkpoints_wanted.payload": 2}, detail={"last": [{"reason": "payload", "offset": 7}]})
    processes.append(process("frame", "frame-p", {"checkpoints_wanted.payload": 3, "checkpoints_wanted.mirror_gap": 1}))
    processes.append(dataclasses.replace(processes[0], id="comp1"))
    report = build(facts(processes, wiring="lean", same_guests=False), 3, 1.23456)
    assert report["exit"] == 3
    assert report["seconds"] == 1.235
    compare = report["compare"]
    assert compare["frames_primary"] == 200
    assert compare["dropped"] == {"reset": 4}
    assert compare["checkpoints_wanted"] == {"payload": 4, "mirror_gap": 1}
    assert compare["held"] == 6
    assert compare["last"][0]["offset"] == 7
    assert {"frames_secondary", "released", "bytes_compared", "miscompares", "checkpoints_done", "flows"} <= set(
        compare
    )
    assert "flows_unprotected" in compare
    assert set(report["mirror"]) == {"frames", "sequence", "gaps", "replayed"}
    assert report["mirror"]["frames"] == 50
    assert report["rewriter"]["rewritten"] == 40
    assert report["processes"][0]["cpu_seconds"] == 1.5
    assert {"role", "id", "pid", "cpu_seconds", "max_rss_bytes", "counters"} <= set(report["processes"][0])
    assert set(report["invariants"].values()) <= {"held", "violated", "unknown"}


def test_how_long_a_failover_took():
    lan = {
        "frames": {},
        "late": 0,
        "lost": 0,
        "broken": [],
        "changes": [{"at": 7.0, "before": 5.0, "after": 7.5, "continued": 2, "reset": 3, "unknown": 1}],
    }
    report = build(facts([], lan=lan), 0, 9.0, failed_at=4.0, promotion={"at": 6.0, "silence_ms": 1900})
    assert report["failover"] == {
        "promoted": True, "silence_ms": 1900, "detected_ms": 2000, "stall_ms": 2500, "connections_continued": 2,
        "connections_reset": 3, "connections_unknown": 1,
    }  # fmt: skip
    assert build(facts([], lan=lan), 0, 9.0)["failover"] is None


def test_each_failover_of_a_circle_has_an_entry():
    change = {"port": "lan-s", "before": 1.0, "after": 3.5, "continued": 4, "reset": 0, "unknown": 2}
    lan = {"frames": {}, "late": 0, "lost": 0, "broken": [], "changes": [{"at": 3.0, **change}, {"at": 9.0, **change}]}
    records = [
        Failover("primary", DIED, 1.5, led=3.0, silence_ms=1500, repaired=4.5, protected=7.0),
        Failover("secondary", PLANNED, 8.0, led=8.25, protected=9.5),
        Failover("primary", PLANNED, 10.0, refused="no replica"),
    ]
    died, planned, refused = build(facts([], lan=lan, failovers=3), 0, 9.0, records=records)["failovers"]
    assert died == {
        "host": "host-p", "leads": "host-s", "planned": False, "refused": "", "silence_ms": 1500, "detected_ms": 1500,
        "stall_ms": 2500, "connections_continued": 4, "connections_reset": 0, "connections_unknown": 2,
        "protected_ms": 2500,
    }  # fmt: skip
    assert (planned["leads"], planned["detected_ms"], planned["protected_ms"]) == ("host-p", 250, 1500)
    assert planned["connections_continued"] == 4
    assert (refused["refused"], refused["leads"], refused["stall_ms"]) == ("no replica", None, None)
