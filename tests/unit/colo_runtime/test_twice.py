"""Two processes with the same id: who is cut off notices, is back when the other one is gone, and the frame says it.

A ROUTER gives the place of an id to who comes last. The connection of who had it stands, and nothing tells him.
"""

import pytest

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.shell import FrameShell
from colo_proto import replay
from colo_proto.core import Port, Send, Way
from colo_proto.endpoint import parse_endpoint
from colo_proto.messages import WorkerTable
from colo_proto.shard import SLOTS
from colo_runtime import control, reliable, zmqlink, zmqsocket
from colo_runtime.options import CommonConfig
from runtime_helpers import Log, frames, sink, source


def frame_of(bench, name="frame-p", peer="", listen=""):
    endpoints = {"listen": parse_endpoint(bench.ipc(listen or name) + "?server=on")}
    if peer:
        endpoints["peer"] = parse_endpoint(peer)
    side = "secondary" if name.endswith("s") else "primary"
    core = Frame(FrameConfig(id=name, side=side, peer=peer, heartbeat_interval=20), 1 + len(name + listen), 0.0)
    shell = FrameShell(core, endpoints, CommonConfig(id=name), Log(), zmq_context=bench.context)
    # The shell looks once a second whether it hears the other host. Here a second takes 50 ms.
    later = shell.reactor.call_later
    shell.reactor.call_later = lambda seconds, fn: later(seconds / 20, fn)
    return bench.add(shell)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(zmqsocket, "SILENT", 3)
    monkeypatch.setattr(control, "INTERVAL", 0.05)
    monkeypatch.setattr(control, "SILENCE", 0.08)
    monkeypatch.setattr(zmqlink, "ASK", 0.05)
    monkeypatch.setattr(reliable, "TICK", 0.03)
    monkeypatch.setattr(reliable, "TICKS", 3)
    monkeypatch.setattr(replay, "SENDER_SILENCE", 0.15)
    monkeypatch.setattr(reliable, "ANNOUNCE", 0.03)


def send(shell, some):
    shell._do([Send("out", some)])


def test_control(bench):
    frame = frame_of(bench)
    core = sink()
    one = bench.shell(core, "comp0", in_="inproc://a?server=on", frame=bench.ipc("frame-p"), role="compare")
    bench.until(lambda: one.control.welcomed)
    two = bench.shell(sink(), "comp0", in_="inproc://b?server=on", frame=bench.ipc("frame-p"), role="compare")
    bench.until(lambda: two.control.welcomed)
    bench.drop(two)
    bench.until(lambda: one.control.counters["redialled"])
    at = frame.core.side.registry.processes["comp0"]
    bench.until(lambda: at.incarnation == one.context.incarnation)
    before = one.control._heard
    bench.until(lambda: one.control._heard > before)
    assert one.log.events("link.silent")[0]["port"] == "frame"
    said = frame.log.events("process.twice")[0]
    assert (said["id"], said["incarnation"]) == ("comp0", one.context.incarnation)
    assert said["lost_incarnation"] == two.context.incarnation
    assert frame.snapshot().counters["ids_twice"] >= 1
    calm = one.control.counters["redialled"]
    bench.turn(0.5)
    assert one.control.counters["redialled"] <= calm + 1, "it hears, and stays"


def worker():
    core = sink()
    core.ports = (Port("in", Way.IN, required=True, doc="in", barriers=True),)
    core.barriers = []
    core.barrier = lambda port, version, now: core.barriers.append(version) or []
    return core


def test_a_worker_of_a_split_link(bench):
    a = bench.shell(source(), "redire1", out=bench.ipc("s") + "?server=on&split=on")
    core = worker()
    one = bench.shell(core, "comp0", in_=bench.ipc("s"))
    bench.until(lambda: core.barriers)
    a._hear(WorkerTable(version=1, workers=["comp0"], slots=[0] * SLOTS))
    bench.until(lambda: 1 in core.barriers)
    other = worker()
    two = bench.shell(other, "comp0", in_=bench.ipc("s"))
    bench.until(lambda: other.barriers)
    bench.drop(two)
    bench.until(lambda: one.links["in"].counters["redialled"])
    send(a, frames(0, 1))
    bench.until(lambda: send(a, frames(1, 1)) or core.got["in"])
    assert one.links["in"]._wire.peers == 1
    assert one.log.events("link.silent")[0]["port"] == "in"
    calm = one.links["in"].counters["redialled"]
    bench.turn(0.5)
    assert one.links["in"].counters["redialled"] == calm, "an idle link is not a silent one"


def test_a_worker_of_one_that_does_not_share_out_is_left_alone(bench):
    bench.shell(source(), "a", out=bench.ipc("s") + "?server=on")
    one = bench.shell(worker(), "comp0", in_=bench.ipc("s"))
    bench.until(lambda: one.links["in"]._wire.peers)
    bench.turn(0.5)
    assert not one.links["in"].counters["redialled"]


def test_a_reliable_input(bench):
    a = bench.shell(source(), "m0", out=bench.ipc("r") + "?server=on&reliable=on")
    one = bench.shell(sink(), "f1", in_=bench.ipc("r") + "?reliable=on")
    send(a, frames(0, 3))
    bench.until(lambda: len(one.core.got["in"]) == 3)
    two = bench.shell(sink(), "f1", in_=bench.ipc("r") + "?reliable=on")
    bench.until(lambda: two.links["in"]._senders[b""].receiver.incarnation)
    bench.drop(two)
    bench.until(lambda: one.links["in"].counters["redialled"])
    send(a, frames(3, 3))
    bench.until(lambda: one.core.got["in"][-1:] == frames(5, 1))
    calm = one.links["in"].counters["redialled"]
    bench.turn(0.5)
    assert one.links["in"].counters["redialled"] == calm


def test_a_reliable_output(bench):
    into = bench.shell(sink(), "b", in_=bench.ipc("r") + "?server=on&reliable=on")
    one = bench.shell(source(), "a", out=bench.ipc("r") + "?reliable=on")
    send(one, frames(0, 3))
    bench.until(lambda: len(into.core.got["in"]) == 3)
    two = bench.shell(source(), "a", out=bench.ipc("r") + "?reliable=on")
    send(two, frames(100, 3))
    bench.until(lambda: frames(102, 1)[0] in into.core.got["in"])
    bench.drop(two)
    send(one, frames(3, 3))
    bench.until(lambda: frames(5, 1)[0] in into.core.got["in"])
    assert one.links["out"].counters["redialled"]
    calm = one.links["out"].counters["redialled"]
    bench.turn(0.5)
    assert one.links["out"].counters["redialled"] == calm


def test_the_other_hosts_frame(bench, monkeypatch):
    where = bench.ipc("peer")
    p = frame_of(bench, "frame-p", peer=where + "?server=on")
    s = frame_of(bench, "frame-s", peer=where)
    bench.until(lambda: s._peer_heard > 0 and p._peer_heard > 0)
    two = frame_of(bench, "frame-s", peer=where, listen="other")
    bench.until(lambda: two._peer_heard > 0)
    bench.drop(two)
    lost = s._peer_heard
    bench.until(lambda: s.counters["control.redialled"])
    bench.until(lambda: s._peer_heard > lost)
