"""What the processes of the host say about themselves: introductions, silence, restarts."""

import pytest

from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_frame.registry import EVERYBODY
from colo_proto.messages import CheckpointDone, Flushed, Heartbeat, Hello, Query, Welcome, WorkerTable

from .frames import PRIMARY, Copying, answer, events, hello, idle, primary, report, request, told


def test_hello_is_welcomed_with_epoch_mode_and_incarnation():
    f = Frame(PRIMARY, 77)
    outputs = f.hear("comp0", hello(), 1.0)
    assert told(outputs, Welcome, "comp0") == [Welcome(0, "enforce", 77)]
    assert events(outputs) == ["process.joined"]
    assert events(f.hear("comp0", hello(), 2.0)) == []


def test_splitters_and_compares_get_the_table_with_their_welcome():
    f = Frame(PRIMARY, 1)
    for role, count in (("redirector", 1), ("rewriter", 1), ("mirror", 0), ("compare", 1)):
        assert len(told(f.hear(f"{role}x", hello(role, f"{role}x"), 0.0), WorkerTable, f"{role}x")) == count


def test_an_unknown_sender_is_welcomed_so_that_it_says_hello():
    f = Frame(PRIMARY, 5)
    outputs = f.hear("comp0", report(), 0.0)
    assert told(outputs, Welcome, "comp0") == [Welcome(0, "enforce", 5)]
    assert f.counters["unknown_senders"] == 1
    assert answer(f, Query("status")).body["processes"] == []


def test_a_request_of_an_unknown_compare_still_counts():
    f = Frame(PRIMARY, 5)
    outputs = f.hear("comp0", request(epoch=9), 0.0)
    assert told(outputs, CheckpointDone, EVERYBODY) == [CheckpointDone(10, state_copied=False)]


def test_a_silent_process_is_lost_and_found_by_hello():
    f = primary()
    f.hear("m0", hello("mirror", "m0"), 0.0)
    idle(f, 4.0)
    f.hear("comp0", report(), 4.0)
    outputs = idle(f, 5.0)
    assert "process.lost" in events(outputs)
    states = {p["id"]: p["state"] for p in f.status(5.0)["processes"]}
    assert states == {"comp0": "live", "m0": "lost"}
    assert f.counters["processes_lost"] == 1
    assert "process.joined" in events(f.hear("m0", hello("mirror", "m0"), 6.1))
    assert f.gauges()["processes_silent"] == 0


def test_a_process_that_was_paused_returns_with_its_next_report():
    f = primary(workers="comp0,comp1")
    f.hear("comp1", hello(name="comp1"), 0.0)
    idle(f, 4.0)
    f.hear("comp0", report(), 4.0)
    idle(f, 5.0)
    f.hear("comp0", Flushed(1, "comp0"), 5.1)
    assert f.side.table.workers == ["comp0"]
    f.hear(PEER, Heartbeat("secondary", 7, 1, 0), 5.9)
    outputs = f.hear("comp1", report(name="comp1", gauges={"linked": 1}), 6.0)
    assert "process.returned" in events(outputs)
    (table,) = told(outputs, WorkerTable, EVERYBODY)
    assert (table.version, table.workers, table.sources) == (3, ["comp0", "comp1"], ["comp0"])


def test_a_restarted_worker_costs_a_checkpoint_only_where_state_is_copied():
    f = primary()
    assert not told(f.hear("comp0", hello(incarnation=2), 1.0), CheckpointDone)
    assert f.counters["workers_restarted"] == 1
    g = Frame(PRIMARY, 1, driver=Copying())
    g.hear("comp0", hello(), 0.0)
    assert told(g.hear("comp0", hello(incarnation=2), 1.0), CheckpointDone, EVERYBODY) == [
        CheckpointDone(1, state_copied=True)
    ]


def test_a_restarted_mirror_costs_a_checkpoint():
    """The receiver of the mirror link may have died as well, then only the COLO frame knows of the missing frames."""
    f = primary()
    f.hear("m0", hello("mirror", "m0", incarnation=1), 1.0)
    assert f.counters["checkpoints_wanted.mirror_gap"] == 0
    outputs = f.hear("m0", hello("mirror", "m0", incarnation=2), 2.0)
    assert f.counters["checkpoints_wanted.mirror_gap"] == 1
    assert told(outputs, CheckpointDone)


@pytest.mark.parametrize("mirror_first", [True, False])
def test_a_mirror_restarted_while_the_frame_was_dead_costs_a_checkpoint(mirror_first):
    """The same after a restart of the COLO frame: other processes know its earlier start, the mirror does not."""
    f = Frame(PRIMARY, 7, 0.0)
    known, new = Hello("redirector", "redire1", 1, frame=5), Hello("mirror", "m0", 2)
    for sender, message in (("m0", new), ("redire1", known))[:: 1 if mirror_first else -1]:
        assert not f.counters["checkpoints_wanted.mirror_gap"]
        f.hear(sender, message, 0.1)
    assert f.counters["checkpoints_wanted.mirror_gap"] == 1
    f.hear("m0", Hello("mirror", "m0", 2, frame=7), 0.2)
    assert f.counters["checkpoints_wanted.mirror_gap"] == 1


def test_a_mirror_that_the_frame_before_knew_has_lost_nothing():
    f = Frame(PRIMARY, 7, 0.0)
    f.hear("redire1", Hello("redirector", "redire1", 1, frame=5), 0.1)
    f.hear("m0", Hello("mirror", "m0", 1, frame=5), 0.1)
    assert not f.counters["checkpoints_wanted.mirror_gap"]


def test_when_everything_starts_no_mirror_has_lost_anything():
    f = Frame(PRIMARY, 7, 0.0)
    f.hear("m0", Hello("mirror", "m0", 1), 0.1)
    f.hear("redire1", Hello("redirector", "redire1", 1), 0.1)
    f.hear("redire1", Hello("redirector", "redire1", 1, frame=7), 9.0)
    assert not f.counters["checkpoints_wanted.mirror_gap"]


def test_compares_report_teaches_a_restarted_frame_the_epoch():
    f = primary()
    f.hear("comp0", report(gauges={"epoch": 12}), 1.0)
    assert told(f.hear("comp1", hello(name="comp1"), 1.1), Welcome, "comp1")[0].epoch == 12
