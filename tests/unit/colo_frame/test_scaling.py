"""The worker table while compares come, leave, are lost and restarted."""

from colo_frame.config import FrameConfig
from colo_frame.drivers import Step, Verdict
from colo_frame.frame import Frame
from colo_frame.peer import PEER
from colo_frame.registry import EVERYBODY
from colo_frame.table import make_table, read_table
from colo_frame.workers import FIRST_TABLE_DELAY
from colo_proto.messages import (
    CheckpointDone,
    Drain,
    Flushed,
    Handover,
    HandoverTaken,
    Heartbeat,
    Leaving,
    Query,
    Settled,
    WorkerTable,
)

from .frames import PRIMARY, Copying, answer, hello, idle, linked, primary, report, told


def test_without_named_workers_the_first_table_comes_after_a_moment():
    f = primary(workers="")
    f.hear("redire1", hello("redirector", "redire1"), 0.0)
    f.on_timer(0.0)
    f.hear("comp1", hello(name="comp1"), 0.1)
    outputs = idle(f, FIRST_TABLE_DELAY - 0.01)
    assert not told(outputs, WorkerTable)
    assert f.deadline() == FIRST_TABLE_DELAY
    outputs = f.on_timer(FIRST_TABLE_DELAY)
    assert told(outputs, WorkerTable, EVERYBODY) == [make_table(1, ["comp0", "comp1"])]
    assert told(outputs, Heartbeat, PEER)[0].table["version"] == 1
    assert f.counters["checkpoints_started"] == 0


def scaled(peer=True):
    """Two workers of which the second has just joined."""
    f = primary(workers="")
    f.on_timer(FIRST_TABLE_DELAY)
    if peer:
        f.hear(PEER, Heartbeat("secondary", 7, 1, 0), 0.9)
    f.hear("comp1", hello(name="comp1"), 1.0)
    assert f.side.table.version == 1, "nobody can reach it yet"
    return f, f.hear("comp1", linked("comp1"), 1.1)


def test_a_worker_that_joins_gets_its_share_without_a_checkpoint():
    f, outputs = scaled()
    assert not told(outputs, CheckpointDone)
    (table,) = told(outputs, WorkerTable, EVERYBODY)
    assert (table.version, table.workers, table.sources) == (2, ["comp0", "comp1"], ["comp0"])
    assert table.slots == make_table(2, ["comp0", "comp1"]).slots
    (beat,) = told(outputs, Heartbeat, PEER)
    assert read_table(beat.table).slots == table.slots, "the other host shares out by it as well"
    assert f.status(1.1)["table"]["unsettled"] == ["comp0", "comp1"]
    f.hear("comp0", Settled("comp0", 2), 1.2)
    f.hear("comp1", Settled("comp1", 2), 1.2)
    assert f.status(1.2)["table"]["unsettled"] == []


def test_no_flows_move_while_the_other_host_cannot_be_told():
    f, outputs = scaled(peer=False)
    assert not told(outputs, WorkerTable)
    f.hear(PEER, Heartbeat("secondary", 7, 1, 0), 2.0)
    assert told(f.hear("comp1", linked("comp1"), 2.1), WorkerTable, EVERYBODY)


def test_but_where_nothing_is_compared_they_do():
    f, outputs = scaled(peer=False)
    assert not told(outputs, WorkerTable)
    assert answer(f, Query("mode", {"mode": "bypass"}), 2.0).ok
    assert told(f.hear("comp1", linked("comp1"), 2.1), WorkerTable, EVERYBODY)


def test_compares_talk_to_each_other_through_the_frame():
    f, _ = scaled()
    part = Handover(2, "comp0", "comp1", 0, last=True, data=b"x")
    assert told(f.hear("comp0", part, 1.2), Handover) == [part]
    assert told(f.hear("comp0", part, 1.2), Handover, "comp1")
    assert not told(f.hear("comp1", part, 1.2), Handover), "in somebody else's name"
    taken = HandoverTaken(2, "comp0", "comp1", 0)
    assert told(f.hear("comp1", taken, 1.3), HandoverTaken, "comp0") == [taken]


def test_who_wants_to_leave_may_when_its_flows_are_elsewhere():
    f, _ = scaled()
    for name in ("comp0", "comp1"):
        f.hear(name, Settled(name, 2), 1.2)
    outputs = f.hear("comp1", Leaving("comp1"), 2.0)
    (table,) = told(outputs, WorkerTable, EVERYBODY)
    assert (table.workers, table.sources) == (["comp0"], ["comp1"])
    assert not told(outputs, Drain)
    assert not told(f.hear("comp0", Settled("comp0", 3), 2.1), Drain)
    assert told(f.hear("comp1", Settled("comp1", 3), 2.2), Drain, "comp1")
    assert f.side.table.workers == ["comp0"]
    assert not told(f.hear("comp1", linked("comp1"), 2.3), WorkerTable), "it does not join again"
    f.hear("comp1", hello(name="comp1", incarnation=2), 9.0)
    assert told(f.hear("comp1", linked("comp1"), 9.1), WorkerTable, EVERYBODY), "but a new start of it does"


def test_the_last_worker_is_not_kept():
    f = primary()
    assert told(f.hear("comp0", Leaving("comp0"), 1.0), Drain, "comp0")
    assert f.side.table.workers == ["comp0"]


def test_a_source_that_is_restarted_has_nothing_to_give():
    f, _ = scaled()
    outputs = f.hear("comp0", hello(incarnation=2), 1.2)
    (table,) = told(outputs, WorkerTable, "comp1")
    assert (table.version, table.sources) == (2, [])


def test_who_has_not_settled_is_told_again():
    f, _ = scaled()
    f.hear("comp0", Settled("comp0", 2), 1.2)
    assert told(f.on_timer(2.2), WorkerTable, "comp1")
    assert not told(f.on_timer(2.2), WorkerTable, "comp0")


def test_a_lost_workers_slots_move_behind_a_checkpoint():
    f = primary(workers="comp0,comp1")
    f.hear("comp1", hello(name="comp1"), 0.0)
    idle(f, 3.0)
    f.hear("comp0", report(), 3.0)
    outputs = idle(f, 5.0)
    assert told(outputs, CheckpointDone, EVERYBODY)
    assert f.counters["checkpoints_wanted.worker_lost"] == 1
    outputs = f.hear("comp0", Flushed(1, "comp0"), 5.1)
    assert told(outputs, WorkerTable, EVERYBODY) == [make_table(2, ["comp0"])]


def test_the_last_worker_keeps_its_slots_while_it_is_away():
    f = primary()
    f.on_timer(5.0)
    assert f.side.table == make_table(1, ["comp0"])
    f.hear("comp0", hello(incarnation=2), 6.0)
    assert f.side.table.version == 1


def test_a_failed_checkpoint_is_tried_again_for_the_sake_of_the_table():
    f = primary(workers="comp0,comp1")
    f.hear("comp1", hello(name="comp1"), 0.0)

    class Failing(Copying):
        def start(self, epoch, now):
            return Step([], Verdict(ok=False, state_copied=False, error="no"))

    f.side.checkpoints.driver = Failing()
    idle(f, 4.0)
    f.hear("comp0", report(), 4.0)
    idle(f, 5.0)
    assert f.counters["checkpoints_failed"] == 1
    f.side.checkpoints.driver = Copying()
    f.hear("comp0", report(), 6.9)
    idle(f, 7.0)
    outputs = f.hear("comp0", Flushed(1, "comp0"), 7.1)
    assert told(outputs, WorkerTable, EVERYBODY) == [make_table(2, ["comp0"])]


def test_a_restarted_frame_learns_the_workers_from_whoever_shares_out_to_them():
    f = primary()
    status = {"workers": ["comp0", "comp1", "comp2"]}
    f.hear("f2", hello("redirector", "redire1"), 1.0)
    f.hear("f2", report("redirector", "redire1", gauges={"table_version": 7}, status=status), 1.1)
    assert f.side.table == make_table(7, status["workers"])


def test_a_restarted_frame_goes_on_with_the_table_and_epoch_that_are_in_use():
    f = Frame(FrameConfig(peer="tcp://192.0.2.2:9005"), 2)
    f.hear("comp0", hello(), 0.0)
    table = make_table(6, ["comp0", "comp1"])
    beat = Heartbeat("secondary", 9, 1, epoch=31, table={"version": 6, "workers": table.workers, "slots": table.slots})
    outputs = f.hear(PEER, beat, 0.1)
    assert told(outputs, WorkerTable, EVERYBODY) == [table]
    f.hear("comp1", hello(name="comp1"), 0.2)
    f.on_timer(1.0)
    assert (f.side.table, f.side.checkpoints.epoch, f.counters["checkpoints_started"]) == (table, 31, 0)


def test_a_restarted_frame_with_named_workers_outnumbers_what_splitters_hold():
    f = Frame(PRIMARY, 2)
    f.hear("redire1", hello("redirector", "redire1"), 0.0)
    outputs = f.hear("redire1", report("redirector", "redire1", gauges={"table_version": 8}), 0.1)
    assert told(outputs, WorkerTable, EVERYBODY) == [make_table(9, ["comp0"])]
