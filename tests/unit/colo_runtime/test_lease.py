"""`lease=on`: a tap that is written to only while the frame permits it."""

import os
import socket
import time

import pytest
import zmq

from colo_proto.codec import decode
from colo_proto.core import Send, Way
from colo_proto.errors import ConfigError
from colo_proto.messages import Hello, Lease, Yielded
from runtime_helpers import frames, sink, source

TAP = "tap://lan?netdev=/nonexistent&lease=on"


@pytest.fixture
def writer(bench):
    """A filter with a leased tap (one end of a socket pair stands for it), the tap's other end, and the frame."""
    control = bench.zmq(zmq.ROUTER, bench.ipc("control"), bind=True)
    shell = bench.shell(source(), "redire0", out=TAP, frame=bench.ipc("control"))
    mine, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    shell.links["out"]._fd = mine.detach()
    far.setblocking(False)
    yield shell, far, control
    far.close()


def written(far):
    out = []
    try:
        while True:
            out.append(far.recv(65536))
    except BlockingIOError:
        return out


def send(shell, batch):
    shell._do([Send("out", batch)])


def heard(bench, control, kind):
    """The next message of `kind` that the frame gets."""

    def look():
        while control.poll(0):
            message = decode(control.recv_multipart()[1])
            if isinstance(message, kind):
                return message
        return None

    return bench.until(look)


def test_nothing_is_written_before_the_frame_permits_it(writer):
    shell, far, _ = writer
    send(shell, frames(0, 3))
    assert written(far) == []
    assert shell.links["out"].counters["dropped.no_lease"] == 3
    assert shell.snapshot().gauges["leased"] == 0


def test_it_is_written_until_the_permission_is_over(writer):
    shell, far, _ = writer
    shell._hear(Lease(time.monotonic() + 60, 2))
    send(shell, frames(0, 3))
    assert written(far) == frames(0, 3)
    assert shell.snapshot().gauges["leased"] == 1
    shell._hear(Lease(time.monotonic() - 0.001, 2))
    send(shell, frames(3, 2))
    assert written(far) == []


def test_each_frame_is_looked_at(writer, monkeypatch):
    """A process that is stopped between two frames of a batch wakes with its permission over."""
    shell, far, _ = writer
    now = time.monotonic()
    shell._hear(Lease(now + 60, 2))
    times = iter([now, now, now + 61, now + 61])
    monkeypatch.setattr("colo_runtime.tap.monotonic", lambda: next(times))
    send(shell, frames(0, 5))
    assert written(far) == frames(0, 2)
    assert shell.links["out"].counters["dropped.no_lease"] == 3


def test_the_end_is_confirmed(bench, writer):
    shell, _, control = writer
    heard(bench, control, Hello)
    shell._hear(Lease(time.monotonic() + 60, 2))
    shell._hear(Lease(0.0, 3))
    assert heard(bench, control, Yielded) == Yielded(3)


def test_a_permission_that_waited_in_a_queue_is_over(writer):
    """It names a moment, not a duration: what a stopped process finds later permits nothing."""
    shell, far, _ = writer
    shell._hear(Lease(time.monotonic() - 5, 2))
    send(shell, frames(0, 1))
    assert written(far) == []


def test_other_taps_need_none(bench):
    shell = bench.shell(source(), "x", out="tap://guest?netdev=/nonexistent")
    mine, far = os.pipe()
    os.set_blocking(mine, False)
    shell.links["out"]._fd = far
    send(shell, frames(0, 1))
    assert os.read(mine, 65536) == frames(0, 1)[0]
    os.close(mine)
    assert "leased" not in shell.snapshot().gauges


def test_without_a_frame_nobody_could_permit_it(bench):
    with pytest.raises(ConfigError, match="lease=on"):
        bench.shell(source(), out=TAP)


def test_an_input_is_not_written_to(bench):
    with pytest.raises(ConfigError, match="lease=on is for outputs"):
        bench.shell(sink(**{"in": Way.IN}), in_=TAP, frame=bench.ipc("control"))
