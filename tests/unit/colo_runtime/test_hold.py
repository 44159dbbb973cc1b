"""Reliable inputs wait for whoever their frames go to: what was acknowledged nobody would send again."""

import socket
from contextlib import suppress
from struct import pack

import pytest
import zmq

from colo_proto import codec, replay
from colo_proto.chardev import ChardevParser
from colo_proto.core import Send, Way
from colo_proto.messages import CheckpointWanted, Reason
from runtime_helpers import frames, sink, source, step


class Reader:
    """A plain socket that speaks QEMU's framing, read from within the test's loop."""

    def __init__(self, bench, name="c"):
        self.socket = bench.unix(bench.path(name))
        self.socket.setblocking(False)
        self.parser = ChardevParser({})
        self.got = []

    def read(self):
        try:
            while data := self.socket.recv(1 << 20):
                self.got += self.parser.feed(data)
        except BlockingIOError:
            pass
        return len(self.got)

    def close(self):
        self.socket.close()


def send(shell, some):
    shell._do([Send("out", some)])


def mirror(bench):
    return bench.shell(source(), "m0", out=bench.ipc("m") + "?server=on&reliable=on")


def redirector(bench, **options):
    core = sink(indev=Way.IN, netdev=Way.OUT)
    core.react = lambda _port, batch: [Send("netdev", batch)]
    return bench.shell(
        core,
        "f1",
        indev=bench.ipc("m") + "?reliable=on",
        netdev=f"chardev+unix://{bench.path('c')}?server=on",
        **options,
    )


def count(shell, name):
    return shell.snapshot().counters.get(name, 0)


def nothing_lost(b):
    return not count(b, "link.netdev.dropped") and not count(b, "link.indev.gaps")


def test_nothing_is_taken_before_the_peer_is_there(bench):
    a, b = mirror(bench), redirector(bench)
    send(a, frames(0, 300))
    bench.turn(0.2)
    assert not b.links["indev"].opened
    assert any("nobody is connected to --netdev" in why for why in b.waiting_for())
    assert not a.links["out"].sender.attached
    reader = Reader(bench)
    bench.until(lambda: reader.read() == 300)
    assert reader.got == frames(0, 300)
    bench.until(lambda: a.links["out"].sender.unacknowledged == 0)
    assert nothing_lost(b)
    assert b.waiting_for() == ()


def test_a_peer_that_leaves_is_waited_for(bench, monkeypatch):
    monkeypatch.setattr(replay, "SENDER_SILENCE", 0.1)
    a, b = mirror(bench), redirector(bench)
    reader = Reader(bench)
    send(a, frames(0, 10))
    bench.until(lambda: reader.read() == 10 and a.links["out"].sender.unacknowledged == 0)
    reader.close()
    bench.until(lambda: not b.snapshot().gauges["link.netdev.peers"])
    for n in range(10, 210, 10):
        send(a, frames(n, 10))
        for one in bench.shells:
            step(one, 0.0)
    # Long enough for the silence that otherwise makes a receiver ask again.
    bench.turn(0.25)
    assert a.links["out"].sender.unacknowledged == 200
    assert a.snapshot().counters["link.out.replayed"] == 0
    reader = Reader(bench)
    bench.until(lambda: reader.read() == 200)
    assert reader.got == frames(10, 200)
    assert nothing_lost(b)
    send(a, frames(210, 5))
    bench.until(lambda: reader.read() == 205)


def test_a_peer_that_does_not_keep_up_leaves_the_frames_with_the_sender(bench):
    a, b = mirror(bench), redirector(bench)
    reader = Reader(bench)
    highest = 0
    for n in range(0, 2500, 10):
        send(a, frames(n, 10, 8000))
        for one in bench.shells:
            step(one, 0.0)
        highest = max(highest, b.links["netdev"].pending)

    def held_back():
        nonlocal highest
        highest = max(highest, b.links["netdev"].pending)
        return highest

    # A slow machine may not have brought them this far yet.
    bench.until(held_back)
    bench.turn(0.2)
    held_back()
    assert highest <= 2 << 20
    assert a.links["out"].sender.unacknowledged > 0
    bench.until(lambda: reader.read() == 2500)
    assert reader.got == frames(0, 2500, 8000)
    bench.until(lambda: a.links["out"].sender.unacknowledged == 0)
    assert nothing_lost(b)


def test_frames_that_were_queued_for_a_peer_that_left_are_a_gap(bench):
    control = bench.zmq(zmq.ROUTER, "inproc://control", bind=True)
    a, b = mirror(bench), redirector(bench, frame="inproc://control")
    reader = Reader(bench)
    for n in range(0, 200, 10):
        send(a, frames(n, 10, 8000))
    bench.until(lambda: b.links["netdev"].pending)
    reader.close()
    wanted = []

    def heard():
        while control.poll(0):
            message = codec.decode(control.recv_multipart()[1])
            if isinstance(message, CheckpointWanted):
                wanted.append(message)
        return wanted

    bench.until(heard)
    assert wanted[0].reason == Reason.MIRROR_GAP
    assert (wanted[0].detail["port"], wanted[0].detail["lost"]) == ("netdev", "disconnected")
    assert wanted[0].detail["frames"] == count(b, "link.netdev.dropped.disconnected") > 0


def test_a_frame_too_large_for_the_bound_is_a_gap_too(bench):
    control = bench.zmq(zmq.ROUTER, "inproc://control", bind=True)
    a, b = mirror(bench), redirector(bench, frame="inproc://control", queue_bytes=65536)
    Reader(bench)
    send(a, frames(0, 8, 30_000))
    bench.until(lambda: count(b, "link.netdev.dropped.queue_full"))
    bench.until(lambda: control.poll(0))


@pytest.mark.parametrize("reliable", [False, True])
def test_other_inputs_do_not_wait(bench, reliable):
    # Losing output is legal, and whoever drives a filter from outside may connect in any order.
    core = sink(indev=Way.IN, other=Way.IN, netdev=Way.OUT)
    core.react = lambda _port, batch: [Send("netdev", batch)]
    b = bench.shell(
        core, "x", indev=f"chardev+unix://{bench.path('a')}?server=on", netdev=f"chardev+unix://{bench.path('c')}?server=on",
        other=bench.ipc("m") + ("?reliable=on" if reliable else ""),
    )  # fmt: skip
    assert b.links["indev"].opened
    assert b.links["other"].opened is not reliable
    into = bench.unix(bench.path("a"))
    for some in frames(0, 3):
        into.sendall(pack("!I", len(some) - 10) + some[10:])
    bench.until(lambda: count(b, "link.netdev.dropped.disconnected") == 3)
    assert not count(b, "control.untold") or reliable


def test_an_end_that_connects_itself_is_waited_for_as_well(bench):
    a = mirror(bench)
    core = sink(indev=Way.IN, netdev=Way.OUT)
    core.react = lambda _port, batch: [Send("netdev", batch)]
    bench.shell(core, "f1", indev=bench.ipc("m") + "?reliable=on", netdev=f"chardev+unix://{bench.path('c')}")
    send(a, frames(0, 20))
    bench.turn(0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(bench.path("c"))
        listener.listen(1)
        listener.setblocking(False)
        accepted = []

        def accept():
            try:
                accepted.append(listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        bench.until(accept)
        with accepted[0] as peer:
            peer.setblocking(False)
            parser, got = ChardevParser({}), []

            def read():
                with suppress(BlockingIOError):
                    got.extend(parser.feed(peer.recv(1 << 16)))
                return len(got) == 20

            bench.until(read)
    assert got == frames(0, 20)
