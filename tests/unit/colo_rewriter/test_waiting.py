from colo_proto.net.tcp import Segment
from colo_rewriter import waiting
from colo_rewriter.flow import Arrival, Flow
from colo_rewriter.waiting import Waiting


def flow(number=1):
    return Flow(bytes([number]), bytes([number, 0]), 0.0)


def arrival(frame=b"frame"):
    return Arrival(frame, b"", 0, Segment(0, 0, 16, 0, 0, 0), True)


def test_frames_leave_in_the_order_they_came():
    w, one = Waiting(4, 1.0), flow()
    assert all(w.hold(one, arrival(bytes([n])), 0.0) for n in range(3))
    assert (w.frames, w.bytes) == (3, 3)
    assert [a.frame for a in w.take(one)] == [b"\0", b"\1", b"\2"]
    assert (w.frames, w.bytes, w.timer.deadline(), w.take(one)) == (0, 0, None, [])


def test_the_bound_per_flow():
    w, one = Waiting(2, 1.0), flow()
    assert [w.hold(one, arrival(), 0.0) for _ in range(3)] == [True, True, False]


def test_the_bounds_of_all_flows(monkeypatch):
    w = Waiting(64, 1.0)
    monkeypatch.setattr(waiting, "MAX_BYTES", 12)
    assert w.hold(flow(1), arrival(), 0.0)
    assert w.hold(flow(2), arrival(), 0.0)
    assert not w.hold(flow(3), arrival(), 0.0)
    monkeypatch.setattr(waiting, "MAX_BYTES", 1000)
    monkeypatch.setattr(waiting, "MAX_FRAMES", 2)
    assert not w.hold(flow(3), arrival(), 0.0)


def test_a_flow_is_overdue_by_its_first_frame():
    w, first, second = Waiting(4, 1.0), flow(1), flow(2)
    w.hold(first, arrival(), 0.0)
    w.hold(second, arrival(), 0.5)
    w.hold(first, arrival(), 0.9)
    assert w.timer.deadline() == 1.0
    assert w.timer.overdue(0.99) == []
    assert w.timer.overdue(1.0) == [first]
    assert w.timer.overdue(1.5) == [first, second] == w.timer.flows()
    w.take(first)
    assert w.timer.deadline() == 1.5
