"""The loop: what is ready, what is due, what was taken back, signals, and waking from a thread."""

import os
import signal
import socket
import threading
import time

import pytest
import zmq

from colo_runtime.reactor import READ, WRITE, Reactor


@pytest.fixture
def reactor():
    one = Reactor()
    yield one
    one.close()


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def zmq_pair(reactor):
    with zmq.Context() as context, context.socket(zmq.PAIR) as one, context.socket(zmq.PAIR) as two:
        one.bind("inproc://x")
        two.connect("inproc://x")
        yield one, two
        reactor.unwatch(one)


def turn(reactor, until, seconds=60.0):
    end = time.monotonic() + seconds
    while not until():
        reactor.turn(time.monotonic() + 0.01)
        assert time.monotonic() < end


class TestWatching:
    def test_descriptors(self, reactor, pair):
        a, b = pair
        got = []
        reactor.watch(a.fileno(), READ, lambda events: got.append((events, a.recv(10))))
        reactor.turn(0)
        assert got == []
        b.send(b"x")
        reactor.turn()
        assert got == [(READ, b"x")]
        reactor.turn(0)
        assert len(got) == 1

    def test_zmq_sockets(self, reactor, zmq_pair):
        one, two = zmq_pair
        got = []
        reactor.watch(one, READ, lambda _events: got.append(one.recv()))
        two.send(b"x")
        turn(reactor, lambda: got)
        assert got == [b"x"]

    def test_a_socket_with_more_messages_than_its_handler_takes(self, reactor, zmq_pair):
        one, two = zmq_pair
        got = []
        reactor.watch(one, READ, lambda _events: got.append(one.recv()))
        for n in range(5):
            two.send(b"%d" % n)
        turn(reactor, lambda: len(got) == 5)
        assert got == [b"0", b"1", b"2", b"3", b"4"]

    def test_a_message_that_a_send_took_notice_of(self, reactor, zmq_pair):
        # Sending reads the descriptor's news away: without another look the loop would sleep on a full mailbox.
        one, two = zmq_pair
        got = []
        watch = reactor.watch(one, READ, lambda _events: got.append(one.recv()))
        reactor.turn(0)
        two.send(b"x")
        assert one.poll(10_000)
        watch.used()
        turn(reactor, lambda: got)

    def test_what_a_socket_has_had_is_asked_for_once(self, reactor, zmq_pair):
        one, two = zmq_pair
        got = []

        def take(_events):
            while watch.readable():
                got.append(one.recv())

        watch = reactor.watch(one, READ, take)
        for n in range(3):
            two.send(b"%d" % n)
            turn(reactor, lambda n=n: len(got) == n + 1)

    def test_a_paused_socket_keeps_its_messages_and_gives_them_later(self, reactor, zmq_pair):
        one, two = zmq_pair
        got = []
        reactor.watch(one, READ, lambda _events: got.append(one.recv()))
        reactor.interest(one, 0)
        two.send(b"x")
        assert one.poll(10_000)
        reactor.turn(0)
        assert got == []
        reactor.interest(one, READ)
        reactor.turn(0)
        assert got == [b"x"]

    def test_what_was_watched_first_is_called_first(self, reactor):
        pairs = [socket.socketpair() for _ in range(8)]
        called = []
        for n in (5, 2, 7, 0, 1, 6, 3, 4):
            reactor.watch(pairs[n][0].fileno(), READ, lambda _events, n=n: called.append(n))
            pairs[n][1].send(b"x")
        reactor.turn(0)
        assert called == [5, 2, 7, 0, 1, 6, 3, 4]
        for n, pair in enumerate(pairs):
            reactor.unwatch(pairs[n][0].fileno())
            for end in pair:
                end.close()

    def test_interest_can_change_and_pause(self, reactor, pair):
        a, b = pair
        got = []
        reactor.watch(a.fileno(), READ, got.append)
        reactor.interest(a.fileno(), READ | WRITE)
        reactor.turn(0)
        assert got == [WRITE]
        reactor.interest(a.fileno(), 0)
        b.send(b"x")
        reactor.turn(0)
        assert got == [WRITE]
        reactor.interest(a.fileno(), READ)
        reactor.turn(0)
        assert got == [WRITE, READ]

    def test_unwatch_is_harmless_twice(self, reactor, pair):
        reactor.watch(pair[0].fileno(), READ, lambda _events: pytest.fail("not watched"))
        reactor.unwatch(pair[0].fileno())
        reactor.unwatch(pair[0].fileno())
        pair[1].send(b"x")
        reactor.turn(0)

    def test_a_handler_may_unwatch_what_is_ready_in_the_same_turn(self, reactor):
        pairs = [socket.socketpair() for _ in range(2)]
        called = []

        def handler(mine, other):
            def handle(_events):
                called.append(mine)
                reactor.unwatch(pairs[other][0].fileno())

            return handle

        for mine, other in ((0, 1), (1, 0)):
            reactor.watch(pairs[mine][0].fileno(), READ, handler(mine, other))
            pairs[mine][1].send(b"x")
        reactor.turn(0)
        assert len(called) == 1
        for a, b in pairs:
            a.close()
            b.close()


class TestTimers:
    def test_in_the_order_of_their_times_then_of_their_making(self, reactor):
        called = []
        now = time.monotonic()
        for name, when in (("c", now - 1), ("a", now - 3), ("b", now - 2), ("b2", now - 2)):
            reactor.call_at(when, lambda name=name: called.append(name))
        reactor.turn()
        assert called == ["a", "b", "b2", "c"]

    def test_not_before_its_time(self, reactor):
        called = []
        due = time.monotonic() + 0.05
        reactor.call_at(due, lambda: called.append(time.monotonic()))
        reactor.turn(0)
        assert called == []
        turn(reactor, lambda: called)
        assert called[0] >= due

    def test_cancelled_ones_are_not_called_and_not_waited_for(self, reactor):
        for _ in range(3):
            reactor.call_later(0, lambda: pytest.fail("cancelled")).cancel()
        called = []
        reactor.call_later(0, lambda: called.append(1))
        turn(reactor, lambda: called)

    def test_a_timer_may_set_the_next(self, reactor):
        count = []

        def again():
            count.append(1)
            if len(count) < 5:
                reactor.call_later(0, again)

        again()
        turn(reactor, lambda: len(count) == 5)

    def test_a_timer_may_cancel_one_that_is_due_in_the_same_turn(self, reactor):
        now = time.monotonic()
        due = reactor.call_at(now - 1, lambda: pytest.fail("cancelled"))
        reactor.call_at(now - 2, due.cancel)
        reactor.turn()

    def test_a_turn_without_anything_to_wait_for_ends(self, reactor, monkeypatch):
        monkeypatch.setattr("colo_runtime.reactor.MAX_WAIT", 0.1)
        before = reactor.turned
        reactor.turn()
        assert reactor.turned > before


def test_another_thread_can_wake_it(reactor):
    woken = []
    reactor.on_wake = lambda: woken.append(threading.get_ident())
    thread = threading.Thread(target=reactor.wake)
    thread.start()
    turn(reactor, lambda: woken)
    thread.join()
    assert woken == [threading.get_ident()]


def test_waking_often_never_blocks(reactor):
    for _ in range(100_000):
        reactor.wake()
    reactor.turn(0)


def test_signals_are_handled_from_the_loop_and_given_back():
    reactor = Reactor()
    before = signal.getsignal(signal.SIGUSR1)
    got = []
    reactor.on_signal = got.append
    reactor.catch_signals(signal.SIGUSR1, signal.SIGUSR2)
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert got == []
    turn(reactor, lambda: len(got) == 2)
    assert sorted(got) == [signal.SIGUSR1, signal.SIGUSR2]
    reactor.close()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_no_descriptor_is_left_open():
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(10):
        Reactor().close()
    assert set(os.listdir("/proc/self/fd")) == before
