"""Outputs shared out by flow: workers by routing id, each with its own numbers and queue."""

import pytest
import zmq

from colo_proto import codec
from colo_proto.core import Port, Way
from colo_proto.errors import ConfigError
from colo_proto.messages import WorkerTable
from colo_proto.net.flow import SLOTS
from colo_runtime import zmqlink, zmqoptions
from runtime_helpers import Probe, frame, frames, number, send, sink, source, step


def worker(bench, name):
    into = sink()
    return into, bench.shell(into, name, in_=bench.ipc("w"))


def connected(bench, shell, count):
    bench.until(lambda: shell.snapshot().gauges["link.out.peers"] == count)
    # A ROUTER learns of a peer when it looks after what its own thread tells it, and a send looks only now and then.
    shell.links["out"]._wire.socket.get(zmq.EVENTS)


def test_a_worker_is_addressed_by_its_id(bench):
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    (one, _), (two, _) = worker(bench, "comp0"), worker(bench, "comp1")
    connected(bench, a, 2)
    send(a, frames(0, 3), "comp1")
    send(a, frames(3, 2), "comp0")
    send(a, frames(5, 1), "comp1")
    bench.until(lambda: len(one.got["in"]) == 2 and len(two.got["in"]) == 4)
    assert two.got["in"] == [*frames(0, 3), frame(5)]


def test_each_worker_has_its_own_numbers(bench):
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    peers = [bench.zmq(zmq.DEALER, bench.ipc("w"), identity=name) for name in (b"comp0", b"comp1")]
    connected(bench, a, 2)
    for n in range(3):
        send(a, frames(n, 2), "comp0")
    send(a, frames(9, 1), "comp1")
    assert [codec.decode(peers[0].recv()).sequence for _ in range(3)] == [0, 2, 4]
    assert codec.decode(peers[1].recv()).sequence == 0


def test_flows_are_shared_out_by_the_table_and_the_report_says_by_which(bench):
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    (one, _), (two, _) = worker(bench, "comp0"), worker(bench, "comp1")
    connected(bench, a, 2)
    send(a, frames(0, 4))
    assert a.snapshot().counters["link.out.dropped.no_table"] == 4
    slots = [i % 2 for i in range(SLOTS)]
    a._hear(WorkerTable(version=1, workers=["comp0", "comp1"], slots=slots))
    gauges, status = a.snapshot().gauges, a.snapshot().status
    assert gauges["link.out.table_version"] == gauges["table_version"] == 1
    assert (status["workers"], a.snapshot().counters["link.out.tables"]) == (["comp0", "comp1"], 1)
    send(a, frames(0, 4))
    bench.until(lambda: len(one.got["in"]) + len(two.got["in"]) == 4)
    # Frames without a flow all go the same way.
    assert {len(one.got["in"]), len(two.got["in"])} == {0, 4}


def test_frames_for_a_worker_that_is_not_there_are_dropped_by_reason(bench):
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    send(a, frames(0, 3), "nobody")
    assert a.snapshot().counters["link.out.dropped.no_worker"] == 3


def test_one_stuck_worker_does_not_hold_up_another(bench, monkeypatch):
    # What the stuck worker does not take is not waited for when the test has ended.
    monkeypatch.setattr(zmqoptions, "LINGER_MS", 20)
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on", queue_bytes=1 << 20)
    bench.zmq(zmq.DEALER, bench.ipc("w"), identity=b"stuck", hwm=1)
    good, _ = worker(bench, "good")
    connected(bench, a, 2)
    for n in range(1000):
        send(a, [frame(n, 20_000)], "stuck")
        send(a, [frame(n)], "good")
        if n % 20 == 0:
            bench.until(lambda n=n: len(good.got["in"]) == n + 1)
    bench.until(lambda: len(good.got["in"]) == 1000)
    assert good.got["in"] == frames(0, 1000)
    assert 0 < a.links["out"].pending <= 1 << 20
    assert a.snapshot().counters["link.out.dropped.queue_full"] > 0


def test_a_worker_that_dies_gives_its_queue_back(bench):
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    stuck = bench.zmq(zmq.DEALER, bench.ipc("w"), identity=b"stuck", hwm=1)
    connected(bench, a, 1)
    while a.links["out"].pending < 1 << 20:
        send(a, [frame(0, 20_000)], "stuck")
    stuck.close()
    bench.until(lambda: a.links["out"].pending == 0)
    assert a.snapshot().counters["link.out.dropped.no_worker"] > 0


def adds_up(sender, receiver):
    """S6 of a link: what was given to it, and what became of it."""
    out, into = sender.snapshot().counters, receiver.snapshot().counters
    dropped = out["link.out.dropped"]
    return out["link.out.frames_out"], dropped + into.get("link.in.frames_in", 0) + into.get("link.in.lost", 0)


def barriered(bench, name, where="w"):
    """A worker that hears barriers, as compare does: its link says hello when it is connected."""
    into = HearsBarriers()
    return into, bench.shell(into, name, in_=bench.ipc(where))


def test_what_was_dropped_for_want_of_a_worker_is_not_lost_as_well(bench):
    """A link that was cut: the worker is the same one afterwards, and counts what is missing by the numbers."""
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    _, b = barriered(bench, "comp0")
    connected(bench, a, 1)
    send(a, frames(0, 3), "comp0")
    bench.until(lambda: b.snapshot().counters.get("link.in.frames_in") == 3)
    wire = b.links["in"]._wire.socket
    wire.disconnect(bench.ipc("w"))
    connected(bench, a, 0)
    send(a, frames(3, 20), "comp0")
    assert a.snapshot().counters["link.out.dropped.no_worker"] == 20
    wire.connect(bench.ipc("w"))
    connected(bench, a, 1)
    bench.until(lambda: a.snapshot().gauges["link.out.peers"] == 1)
    send(a, frames(23, 2), "comp0")
    bench.until(lambda: b.snapshot().counters.get("link.in.frames_in") == 5)
    assert b.snapshot().counters.get("link.in.lost", 0) == 0
    assert adds_up(a, b) == (25, 25)


def test_what_waited_for_a_worker_that_went_is_not_lost_as_well(bench, monkeypatch):
    monkeypatch.setattr(zmqlink, "ASK", 0.1)
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on", queue_bytes=1 << 20)
    _, b = barriered(bench, "comp0")
    connected(bench, a, 1)
    send(a, frames(0, 1), "comp0")
    # Only a worker that knows that its sender has a worker table asks again when that sender is silent.
    bench.until(lambda: b.snapshot().counters.get("link.in.frames_in") and b.links["in"]._barrier_heard)
    # The worker does not turn meanwhile.
    while True:
        for _ in range(50):
            send(a, [frame(0, 20_000)], "comp0")
        if a.snapshot().counters.get("link.out.dropped.queue_full"):
            break
        step(a)
    waiting = sum(n for _, n in a.links["out"]._queues["comp0"])
    assert waiting
    wire = b.links["in"]._wire.socket
    wire.disconnect(bench.ipc("w"))
    bench.until(lambda: not a.links["out"]._queues)
    wire.connect(bench.ipc("w"))
    connected(bench, a, 1)
    # What ZeroMQ had taken is lost; nobody but the receiver can know, and it does as soon as it is there again.
    bench.until(lambda: len(set(adds_up(a, b))) == 1)
    send(a, frames(0, 2), "comp0")
    bench.until(lambda: len(set(adds_up(a, b))) == 1)


def test_a_restarted_worker_takes_its_id_over(bench):
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    # The first stays connected, as after a host that lost its power: the second has the same id.
    bench.zmq(zmq.DEALER, bench.ipc("w"), identity=b"comp0")
    connected(bench, a, 1)
    again, _ = worker(bench, "comp0")

    def arrived():
        send(a, frames(0, 1), "comp0")
        return again.got["in"]

    bench.until(arrived)


@pytest.mark.parametrize(
    ("endpoint", "way", "named"),
    [
        ("inproc://x?split=on", Way.OUT, "server=on"),
        ("inproc://x?split=on&server=on", Way.IN, "outputs"),
        ("inproc://x?split=on&server=on&reliable=on", Way.OUT, "do not go together"),
        ("inproc://x?reliable=on", Way.BOTH, "one direction"),
    ],
)
def test_what_does_not_go_together(bench, endpoint, way, named):
    with pytest.raises(ConfigError, match=named):
        bench.shell(source(port=way), "a", port=endpoint)


class HearsBarriers(Probe):
    """A core that hears barriers, and keeps them among the frames as they came."""

    def __init__(self):
        super().__init__(**{"in": Way.IN})
        self.ports = (Port("in", Way.IN, required=True, doc="", barriers=True),)
        self.came = []

    def receive(self, port, frames, now):
        self.came += [number(one) for one in frames]
        return []

    def barrier(self, port, version, now):
        self.came.append(f"{port} {version}")
        return []


def table(version, *workers):
    return WorkerTable(version, list(workers), [slot % len(workers) for slot in range(SLOTS)])


class TestBarriers:
    def test_whoever_comes_hears_which_table_is_in_force(self, bench):
        a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
        early, late = HearsBarriers(), HearsBarriers()
        bench.shell(early, "comp0", in_=bench.ipc("w"))
        bench.until(lambda: early.came == ["in -1"])
        a.links["out"].table(table(3, "comp0"))
        bench.shell(late, "comp1", in_=bench.ipc("w"))
        bench.until(lambda: late.came == ["in 3"])
        bench.until(lambda: early.came == ["in -1", "in 3"])

    def test_a_barrier_stands_where_the_table_was_taken_over(self, bench):
        """Also behind a queue, for whoever loses slots, and for whoever gets some."""
        a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
        old, new = HearsBarriers(), HearsBarriers()
        bench.shell(old, "comp0", in_=bench.ipc("w"))
        bench.shell(new, "comp1", in_=bench.ipc("w"))
        bench.until(lambda: old.came and new.came)
        a.links["out"].table(table(1, "comp0"))
        for n in range(400):
            send(a, [frame(n, 20_000)], "comp0")
        assert a.links["out"].pending > 0
        a.links["out"].table(table(2, "comp1"))
        send(a, frames(1000, 3), "comp1")
        a.links["out"].table(table(2, "comp1"))
        bench.until(lambda: "in 2" in old.came and len(new.came) == 5)
        assert old.came == ["in -1", "in 1", *range(400), "in 2"]
        assert new.came == ["in -1", "in 2", 1000, 1001, 1002]
        assert a.links["out"].pending == 0

    def test_other_messages_of_workers_are_garbage(self, bench):
        a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
        bad = bench.zmq(zmq.DEALER, bench.ipc("w"), identity=b"comp0")
        bad.send(b"\xc1")
        bad.send(codec.encode(codec.messages.Drain()))
        bench.until(lambda: a.snapshot().counters.get("link.out.wire_errors.unexpected"))
        assert a.snapshot().counters["link.out.wire_errors.undecodable"] == 1


def test_a_worker_that_asks_and_never_reads_fills_nobody_s_memory(bench):
    """Each greeting is answered with the table in force; one such answer waits for a peer, not a million."""
    a = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
    rude = bench.zmq(zmq.DEALER, bench.ipc("w"), identity=b"comp0", hwm=1)
    connected(bench, a, 1)
    link = a.links["out"]
    # The kernel takes some for a peer that does not read: how many depends on who is scheduled when.
    while "comp0" not in link._queues:
        link._barrier("comp0")
    for _ in range(3000):
        link._barrier("comp0")
    assert len(link._queues["comp0"]) == 1
    assert link.pending == len(link._queues["comp0"][0][0])
    a._hear(WorkerTable(version=1, workers=["comp0"], slots=[0] * SLOTS))
    send(a, frames(0, 1))
    for _ in range(3):
        link._barrier("comp0")
    assert len(link._queues["comp0"]) == 3, "a barrier, frames, a barrier"
    seen = []

    def read():
        while rude.poll(0):
            seen.append(codec.decode(rude.recv()))
        return not link._queues

    bench.until(read)
    bench.until(lambda: read() and [type(one) for one in seen[-2:]] == [codec.Batch, codec.LinkBarrier])
    assert [one.version for one in seen if type(one) is codec.LinkBarrier][-2:] == [1, 1]
