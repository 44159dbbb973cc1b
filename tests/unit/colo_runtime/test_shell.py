"""The shell around a core: what it does with outputs, how it starts, drains and ends."""

import os
import signal
import time
from io import BytesIO
from struct import pack

import pytest
import zmq

from colo_proto import codec
from colo_proto.core import Log as LogOutput
from colo_proto.core import Save, Send, Tell, Way
from colo_proto.endpoint import parse_endpoint
from colo_proto.errors import ConfigError, StartError
from colo_proto.messages import CheckpointWanted, WorkerTable
from colo_proto.pcapng import Capture, Shown
from colo_runtime.capture import read_capture
from colo_runtime.filtershell import FilterShell
from colo_runtime.options import CommonConfig
from runtime_helpers import Log, frame, frames, relay, sink, source, step

CAPTURE = Capture(("primary",), (Shown(0, 1.0, frame(1), "differs"),), "verdict")


def count(shell, name):
    return shell.snapshot().counters.get(name, 0)


class TestOutputs:
    def test_each_kind_goes_where_it_belongs(self, bench):
        shell = bench.shell(source(), "a", out="inproc://o?server=on")
        peer = bench.zmq(zmq.DEALER, "inproc://o")
        path = bench.directory / "evidence" / "1.pcapng"
        shell._do([
            Send("out", frames(0, 2)),
            LogOutput("warning", "miscompare.found", {"offset": 3}),
            Save(str(path), CAPTURE),
            Tell(CheckpointWanted("payload")),
        ])  # fmt: skip
        assert codec.decode(peer.recv()).frames == frames(0, 2)
        assert shell.log.events("miscompare.found") == [{"offset": 3}]
        assert [len(one) for one in read_capture(BytesIO(path.read_bytes()))] == [60]
        assert count(shell, "control.untold") == 1

    def test_frames_for_a_port_that_is_not_connected_are_dropped_by_reason(self, bench):
        core = source(out=Way.OUT)
        shell = bench.shell(core, "a", out="inproc://o?server=on")
        shell._do([Send("elsewhere", frames(0, 3))])
        assert count(shell, "link.elsewhere.dropped.unconnected") == 3

    def test_a_file_that_cannot_be_written_is_counted_and_said(self, bench):
        shell = bench.shell(source(), "a", out="inproc://o?server=on")
        shell._do([Save("/proc/nothing/evidence", CAPTURE)] * 3)
        assert count(shell, "files_not_written") == 3
        assert len(shell.log.events("file.not_written")) == 1

    def test_a_worker_table_reaches_links_and_core(self, bench):
        shell = bench.shell(source(), "a", out=bench.ipc("w") + "?server=on&split=on")
        table = WorkerTable(1, ["comp0"], [0] * 1024)
        shell._hear(table)
        assert shell.core.told == [table]
        assert shell.snapshot().gauges["link.out.table_version"] == 1


class TestTimer:
    def test_the_core_is_called_when_it_is_due_and_not_before(self, bench):
        core = source()
        shell = bench.shell(core, "a", out="inproc://o?server=on")
        step(shell)
        assert core.timers == []
        core.due = due = time.monotonic() + 0.05
        bench.until(lambda: core.timers)
        assert core.timers[0] >= due
        assert core.due is None


class TestStart:
    @pytest.fixture
    def make(self, bench):
        def make(core, common=None, notify=None, **endpoints):
            parsed = {name: parse_endpoint(text) for name, text in endpoints.items()}
            common = common or CommonConfig(id="x")
            return FilterShell("probe", core, parsed, common, Log(), zmq_context=bench.context, notify_dev=notify)

        return make

    def test_a_required_port(self, make):
        with pytest.raises(ConfigError, match=r"--out: required \(out\)"):
            make(source())

    @pytest.mark.parametrize("frame", ["ipc:///f?server=on", "chardev+unix:///f", "tcp://h:1?reliable=on", "tap://f"])
    def test_a_control_link_that_is_none(self, make, frame):
        with pytest.raises(ConfigError, match="--frame .*: a plain ipc:// or tcp:// endpoint to connect to"):
            make(source(), CommonConfig(id="x", frame=frame), out="inproc://o?server=on")

    def test_two_control_links(self, make):
        with pytest.raises(ConfigError, match="one control link only"):
            make(
                source(), CommonConfig(id="x", frame="ipc:///a"), parse_endpoint("ipc:///b"), out="inproc://o?server=on"
            )

    def test_what_was_opened_is_closed_when_something_fails(self, bench):
        with pytest.raises(StartError):
            bench.shell(
                sink(a=Way.IN, b=Way.IN), "x", a=f"chardev+unix://{bench.path('a')}?server=on",
                b=f"chardev+unix://{bench.path('no/b')}?server=on",
            )  # fmt: skip
        assert not os.path.exists(bench.path("a"))

    def test_no_descriptor_is_left_open(self, bench, make):
        def whole_life():
            shell = make(relay(), indev=bench.ipc("i") + "?server=on", outdev=bench.ipc("o") + "?server=on&reliable=on")
            shell.open()
            step(shell)
            shell.close()

        whole_life()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            whole_life()
        # libzmq's own thread closes what we closed, a moment later.
        bench.until(lambda: len(os.listdir("/proc/self/fd")) <= before)


class TestDrain:
    def test_what_the_core_still_holds_goes_out(self, bench):
        core = relay()
        core.on_drain = [Send("outdev", frames(50, 2))]
        shell = bench.shell(core, "x", indev="inproc://i?server=on", outdev=bench.ipc("o") + "?server=on")
        into = sink()
        other = bench.shell(into, "y", in_=bench.ipc("o"))
        bench.zmq(zmq.DEALER, "inproc://i").send(codec.encode_batch("s", 1, 0, 0, 0.0, frames(0, 3)))
        bench.until(lambda: len(into.got["in"]) == 3)
        shell.drain("test")
        bench.until(lambda: shell.done)
        bench.drop(shell)
        bench.until(lambda: len(into.got["in"]) == 5, [other])
        assert into.got["in"] == [*frames(0, 3), *frames(50, 2)]
        assert shell.log.events("process.stopped") == [{"status": 0}]

    def test_not_ready_first_and_no_more_input(self, bench):
        core = relay()
        shell = bench.shell(
            core, "x", indev="inproc://i?server=on", outdev=bench.ipc("o") + "?server=on", drain_timeout=30
        )
        shell._do([Send("outdev", frames(0, 70, 60_000))])
        assert shell.links["outdev"].pending
        shell.drain("test")
        assert shell.waiting_for()[0] == "draining"
        bench.zmq(zmq.DEALER, "inproc://i").send(codec.encode_batch("s", 1, 0, 0, 0.0, frames(0, 3)))
        bench.turn(0.1)
        assert core.got["indev"] == []
        assert not shell.done
        into = sink()
        bench.shell(into, "y", in_=bench.ipc("o"))
        bench.until(lambda: shell.done)
        bench.until(lambda: len(into.got["in"]) == 70)

    def test_at_most_for_the_drain_timeout(self, bench):
        shell = bench.shell(source(), "x", out=bench.ipc("o") + "?server=on", drain_timeout=0.05)
        shell._do([Send("out", frames(0, 3))])
        shell.drain("test")
        bench.until(lambda: shell.done)
        bench.drop(shell)
        assert shell.links["out"].counters["dropped.closed"] == 3

    def test_a_reliable_output_waits_for_acknowledgements(self, bench):
        shell = bench.shell(source(), "x", out=bench.ipc("o") + "?server=on&reliable=on", drain_timeout=60)
        into = sink()
        other = bench.shell(into, "y", in_=bench.ipc("o") + "?reliable=on")
        bench.until(lambda: shell.links["out"].sender.attached)
        shell._do([Send("out", frames(0, 500))])
        shell.drain("test")
        assert not shell.done
        bench.until(lambda: shell.done)
        assert shell.links["out"].sender.unacknowledged == 0
        bench.until(lambda: len(into.got["in"]) == 500, [other])

    def test_twice_is_once(self, bench):
        core = source()
        shell = bench.shell(core, "x", out="inproc://o?server=on")
        shell.drain("one")
        shell.drain("two")
        assert shell.log.events("process.draining") == [{"why": "one"}]


class TestSignals:
    def start(self, bench, *more):
        child = bench.colo(
            "redirector", "--id", "r", "--netdev", f"chardev+unix://{bench.path('n')}?server=on", "--outdev",
            f"chardev+unix://{bench.path('o')}?server=on", *more,
        )  # fmt: skip
        return child, bench.unix(bench.path("n")), bench.unix(bench.path("o"))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_one_drains_and_the_status_is_zero(self, bench, number):
        child, into, out = self.start(bench)
        into.sendall(pack("!I", 60) + frame(1)[10:])
        assert len(out.recv(64, 0)) == 64
        child.send_signal(number)
        assert child.wait(60) == 0
        log = bench.logs()
        assert log.index("process.draining") < log.index("process.stopped")
        assert signal.Signals(number).name in log
        assert not os.path.exists(bench.path("n"))

    def test_a_second_one_leaves_at_once(self, bench):
        # The peer does not read, so there is something to drain for a minute.
        child, into, _out = self.start(bench, "--drain-timeout", "60")
        into.setblocking(False)
        sent, data = 0, pack("!I", 60_000) + frame(1, 60_000)[10:]
        end = time.monotonic() + 60
        while sent < 40 * len(data):
            try:
                sent += into.send((data * 2)[sent % len(data) :][: len(data)])
            except BlockingIOError:
                assert time.monotonic() < end
                time.sleep(0.005)
        child.send_signal(signal.SIGTERM)
        while "process.draining" not in bench.logs():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 128 + signal.SIGTERM


def test_an_unknown_output_is_a_bug_and_loud(bench):
    shell = bench.shell(source(), "a", out="inproc://o?server=on")
    with pytest.raises(AssertionError):
        shell._do(["nonsense"])
