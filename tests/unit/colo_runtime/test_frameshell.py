"""The frame behind real sockets: processes, questions, the other host's frame, and garbage from all of them."""

import threading

import pytest
import zmq

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.shell import MAX_KNOWN, MAX_QUEUED, FrameShell
from colo_proto import codec
from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError, StartError
from colo_proto.messages import (
    Answer,
    CheckpointDone,
    CheckpointWanted,
    Flushed,
    Heartbeat,
    Hello,
    Query,
    Report,
    SetMode,
    Welcome,
    WorkerTable,
)
from colo_runtime.client import NoAnswerError, ask, request
from colo_runtime.options import CommonConfig
from runtime_helpers import Log, frames


def frame_of(bench, name="frame-p", peer="", **config):
    endpoints = {"listen": parse_endpoint(bench.ipc(name) + "?server=on")}
    if peer:
        endpoints["peer"] = parse_endpoint(peer)
    side = "secondary" if name.endswith("s") else "primary"
    core = Frame(FrameConfig(id=name, side=side, peer=peer, heartbeat_interval=20, **config), 1 + len(name), 0.0)
    return bench.add(FrameShell(core, endpoints, CommonConfig(id=name), Log(), zmq_context=bench.context))


class Process:
    """A process of the host, played by a bare socket."""

    def __init__(self, bench, name, role="compare", where="frame-p"):
        self.socket = bench.zmq(zmq.DEALER, bench.ipc(where), identity=name.encode())
        self.name, self.role = name, role
        self.heard = []

    def say(self, message):
        self.socket.send(message if isinstance(message, bytes) else codec.encode(message))

    def hello(self):
        self.say(Hello(self.role, self.name, 7, 42))

    def read(self, kind=None):
        while self.socket.poll(0):
            self.heard.append(codec.decode(self.socket.recv()))
        return [m for m in self.heard if kind is None or isinstance(m, kind)]


def count(shell, name):
    return shell.snapshot().counters.get(name, 0)


def question(bench, shell, query):
    """Ask as `colo status` does, from another thread, while the loops turn."""
    got = []
    thread = threading.Thread(target=lambda: got.append(ask(shell._listen, query, 60)), daemon=True)
    thread.start()
    bench.until(lambda: got)
    thread.join()
    return got[0]


def test_a_process_is_welcomed_and_told_the_table(bench):
    frame_of(bench, workers="comp0")
    one = Process(bench, "redire1", "redirector")
    one.hello()
    bench.until(lambda: one.read(Welcome) and one.read(WorkerTable))
    assert one.read(WorkerTable)[0].workers == ["comp0"]


def test_the_status_holds_what_processes_report(bench):
    shell = frame_of(bench)
    one = Process(bench, "m0", "mirror")
    one.hello()
    one.say(Report("mirror", "m0", 7, {"frames": 3}, {"held": 0}, {"ready": True}, 42))
    bench.until(lambda: count(shell, "control.received") == 2)
    answer = question(bench, shell, Query("status"))
    assert answer.ok
    (entry,) = [e for e in answer.body["processes"] if e["id"] == "m0"]
    assert entry["counters"] == {"frames": 3}


def test_a_pair_that_is_not_protected_is_ready_all_the_same(bench):
    shell = frame_of(bench)
    answer = question(bench, shell, Query("status"))
    assert answer.body["verdict"]["level"] == "unprotected"
    now = shell.snapshot()
    assert now.status["ready"]
    assert now.note.startswith("the pair is unprotected (no secondary")
    assert now.gauges["verdict"] == 4


def test_a_process_whose_connection_has_ended_is_gone_at_the_next_message(bench):
    shell = frame_of(bench)
    one = Process(bench, "redire0", "redirector")
    one.hello()
    bench.until(lambda: one.read(Welcome))
    one.socket.close(0)
    bench.until(lambda: shell.core.side.registry.processes["redire0"].gone is not None)
    answer = question(bench, shell, Query("status"))
    (entry,) = answer.body["processes"]
    assert entry["state"] == "gone"
    assert answer.body["verdict"]["causes"][-1]["text"] == "the primary's chain is broken: redire0 silent"


def test_a_checkpoint_from_request_to_flush(bench):
    frame_of(bench, workers="comp0")
    one, two = Process(bench, "comp0"), Process(bench, "rew0", "rewriter")
    for process in (one, two):
        process.hello()
        bench.until(lambda process=process: process.read(Welcome))
    one.say(CheckpointWanted("payload", "tcp a > b", 3, source="comp0"))
    bench.until(lambda: one.read(CheckpointDone) and two.read(CheckpointDone))
    (done,) = one.read(CheckpointDone)
    assert (done.epoch, done.state_copied) == (1, False)
    one.say(Flushed(1, "comp0", 2, 1))
    shell = bench.shells[0]
    bench.until(lambda: count(shell, "flush_released") == 2)


def test_modes_reach_every_compare(bench):
    shell = frame_of(bench)
    some = [Process(bench, f"comp{n}") for n in range(3)]
    for one in some:
        one.hello()
        bench.until(lambda one=one: one.read(Welcome))
    assert question(bench, shell, Query("mode", {"mode": "shadow"})).ok
    bench.until(lambda: all(one.read(SetMode) for one in some))


def test_the_two_frames_of_a_pair_find_each_other_and_again(bench):
    primary = frame_of(bench, "frame-p", "inproc://peer?server=on")
    for _ in range(2):
        secondary = frame_of(bench, "frame-s", "inproc://peer")
        bench.until(lambda: primary.snapshot().gauges["peer_alive"])
        bench.until(lambda s=secondary: s.snapshot().gauges["peer_alive"])
        bench.drop(secondary)
        bench.until(lambda: not primary.snapshot().gauges["peer_alive"])


def test_what_is_said_to_an_absent_peer_has_a_bound(bench):
    shell = frame_of(bench, "frame-s", bench.ipc("nobody"))
    for _ in range(MAX_QUEUED + 10):
        shell._tell(SetMode("shadow"), "peer")
    assert count(shell, "control.dropped.peer_queue_full") >= 10


def test_a_process_that_has_gone_is_counted(bench):
    shell = frame_of(bench)
    shell._tell(SetMode("shadow"), "nobody")
    assert count(shell, "control.dropped.gone") == 1


class TestGarbage:
    @pytest.mark.parametrize(
        ("reason", "message"),
        [
            ("undecodable", b"\xc1random"),
            ("version", b"\x94\x02\x04\xa5drain\x80"),
            ("malformed", b"\x94\x01\x04\xa5hello\x80"),
            ("unexpected", codec.encode_batch("x", 1, 0, 0, 0.0, frames(0, 1))),
        ],
    )
    def test_from_processes(self, bench, reason, message):
        shell = frame_of(bench)
        bad, good = Process(bench, "bad"), Process(bench, "comp0")
        for _ in range(10):
            bad.say(message)
        bench.until(lambda: count(shell, f"control.wire_errors.{reason}") == 10)
        assert len(shell.log.events("message.refused")) == 1
        good.hello()
        bench.until(lambda: good.read(Welcome))

    def test_from_the_peer(self, bench):
        shell = frame_of(bench, "frame-p", bench.ipc("peer") + "?server=on")
        bad = bench.zmq(zmq.DEALER, bench.ipc("peer"), identity=b"frame-s")
        bad.send(b"\xc1")
        bad.send(codec.encode(Heartbeat("secondary", 9, 1, 0)))
        bench.until(lambda: shell.snapshot().gauges["peer_alive"])
        assert count(shell, "control.wire_errors.undecodable") == 1

    @pytest.mark.parametrize("name", [b"\xff\xfe\x80", b"peer", b"*", b"x" * 200, "ü".encode()])
    def test_from_somebody_with_an_odd_name(self, bench, name):
        shell = frame_of(bench)
        odd = bench.zmq(zmq.DEALER, bench.ipc("frame-p"), identity=name)
        odd.send(codec.encode(Hello("compare", "other", 7, 42)))
        odd.send(codec.encode(Report("compare", "other", 7, {}, {}, {"x": 1})))
        odd.send(codec.encode(CheckpointWanted("payload", source="other")))
        bench.until(lambda: count(shell, "control.received") >= 3)
        # Whatever became of it, the frame can still say so.
        assert question(bench, shell, Query("status")).ok

    def test_absurd_numbers_are_passed_on_like_any(self, bench):
        shell = frame_of(bench)
        one = Process(bench, "m0", "mirror")
        one.hello()
        huge = 2**63 - 1
        one.say(Report("mirror", "m0", 7, {f"c{n}": huge for n in range(500)}, {}, {"deep": [[[[1]]]]}))
        one.say(Flushed(huge, "m0", huge, huge))
        one.say(Flushed(huge, "m0", huge, huge))
        one.say(Flushed(huge, "m0", huge, huge))
        bench.until(lambda: count(shell, "control.received") == 5)
        assert question(bench, shell, Query("status")).ok


class TestAsking:
    def test_unknown_questions_get_an_answer(self, bench):
        shell = frame_of(bench)
        answer = question(bench, shell, Query("weather"))
        assert isinstance(answer, Answer)
        assert not answer.ok
        assert "weather" in answer.error

    def test_nobody_there(self, bench):
        with pytest.raises(NoAnswerError, match="no answer within 0.05 s"):
            ask(bench.ipc("none"), Query("status"), 0.05)
        with pytest.raises(StartError, match="no answer"):
            request(bench.ipc("none"), Query("status"), 0.05)

    def test_somebody_else_there(self, bench):
        other = bench.zmq(zmq.ROUTER, bench.ipc("other"), bind=True)
        raised = []

        def run():
            try:
                ask(bench.ipc("other"), Query("status"), 60)
            except NoAnswerError as error:
                raised.append(str(error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        bench.until(lambda: other.poll(0))
        sender, _ = other.recv_multipart()
        other.send_multipart([sender, b"\xc1"])
        bench.until(lambda: raised)
        thread.join()
        assert "no frame" in raised[0]

    @pytest.mark.parametrize("where", ["tap://x", "chardev+unix:///x", "pcap:///x"])
    def test_what_cannot_be_a_frame(self, where):
        with pytest.raises(ConfigError, match="control link of a frame"):
            ask(where, Query("status"))


@pytest.mark.parametrize(
    ("endpoints", "named"),
    [
        ({"listen": "chardev+unix:///x"}, "--listen .*a plain ipc:// or tcp://"),
        ({"listen": "ipc:///x", "peer": "tcp://h:1?reliable=on"}, "--peer .*a plain"),
    ],
)
def test_endpoints_that_do_not_go(bench, endpoints, named):
    core = Frame(FrameConfig(id="f"), 1, 0.0)
    parsed = {name: parse_endpoint(text) for name, text in endpoints.items()}
    with pytest.raises(ConfigError, match=named):
        FrameShell(core, parsed, CommonConfig(id="f"), Log(), zmq_context=bench.context)


def nested(depth):
    return {"x": nested(depth - 1)} if depth else 1


def test_two_hundred_great_reports_leave_the_frame_small_and_its_status_readable(bench):
    """Refused by their size before they are read: 3.9 MB of small things are hundreds of megabytes in memory."""
    shell = frame_of(bench)
    great = Report("mirror", "x", 7, {}, {}, {"x": "y" * 3_900_000})
    refused = "control.wire_errors.oversized"
    for number in range(20):
        one = Process(bench, f"m{number}", "mirror")
        one.hello()
        one.say(great)
        bench.until(lambda n=number: count(shell, refused) == n + 1)
    deep = Process(bench, "deep", "mirror")
    deep.hello()
    for depth in range(17):
        deep.say(Report("mirror", "deep", 7, {}, {}, {"x": nested(depth)}))
    bench.until(lambda: count(shell, "control.received") == 38)
    assert len(question(bench, shell, Query("status")).body["processes"]) == 21
    assert shell.core.side.registry.weight < 10_000


def test_a_stranger_under_many_names_gets_one_line(bench):
    shell = frame_of(bench)
    for number in range(20):
        bench.zmq(zmq.DEALER, bench.ipc("frame-p"), identity=f"x{number}".encode()).send(b"junk")
    bench.until(
        lambda: count(shell, "control.wire_errors.undecodable") + count(shell, "control.wire_errors.malformed") == 20
    )
    assert len(shell.log.events("message.refused")) == 1


def test_whom_the_frame_did_not_welcome_is_not_told_everything(bench):
    shell = frame_of(bench)
    one = Process(bench, "x", "r" * 1000)
    one.hello()
    bench.until(lambda: count(shell, "hellos_refused"))
    assert shell.snapshot().status["known"] == []


def test_those_who_are_told_everything_are_bounded(bench):
    shell = frame_of(bench)
    for number in range(3 * MAX_KNOWN):
        shell._note_known(f"p{number}")
    shell._note_known(f"p{2 * MAX_KNOWN}")
    assert len(shell._known) == MAX_KNOWN
    assert next(reversed(shell._known)) == f"p{2 * MAX_KNOWN}"
