"""The connections of a ZeroMQ socket, as libzmq reports them, and what is done when there are too many (`doors`)."""

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
"""Events of connections that are handled before other sockets have their turn."""
STOPPED: Final = 5.0
"""Seconds at most until libzmq has let go of a socket that was closed; longer than any linger time."""
ATTEND_MS: Final = 5

_numbers = count()
_EVENT = Struct("=HI")
_EVENTS = (
    zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_MONITOR_STOPPED
)  # fmt: skip


class Monitor:
    """Counts the live connections of a socket, and bounds those that never become one. inproc has none to report.

    ::

        accepted or connected fd --> pending --+-- handshake succeeded --> up --+--> disconnected fd
                                               +-- failed (why) ----------------+
                                               +-- too many: turned away -------+

    Success names no descriptor; `Callers.arrived` finds out. `on_change` hears `up` and `down`
    of peers, `refused` of what never became one (`why` then is an event, or a protocol error, or 0), and `turned_away`
    of what was ended here because there were too many.
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
            # The bound is what we had when we connected and what we say now. libzmq's own end would hold a thousand.
            self._socket.rcvhwm = 1
        except zmq.ZMQError:
            self._socket.close(0)
            raise
        self._watch = context.reactor.watch(self._socket, READ, self._event)

    @property
    def peers(self) -> int:
        """How many there are."""
        return len(self._up)

    @property
    def pending(self) -> int:
        """How many are in their handshake."""
        return len(self._pending)

    def _event(self, _events: int) -> None:
        # What they say must not come later than the peer's messages. A flood of them, all the same, is not waited for.
        for _ in range(BURST):
            if self._socket.closed:
                return
            try:
                # Not zmq.utils.monitor: importing it brings asyncio along.
                event, value = _EVENT.unpack_from(self._socket.recv_multipart(zmq.NOBLOCK)[0])
            except zmq.Again:
                return
            self._happened(event, value)

    def _happened(self, event: int, value: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._pending.add(value)
            if len(self._pending) > MAX_PENDING or crowded(value):
                self._turn_away()
        elif event == zmq.EVENT_CONNECTED:
            self._pending.add(value)
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._arrived()
        elif event == zmq.EVENT_DISCONNECTED:
            self._gone(value)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            # The end of the connection follows, and says whose it is.
            return
        else:
            self._failed = True
            self._on_change("refused", value if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL else event)

    def _turn_away(self) -> None:
        caller = self._pending.surplus()
        if caller is not None:
            self._ended.add(caller.fd)
            hang_up(caller.fd, caller.inode)
            self._on_change("turned_away", 0)

    def _arrived(self) -> None:
        fd = self._pending.arrived()
        if fd is not None and len(self._up) >= MAX_PEERS:
            self._ended.add(fd)
            hang_up(fd)
            self._on_change("turned_away", 0)
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
            # libzmq reports why a handshake failed right before the end of the connection, if it knows.
            self._on_change("refused", 0)
        self._failed = False

    def forget(self) -> None:
        """Whatever there was is cut off by us; of that libzmq tells nothing."""
        up, self._up, self._pending = len(self._up), set(), Callers()
        for _ in range(up):
            self._on_change("down", 0)

    def close(self, linger: int | None, *, waits: bool = True) -> None:
        """Close the watched socket, and stop watching. `waits`: read on until libzmq has let go of it.

        Two kinds of sockets are not waited for. One of inproc:// has no connections to tell of, and libzmq only lets go
        of it when the other end in this process takes notice. One that connects to a name has few, and libzmq's thread
        may be busy with a resolver.
        """
        self._context.reactor.unwatch(self._socket)
        if not waits:
            self._watched.disable_monitor()
            self._watched.close(linger)
            self._socket.close(0)
            return
        self._watched.close(linger)
        # libzmq's thread may wait for room in this pipe: until it has let go of the socket somebody has to read.
        # (`disable_monitor` wants a lock that it holds meanwhile.)
        until = time.monotonic() + STOPPED
        while time.monotonic() < until:
            if not self._socket.poll(ATTEND_MS):
                # Connections that have asked for a key wait until the one who was asked has let go of them.
                if self._context.curve is not None:
                    self._context.curve.attend()
            elif _EVENT.unpack_from(self._socket.recv_multipart()[0])[0] == zmq.EVENT_MONITOR_STOPPED:
                break
        self._socket.close(0)
