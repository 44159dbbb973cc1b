"""One loop for everything that a process waits for: ZeroMQ sockets, descriptors, timers, signals.

It uses epoll(7) and callbacks. asyncio is not used here, because its sockets were measured several times slower, and
neither is `zmq.Poller`: it asks every socket twice in each turn of the loop, with a system call each time, which makes
eighteen in a process with eight sockets. Here a socket is asked for its events only when its descriptor (`ZMQ_FD`)
reports that something has happened, or after it was used::

    ZMQ_FD readable --+
    used (`used`) ----+--> ask for ZMQ_EVENTS --> handler --> used again, until it has nothing more
"""

import contextlib
import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from itertools import count
from math import inf
from operator import attrgetter
from types import FrameType
from typing import Any, Final, cast

import zmq

READ: Final = int(zmq.POLLIN)
WRITE: Final = int(zmq.POLLOUT)
ERROR: Final = int(zmq.POLLERR)
_TO_EPOLL: Final = {READ: select.EPOLLIN, WRITE: select.EPOLLOUT, READ | WRITE: select.EPOLLIN | select.EPOLLOUT}
_EVENTS: Final = int(zmq.EVENTS)
_MOST: Final = 64
"""Descriptors that are served in one turn; the others are still ready in the next turn."""

Watched = zmq.Socket[bytes] | int
Handler = Callable[[int], None]

MAX_WAIT = 1.0
"""The longest sleep in seconds, so that a health check can distinguish a turning loop from a blocked one."""


class Timer:
    """A call that is due at `when`. After the call, or after `cancel`, the timer is idle."""

    __slots__ = ("fn", "when")

    def __init__(self, when: float, fn: Callable[[], None] | None) -> None:
        self.when = when
        self.fn = fn

    @property
    def pending(self) -> bool:
        """True until the call is made or cancelled."""
        return self.fn is not None

    def cancel(self) -> None:
        """The function will not be called."""
        self.fn = None


IDLE: Final = Timer(0.0, None)
"""A timer that was never started."""


class Watch:
    """Something that is watched, and the events that it is watched for."""

    __slots__ = ("_known", "_used", "events", "fd", "handler", "order", "socket")

    def __init__(self, order: int, what: Watched, handler: Handler, used: "dict[Watch, None]") -> None:
        self.order = order
        self.socket = None if isinstance(what, int) else what
        self.fd = what if isinstance(what, int) else what.fileno()
        self.events = 0
        self.handler: Handler | None = handler
        self._known = False
        self._used = used

    def ask(self) -> int:
        """The events that a ZeroMQ socket is ready for, among those that it is watched for."""
        assert self.socket is not None
        ready = cast("int", self.socket.get(_EVENTS)) & self.events
        self._known = bool(ready & READ)
        return ready

    def readable(self) -> bool:
        """True when this ZeroMQ socket has a message. When it has none, its descriptor will report the next one."""
        if self._known:
            self._known = False
            return True
        assert self.socket is not None
        ready = cast("int", self.socket.get(_EVENTS))
        if ready & READ:
            return True
        if not ready & self.events:
            self._used.pop(self, None)
        return False

    def used(self) -> None:
        """Call it when a ZeroMQ socket was used to send: that may have consumed an event which its descriptor would
        have reported.
        """
        if self.events:
            self._used[self] = None


_in_order = attrgetter("order")


def _from_epoll(flags: int) -> int:
    events = READ if flags & select.EPOLLIN else 0
    if flags & select.EPOLLOUT:
        events |= WRITE
    return events | ERROR if flags & ~(select.EPOLLIN | select.EPOLLOUT) else events


class Reactor:
    """See the module. Only `wake` may be called from another thread."""

    def __init__(self) -> None:
        self.turned = time.monotonic()
        """When the last turn of the loop ended."""
        self._epoll = select.epoll()
        self._watches: dict[Any, Watch] = {}
        self._by_fd: dict[int, Watch] = {}
        self._used: dict[Watch, None] = {}
        """The ZeroMQ sockets that must be asked before the loop sleeps."""
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = count()
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, Any] = {}
        self.on_wake: Callable[[], None] = lambda: None
        self.on_signal: Callable[[int], None] = lambda _number: None
        self._signals: list[int] = []
        self.watch(self._pipe[0], READ, self._woken)

    def watch(self, what: Watched, events: int, handler: Handler) -> Watch:
        """Call `handler(events)` when `what` is ready for one of `events`. What was watched first is called first."""
        self.unwatch(what)
        watch = self._watches[what] = Watch(next(self._order), what, handler, self._used)
        self._by_fd[watch.fd] = watch
        self.interest(what, events)
        return watch

    def interest(self, what: Watched, events: int) -> None:
        """Change the events that `what` is watched for; with 0 it stays known, but is not watched."""
        watch = self._watches[what]
        before, watch.events = watch.events, events
        # The descriptor of a ZeroMQ socket becomes readable for every kind of event.
        was, now = (bool(before), bool(events)) if watch.socket is not None else (before, events)
        if not now:
            self._used.pop(watch, None)
            if was:
                self._epoll.unregister(watch.fd)
        elif was != now:
            flags = select.EPOLLIN if watch.socket is not None else _TO_EPOLL[events]
            if was:
                self._epoll.modify(watch.fd, flags)
            else:
                self._epoll.register(watch.fd, flags)
        if events and watch.socket is not None:
            self._used[watch] = None

    def unwatch(self, what: Watched) -> None:
        """Stop watching; must be called before `what` is closed. Does nothing when it is not watched."""
        watch = self._watches.pop(what, None)
        if watch is None:
            return
        watch.handler = None
        self._used.pop(watch, None)
        if self._by_fd.get(watch.fd) is watch:
            del self._by_fd[watch.fd]
        if watch.events:
            with contextlib.suppress(OSError):
                self._epoll.unregister(watch.fd)

    def call_at(self, when: float, fn: Callable[[], None]) -> Timer:
        """Call `fn` once, at `when` (monotonic seconds)."""
        timer = Timer(when, fn)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, seconds: float, fn: Callable[[], None]) -> Timer:
        """Call `fn` once, `seconds` from now."""
        return self.call_at(time.monotonic() + seconds, fn)

    def turn(self, deadline: float | None = None) -> None:
        """Wait until something is ready or due, or until `deadline` (monotonic seconds), and handle all of it."""
        timers = self._timers
        while timers and timers[0][2].fn is None:
            heapq.heappop(timers)
        until = min(timers[0][0] if timers else inf, inf if deadline is None else deadline)
        wait = min(until - time.monotonic(), MAX_WAIT)
        used = self._used
        ready: dict[Watch, int] = {}
        if used:
            ready = {watch: events for watch in used if (events := watch.ask())}
            used.clear()
        by_fd = self._by_fd
        # epoll rounds the time up. If it ended too early, another wait would follow.
        for fd, flags in self._epoll.poll(0 if ready or wait <= 0 else wait, _MOST):
            watch = by_fd[fd]
            if watch.socket is None:
                ready[watch] = _from_epoll(flags)
            elif events := watch.ask():
                ready[watch] = events
        for watch in sorted(ready, key=_in_order) if len(ready) > 1 else ready:
            # An earlier handler in this turn may have closed it.
            if watch.handler is not None:
                if watch.socket is not None:
                    used[watch] = None
                watch.handler(ready[watch])
        now = self.turned = time.monotonic()
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            fn, timer.fn = timer.fn, None
            if fn is not None:
                fn()

    def wake(self) -> None:
        """From another thread or a signal handler: make the loop turn and call `on_wake`."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._pipe[1], b"w")

    def catch_signals(self, *numbers: int) -> None:
        """From now on `on_signal(number)` is called from the loop for these signals."""
        for number in numbers:
            self._before[number] = signal.signal(number, self._caught)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self.wake()

    def _woken(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._pipe[0], 4096)
        while self._signals:
            self.on_signal(self._signals.pop(0))
        self.on_wake()

    def close(self) -> None:
        """Restore the handlers of signals, and close the descriptors."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
        self.unwatch(self._pipe[0])
        for fd in self._pipe:
            os.close(fd)
        self._epoll.close()
