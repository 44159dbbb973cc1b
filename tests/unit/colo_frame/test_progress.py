"""From a request to a checkpoint that is over, with messages and a clock that are fed by hand."""

from colo_frame.peer import PEER
from colo_frame.registry import EVERYBODY
from colo_proto.core import Tell
from colo_proto.messages import Answer, CheckpointDone, Flushed, Query, Reason

from .frames import events, hello, idle, primary, report, request, told


def test_from_request_to_flushed():
    f = primary()
    outputs = f.hear("comp0", request(), 1.0)
    done = [o for o in outputs if isinstance(o, Tell) and isinstance(o.message, CheckpointDone)]
    assert [(o.to, o.message.epoch) for o in done] == [(PEER, 1), (EVERYBODY, 1)]
    outputs = f.hear("comp0", Flushed(1, "comp0", 5, 6), 1.1)
    assert events(outputs) == ["checkpoint.completed"]
    assert f.counters["checkpoints_done"] == 1
    assert f.status(1.1)["checkpoint"]["wanted"][0]["flow"] == "tcp 10.0.0.2:80 > 10.0.0.9:5000"


def test_many_requests_one_checkpoint():
    f = primary(workers="comp0,comp1")
    f.hear("comp1", hello(name="comp1"), 0.0)
    outputs = []
    for number in range(100):
        outputs += f.hear(f"comp{number % 2}", request(source=f"comp{number % 2}"), 1.0)
    assert len(told(outputs, CheckpointDone, EVERYBODY)) == 1
    assert f.counters["checkpoints_coalesced"] == 99


def test_a_lost_worker_does_not_hold_a_checkpoint_up():
    f = primary(workers="comp0,comp1", flush_timeout=60000)
    f.hear("comp1", hello(name="comp1"), 0.0)
    idle(f, 4.5)
    f.hear("comp0", request(), 4.5)
    f.hear("comp0", Flushed(1, "comp0"), 4.6)
    assert f.counters["checkpoints_done"] == 0
    idle(f, 5.0)
    assert f.counters["checkpoints_done"] == 1


def test_the_flush_timeout_is_a_deadline():
    f = primary(heartbeat_interval=60000)
    f.on_timer(0.0)
    f.hear("comp0", request(), 1.0)
    assert f.deadline() == 3.0
    outputs = f.on_timer(3.0)
    assert "checkpoint.completed" in events(outputs)
    assert f.counters["flush_timeouts"] == 1


def test_a_mirror_gap_is_never_taken_for_covered():
    f = primary()
    f.hear("comp0", request(), 1.0)
    f.hear("comp0", Flushed(1, "comp0"), 1.1)
    f.hear("redire1", hello("redirector", "redire1"), 1.2)
    outputs = f.hear("redire1", request(Reason.MIRROR_GAP, epoch=0, source="redire1"), 1.3)
    assert not told(outputs, CheckpointDone), "the interval since the last one is not over"
    outputs = idle(f, 2.1)
    assert told(outputs, CheckpointDone, EVERYBODY) == [CheckpointDone(2, state_copied=False)]


def test_a_demanded_checkpoint():
    f = primary()
    outputs = f.hear("cli", Query("checkpoint"), 1.0)
    assert told(outputs, Answer, "cli")[0].ok
    assert told(outputs, CheckpointDone, EVERYBODY) == [CheckpointDone(1, state_copied=False)]
    assert f.counters["checkpoints_wanted.request"] == 1


def test_checkpoint_interval():
    f = primary(checkpoint_interval=10000)
    f.hear("comp0", request(), 1.0)
    f.hear("comp0", Flushed(1, "comp0"), 1.0)
    assert not told(f.hear("comp0", request(epoch=1), 2.0), CheckpointDone)
    f.hear("comp0", report(), 10.0)
    assert told(f.on_timer(11.0), CheckpointDone, EVERYBODY) == [CheckpointDone(2, state_copied=False)]
