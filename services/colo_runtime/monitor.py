"""The connections of a ZeroMQ socket, as libzmq reports them, and ending some when there are too many (`doors`)."""

import time
from collections.abc import Callable
from itertools import count
from struct import Struct
from typing import Final

import zmq

from colo_runtime.context import Context
from colo_runtime.doors import MAX_BEHIND, MAX_PEERS, MAX_PENDING, Callers, crowded, hang_up
from colo_runtime.reactor import READ

BURST: Final = 512
"""Events that are handled before other sockets get their turn."""
STOPPED: Final = 5.0
"""Seconds at most until libzmq has released a socket that was closed; longer than any linger time."""
ATTEND_MS: Final = 5
"""Milliseconds between two looks for a ZAP request while a socket is being closed."""

_numbers = count()
_EVENT = Struct("=HI")
_EVENTS = (
    zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_MONITOR_STOPPED
)  # fmt: skip


class Monitor:
    """Counts the live connections of a socket, and bounds those that are not live yet. inproc reports no connections.

    ::

        accepted or connected fd --> pending --+-- handshake succeeded --> up --+--> disconnected fd
                                               +-- failed (why) ----------------+
                                               +-- too many: turned away -------+

    The event of a success has no descriptor; `Callers.arrived` finds it. `on_change(what, why)` is called with `up` and
    `down` for peers, with `refused` for a connection that failed (`why` is then an event, or a protocol error, or 0),
    and with `turned_away` for a connection that was ended here because there were too many.
    """

    def __init__(self, context: Context, socket: zmq.Socket[bytes], on_change: Callable[[str, int], None]) -> None:
        self._context = context
        self._watched = socket
        self._on_change = on_change
        self._pending = Callers()
        self._up: set[int] = set()
        self._ended: set[int] = set()
        self._failed = False
        self._socket = socket.context.socket(zmq.PAIR)
        try:
            self._socket.rcvhwm = MAX_BEHIND
            address = f"inproc://monitor-{id(self):x}-{next(_numbers)}"
            socket.monitor(address, _EVENTS)
            self._socket.connect(address)
            # The bound is the value at the time of `connect` plus this one. The end of libzmq would add a thousand.
            self._socket.rcvhwm = 1
        except zmq.ZMQError:
            self._socket.close(0)
            raise
        self._watch = context.reactor.watch(self._socket, READ, self._event)

    @property
    def peers(self) -> int:
        """The number of live connections."""
        return len(self._up)

    def _event(self, _events: int) -> None:
        # An event must not be handled later than the messages of its peer. A flood of events still ends at `BURST`.
        for _ in range(BURST):
            if self._socket.closed:
                return
            try:
                # Not zmq.utils.monitor, which imports asyncio.
                event, value = _EVENT.unpack_from(self._socket.recv_multipart(zmq.NOBLOCK)[0])
            except zmq.Again:
                return
            self._happened(event, value)

    def _happened(self, event: int, value: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._pending.add(value)
            if len(self._pending) > MAX_PENDING or crowded(value):
                caller = self._pending.surplus()
                if caller is not None:
                    self._hang_up(caller.fd, caller.inode)
        elif event == zmq.EVENT_CONNECTED:
            self._pending.add(value)
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._arrived()
        elif event == zmq.EVENT_DISCONNECTED:
            self._gone(value)
        elif event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # After that one, the event of the end of the connection follows, and has its descriptor.
            self._failed = True
            self._on_change("refused", value if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL else event)

    def _hang_up(self, fd: int, inode: int | None = None) -> None:
        self._ended.add(fd)
        hang_up(fd, inode)
        self._on_change("turned_away", 0)

    def _arrived(self) -> None:
        fd = self._pending.arrived()
        if fd is not None and len(self._up) >= MAX_PEERS:
            self._hang_up(fd)
            return
        if fd is not None:
            self._up.add(fd)
        self._on_change("up", 0)

    def _gone(self, fd: int) -> None:
        if fd in self._ended:
            self._ended.remove(fd)
        elif fd in self._up:
            self._up.remove(fd)
            self._on_change("down", 0)
        elif self._pending.remove(fd) is not None and not self._failed:
            # If libzmq knows why a handshake failed, it has reported that just before the end of the connection.
            self._on_change("refused", 0)
        self._failed = False

    def forget(self) -> None:
        """All connections were ended by `disconnect`, which libzmq does not report."""
        up, self._up, self._pending = len(self._up), set(), Callers()
        for _ in range(up):
            self._on_change("down", 0)

    def close(self, linger: int | None, *, waits: bool = True) -> None:
        """Close the watched socket, and stop watching it. With `waits`, read events until libzmq has released it.

        Two kinds of sockets must not be waited for. One of inproc:// has no connections, and libzmq releases it only
        when the other end in this process reacts. One that connects to a name has few, and the thread of libzmq may be
        waiting for a resolver.
        """
        self._context.reactor.unwatch(self._socket)
        if not waits:
            self._watched.disable_monitor()
        self._watched.close(linger)
        # The thread of libzmq may wait until there is space for an event: read until it has released the socket.
        # (`disable_monitor` needs a lock that this thread holds meanwhile.)
        until = time.monotonic() + STOPPED
        while waits and time.monotonic() < until:
            if not self._socket.poll(ATTEND_MS):
                # A connection for which ZAP was asked is released only when the request is answered.
                if self._context.curve is not None:
                    self._context.curve.attend()
            elif _EVENT.unpack_from(self._socket.recv_multipart()[0])[0] == zmq.EVENT_MONITOR_STOPPED:
                break
        self._socket.close(0)
