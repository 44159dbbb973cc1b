"""The control link of a filter, with a bare socket in the place of the frame."""

from time import monotonic

import pytest
import zmq

from colo_proto import codec
from colo_proto.core import Tell, Way
from colo_proto.messages import (
    CheckpointDone,
    CheckpointWanted,
    Drain,
    Hello,
    Lease,
    Leaving,
    Report,
    SetMode,
    Welcome,
    WorkerTable,
)
from colo_runtime import control, filtershell
from runtime_helpers import Probe, frame, frames, sink


class Frame:
    """A ROUTER that keeps what it hears."""

    def __init__(self, bench, name="control"):
        self.socket = bench.zmq(zmq.ROUTER, bench.ipc(name), bind=True)
        self.heard = []
        self.peer = b""

    def read(self, kind=None):
        while self.socket.poll(0):
            self.peer, data = self.socket.recv_multipart()
            self.heard.append(codec.decode(data))
        return [m for m in self.heard if kind is None or isinstance(m, kind)]

    def say(self, message):
        data = message if isinstance(message, bytes) else codec.encode(message)
        self.socket.send_multipart([self.peer, data])


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(control, "INTERVAL", 0.02)


def start(bench, **options):
    return bench.shell(sink(), "m0", in_="inproc://in?server=on", frame=bench.ipc("control"), role="mirror", **options)


@pytest.fixture
def joined(bench, quick):
    who, shell = Frame(bench), start(bench)
    bench.until(lambda: who.read(Hello))
    who.say(Welcome(4, "shadow", 99))
    bench.until(lambda: shell.control.welcomed)
    return who, shell


def count(shell, name):
    return shell.snapshot().counters.get("control." + name, 0)


def test_hello_says_who_we_are(bench):
    who, shell = Frame(bench), start(bench)
    (hello, *_) = bench.until(lambda: who.read(Hello))
    assert (hello.role, hello.id, hello.incarnation) == ("mirror", "m0", shell.context.incarnation)
    assert hello.pid > 0
    assert who.peer == b"m0"


def test_it_comes_before_what_had_to_wait_for_the_frame(bench):
    """A frame welcomes whoever speaks to it, and whoever was welcomed says no more who it is: it would never join."""
    shell = start(bench)
    shell.control.tell(CheckpointWanted("mirror_gap", source="m0"))
    who = Frame(bench)
    bench.until(lambda: who.read(CheckpointWanted))
    assert isinstance(who.heard[0], Hello)


def test_it_is_repeated_until_somebody_answers(bench, quick):
    who, shell = Frame(bench), start(bench)
    bench.until(lambda: len(who.read(Hello)) >= 3)
    assert not shell.control.welcomed
    assert who.read(Report) == []


def test_the_frame_may_come_later(bench, quick):
    shell = start(bench)
    bench.turn(0.1)
    who = Frame(bench)
    bench.until(lambda: who.read(Hello))
    who.say(Welcome(1))
    bench.until(lambda: shell.control.welcomed)


def test_a_welcome_brings_the_epoch_and_reaches_the_core(bench, joined):
    _, shell = joined
    assert shell.context.epoch == 4
    assert shell.core.told == [Welcome(4, "shadow", 99)]
    assert shell.waiting_for() == ()


def test_reports_come_by_themselves_and_hold_what_is_counted(bench, joined):
    who, shell = joined
    shell.core.counters["released"] = 5
    bench.until(lambda: any(r.counters.get("released") == 5 for r in who.read(Report)))
    report = who.read(Report)[-1]
    assert (report.role, report.id, report.incarnation) == ("mirror", "m0", shell.context.incarnation)
    assert report.gauges["held"] == 0
    assert report.status["ready"] is True
    assert report.status["endpoints"] == {"in": "inproc://in?server=on"}


def test_checkpoints_done_move_the_epoch(bench, joined):
    who, shell = joined
    who.say(CheckpointDone(7, state_copied=True))
    bench.until(lambda: shell.context.epoch == 7)
    assert shell.core.told[-1] == CheckpointDone(7, state_copied=True)


@pytest.mark.parametrize("message", [SetMode("bypass"), WorkerTable(3, ["comp0"], [0] * 1024)])
def test_messages_reach_the_core(bench, joined, message):
    who, shell = joined
    who.say(message)
    bench.until(lambda: message in shell.core.told)


def test_a_drain_drains(bench, joined):
    who, shell = joined
    who.say(Drain())
    bench.until(lambda: shell.done)
    assert shell.log.events("process.draining") == [{"why": "the frame asks"}]
    # The last report says that it is on its way out.
    bench.until(lambda: who.read(Report)[-1].status["ready"] is False)
    assert who.read(Report)[-1].status["waiting_for"] == ["draining"]


def test_a_frame_that_was_restarted_gets_us_back(bench, joined):
    who, shell = joined
    before = len(who.read(Hello))
    who.say(Welcome(5, incarnation=100))
    bench.until(lambda: len(who.read(Hello)) > before)
    assert shell.log.events("frame.restarted") == [{"incarnation": 100}]
    assert shell.context.epoch == 5


def test_it_learns_from_us_what_permission_we_had(bench, joined):
    """Any process keeps the token of its permission, also one that has no port to the client LAN itself."""
    who, _ = joined
    for number, (lease, known) in enumerate([(Lease(monotonic() + 60, 4), (4, True)), (Lease(0.0, 6), (6, False))]):
        who.say(lease)
        before = len(who.read(Hello))
        who.say(Welcome(5, incarnation=100 + number))
        bench.until(lambda before=before: len(who.read(Hello)) > before)
        hello = who.read(Hello)[-1]
        assert (hello.fence, hello.leased) == known


def test_silence_is_asked_about(bench, joined, monkeypatch):
    who, _ = joined
    monkeypatch.setattr(control, "SILENCE", 0.05)
    before = len(who.read(Hello))
    bench.until(lambda: len(who.read(Hello)) > before)


def test_a_new_frame_at_the_same_place(bench, joined):
    who, shell = joined
    who.socket.close()
    bench.turn(0.1)
    again = Frame(bench)
    bench.until(again.read)
    again.say(Welcome(9, incarnation=123))
    bench.until(lambda: shell.context.epoch == 9)


def test_messages_wait_in_order_while_nobody_is_there_and_the_oldest_makes_room(bench, quick):
    shell = start(bench)
    for n in range(control.MAX_QUEUED + 10):
        shell._tell(CheckpointWanted("payload", offset=n))
    assert len(shell.control._queue) == control.MAX_QUEUED
    assert count(shell, "dropped.queue_full") == 10
    who = Frame(bench)
    bench.until(lambda: len(who.read(CheckpointWanted)) == control.MAX_QUEUED)
    assert [m.offset for m in who.read(CheckpointWanted)] == list(range(10, control.MAX_QUEUED + 10))


GARBAGE = {
    "undecodable": b"\xc1random",
    "version": b"\x94\x02\x04\xa5drain\x80",
    "unknown_message": b"\x94\x01\x04\xa8tomorrow\x80",
    "malformed": b"\x94\x01\x04\xa8set_mode\x80",
    "unexpected": codec.encode_batch("x", 1, 0, 0, 0.0, [frame(1)]),
}


@pytest.mark.parametrize("reason", GARBAGE)
def test_garbage_is_counted_logged_once_and_harms_nobody(bench, joined, reason):
    who, shell = joined
    for _ in range(10):
        who.say(GARBAGE[reason])
    who.say(SetMode("bypass"))
    bench.until(lambda: SetMode("bypass") in shell.core.told)
    assert count(shell, f"wire_errors.{reason}") == 10
    assert len(shell.log.events("message.refused")) == 1
    # Frames flow as before.
    bench.zmq(zmq.DEALER, "inproc://in").send(codec.encode_batch("x", 1, 0, 0, 0.0, frames(0, 3)))
    bench.until(lambda: shell.core.got["in"] == frames(0, 3))


def test_messages_of_several_parts_are_counted(bench, joined):
    who, shell = joined
    who.socket.send_multipart([who.peer, b"a", b"b", b"c"])
    bench.until(lambda: count(shell, "wire_errors.multipart"))


def test_without_a_frame_a_request_is_counted_and_logged(bench):
    shell = bench.shell(sink(), "x", in_="inproc://in?server=on")
    for _ in range(5):
        shell._tell(CheckpointWanted("payload", "tcp a > b"))
    assert count(shell, "untold") == 5
    assert shell.log.events("checkpoint.unheard") == [{"reason": "payload", "flow": "tcp a > b"}]


class Leaver(Probe):
    """A core that has something to hand over."""

    def leave(self, now):
        return [Tell(Leaving("m0"))]


class TestLeaving:
    """SIGTERM of a process whose flows others can take over."""

    @pytest.fixture
    def leaving(self, bench, quick):
        who = Frame(bench)
        core = Leaver(**{"in": Way.IN})
        shell = bench.shell(core, "m0", in_="inproc://in?server=on", frame=bench.ipc("control"), role="compare")
        bench.until(lambda: who.read(Hello))
        who.say(Welcome(4, "enforce", 99))
        bench.until(lambda: shell.control.welcomed)
        shell.drain("SIGTERM")
        bench.until(lambda: who.read(Leaving))
        return who, shell

    def test_it_says_so_and_goes_on_until_it_may(self, bench, leaving):
        who, shell = leaving
        bench.turn(0.1)
        assert not shell.draining
        assert shell.waiting_for() == ("leaving",)
        assert shell.links["in"].opened
        who.say(Drain())
        bench.until(lambda: shell.done)

    def test_a_frame_that_goes_itself_is_not_waited_for(self, bench, leaving):
        who, shell = leaving
        who.socket.close(0)
        bench.until(lambda: shell.done)

    def test_nor_one_that_stays_silent(self, bench, quick, monkeypatch):
        monkeypatch.setattr(filtershell, "LEAVE", 0.1)
        core = Leaver(**{"in": Way.IN})
        who = Frame(bench)
        shell = bench.shell(core, "m0", in_="inproc://in?server=on", frame=bench.ipc("control"), role="compare")
        bench.until(lambda: who.read(Hello))
        shell.drain("SIGTERM")
        bench.until(lambda: shell.done)

    def test_without_a_frame_it_ends_at_once(self, bench):
        shell = bench.shell(Leaver(**{"in": Way.IN}), "m0", in_="inproc://in?server=on", frame=bench.ipc("nobody"))
        shell.drain("SIGTERM")
        assert shell.draining
