"""An input rests while an output has too much to send, and nobody waits for a peer that takes nothing."""

import os
import socket
import time

import pytest
import zmq

from colo_proto.core import Way
from colo_proto.endpoint import parse_endpoint
from colo_runtime.context import Context
from colo_runtime.options import CommonConfig
from colo_runtime.pressure import STUCK, Pressure
from colo_runtime.reactor import READ, Reactor, Timer
from colo_runtime.tap import TapLink
from colo_runtime.zmqlink import ZmqLink

BOUND = 1000


def turn_until(reactor, done):
    """Turn the loop until something has happened, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        reactor.turn(time.monotonic() + 0.05)


class Clock:
    """Timers that are due when the test says so."""

    def __init__(self):
        self.timers = []

    def call_later(self, seconds, fn):
        assert seconds == STUCK
        self.timers.append(Timer(0.0, fn))
        return self.timers[-1]

    def passes(self):
        due, self.timers = self.timers, []
        for timer in due:
            if timer.fn is not None:
                fn, timer.fn = timer.fn, None
                fn()


class End:
    """An input or an output, as far as pressure knows them."""

    def __init__(self):
        self.pending = 0
        self.on_relief = None
        self.resting = False

    def rest(self, *, resting):
        self.resting = resting


@pytest.fixture
def parts():
    clock, out, tap = Clock(), End(), End()
    return Pressure([out], BOUND, clock), clock, out, tap


def test_it_rests_when_half_is_full_and_goes_on_when_nearly_nothing_is_left(parts):
    pressure, _, out, tap = parts
    out.pending = 500
    pressure.delivered(tap)
    assert not tap.resting
    out.pending = 501
    pressure.delivered(tap)
    assert tap.resting
    out.pending = 126
    out.on_relief()
    assert tap.resting
    out.pending = 125
    out.on_relief()
    assert not tap.resting
    assert out.on_relief is None
    assert pressure.rests == 1


def test_several_inputs_rest_each_when_it_has_delivered(parts):
    pressure, _, out, tap = parts
    other = End()
    out.pending = 600
    pressure.delivered(tap)
    pressure.delivered(other)
    assert tap.resting
    assert other.resting
    out.pending = 0
    out.on_relief()
    assert not tap.resting
    assert not other.resting


def test_as_long_as_something_goes_it_waits(parts):
    pressure, clock, out, tap = parts
    out.pending = 900
    pressure.delivered(tap)
    for pending in (800, 700, 600, 300):
        out.pending = pending
        clock.passes()
        assert tap.resting


def test_a_peer_that_takes_nothing_is_not_waited_for_until_it_has_caught_up(parts):
    pressure, clock, out, tap = parts
    out.pending = 900
    pressure.delivered(tap)
    clock.passes()
    assert not tap.resting
    pressure.delivered(tap)
    assert not tap.resting
    out.pending = 100
    pressure.delivered(tap)
    out.pending = 900
    pressure.delivered(tap)
    assert tap.resting


def test_a_link_that_rests_leaves_what_comes_to_its_sender():
    reactor, sockets = Reactor(), zmq.Context()
    got = []
    context = Context(reactor, sockets, "x", 1, lambda *_a, **_k: None)
    name = f"inproc://rest-{os.getpid()}"
    reader = ZmqLink("indev", Way.IN, parse_endpoint(name + "?server=on"), context, got.extend)
    writer = ZmqLink("outdev", Way.OUT, parse_endpoint(name), context, lambda _frames: None)
    reader.open()
    writer.open()
    try:
        frames = [bytes(100)]
        writer.send(frames)
        turn_until(reactor, lambda: len(got) == 1)
        reader.rest(resting=True)
        # More than ZeroMQ's two queues hold: the rest stays with the sender, and nothing is dropped.
        for _ in range(300):
            writer.send(frames)
        turn_until(reactor, lambda: writer.pending > 0)
        assert len(got) == 1
        reader.rest(resting=False)
        turn_until(reactor, lambda: len(got) == 301)
        assert not writer.counters["dropped.queue_full"]
    finally:
        writer.close()
        reader.close()
        sockets.term()
        reactor.close()


def test_a_tap_that_rests_is_not_read():
    reactor, sockets = Reactor(), zmq.Context()
    got = []
    context = Context(reactor, sockets, "x", 1, lambda *_a, **_k: None, CommonConfig(netdev_socket="/nowhere"))
    link = TapLink("netdev", Way.IN, parse_endpoint("tap://guest"), context, got.extend)
    mine, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.open()
    try:
        link._attach(os.dup(mine.fileno()), vnet_hdr=True)
        link.rest(resting=True)
        kernel.send(bytes(100))
        reactor.turn(0)
        assert not got
        assert mine.fileno() >= 0
        link.rest(resting=False)
        turn_until(reactor, lambda: len(got) == 1)
        assert reactor._watches[link._fd].events == READ
    finally:
        link.close()
        mine.close()
        kernel.close()
        sockets.term()
        reactor.close()
