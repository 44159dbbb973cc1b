"""A ZeroMQ socket over its whole life: made, connected, watched, dialled again, and opened again with new keys.

The options of the socket are in `zmqoptions`, the events of its connections come from `monitor`. CURVE is used on TCP
when there are keys (`curve`). A link that connects to a name has its own ZeroMQ context (`dialling`).
"""

import contextlib
import errno
from collections import Counter
from collections.abc import Callable
from typing import Final

import zmq

from colo_proto.endpoint import Endpoint
from colo_proto.errors import StartError, WireError
from colo_runtime.context import Context
from colo_runtime.curve import require_keys
from colo_runtime.dialling import looks_up
from colo_runtime.link import Link
from colo_runtime.monitor import Monitor
from colo_runtime.reactor import IDLE, READ, Handler, Watch
from colo_runtime.socketfile import SocketFile
from colo_runtime.zmqoptions import bind, check_bindable, prepare

REDIAL = 1.0
"""Seconds from a failed handshake to the next attempt of the connecting end; after most failures libzmq makes none."""
SILENT = 5
"""Seconds without an expected message after which the connecting end dials again."""
REBIND = 0.01
"""Seconds between attempts to bind again: libzmq releases an address a moment after the socket was closed."""
MAX_LISTENERS = 8
"""Listeners of one ipc endpoint. Only the last of them has a file, but each has a descriptor."""

Socket = zmq.Socket[bytes]

NO_HANDSHAKE: Final = "no_handshake"
_BOUND_REASONS: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "unknown_key",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: NO_HANDSHAKE,
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "plaintext",
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "wrong_server_key",
}
_CONNECTING_REASONS: Final[dict[int, str]] = _BOUND_REASONS | {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "our_key_unknown",
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "cryptographic",
}
"""Why CURVE refused a connection, by event or protocol error; anything else is `protocol`."""


def whole(message: bytes | memoryview | None) -> bytes | memoryview:
    """A message of one part. `WireError` when it had several; `PeerSocket.receive` returns None for those."""
    if message is None:
        raise WireError("multipart", "one message has one part")
    return message


class PeerSocket:
    """A DEALER with one peer, or a ROUTER with many, with the same methods. The peer of a DEALER is `b""`.

    `what` names the option in errors. `on_change` is called with `up` and `down` for connections. What peers do wrong
    while they connect is counted in `counters`: `curve_refused.REASON` where there are keys, else
    `wire_errors.handshake`; `prefix` is put before these names.
    """

    def __init__(
        self,
        context: Context,
        endpoint: Endpoint,
        what: str,
        *,
        router: bool,
        counters: Counter[str],
        on_change: Callable[[str], None] = lambda _what: None,
        prefix: str = "",
        sends: bool = True,
    ) -> None:
        self.router = router
        self._sends = sends
        self.endpoint = endpoint
        self._context = context
        self._what = what
        self._port = what.removeprefix("--").replace("-", "_")
        self._counters = counters
        self._prefix = prefix
        self._on_change = on_change
        self._zmq = zmq.Context() if looks_up(endpoint) else context.zmq
        self._curve = context.curve if endpoint.scheme == "tcp" else None
        require_keys(what, endpoint, keys=self._curve is not None, insecure=context.common.insecure)
        self._handler: Handler | None = None
        self._interest: int = READ
        self._watch: Watch | None = None
        self._timer = IDLE
        self._turn = 0
        self._heard = float("-inf")
        self._unheard = 0
        if endpoint.server:
            check_bindable(endpoint, what)
        try:
            self.socket = self._make()
        except zmq.ZMQError as error:
            self._end_context()
            raise StartError(f"{what}: {error.strerror}") from None
        try:
            self._attach()
        except zmq.ZMQError as error:
            self._close_socket(0)
            self._end_context()
            verb = "listen on" if endpoint.server else "connect to"
            raise StartError(f"{what}: cannot {verb} {endpoint.url}: {error.strerror}") from None
        if self._curve is not None:
            self._curve.renewals.add(self.renew)
        self._listeners = 1
        self._file: SocketFile | None = None
        if endpoint.server and endpoint.scheme == "ipc" and not endpoint.address.startswith("@"):
            self._file = SocketFile(endpoint.address, context.reactor, self._bind_again, context.log)

    # -- the socket -----------------------------------------------------------------------------

    def _make(self) -> Socket:
        socket = self._zmq.socket(zmq.ROUTER if self.router else zmq.DEALER)
        try:
            prepare(socket, self.endpoint, self._context.id, router=self.router, sends=self._sends)
            self._monitor = Monitor(self._context, socket, self._connection)
        except zmq.ZMQError:
            socket.close(0)
            raise
        return socket

    def _attach(self) -> None:
        """Bind or connect."""
        if self._curve is not None and not self._curve.protect(self.socket, self.endpoint, self._what, self._turn):
            # There is no peer any more that we may connect to.
            return
        if self.endpoint.server:
            bind(self.socket, self.endpoint)
        else:
            self.socket.connect(self.endpoint.url)

    def _bind_again(self) -> None:
        """The file of an ipc endpoint was deleted. Bind one more listener: if the old one were unbound, libzmq would
        end its connections as well. After some listeners that has to be.
        """
        if self._listeners >= MAX_LISTENERS:
            # libzmq ends them in its own thread, and deletes the file then. It is bound at the next look.
            self.socket.unbind(self.endpoint.url)
            self._listeners = 0
            raise StartError(f"its file was deleted {MAX_LISTENERS} times: all connections end and are made again")
        bind(self.socket, self.endpoint)
        self._listeners += 1
        self._counters[self._prefix + "bound_again"] += 1

    def _close_socket(self, linger: int | None) -> None:
        self._timer.cancel()
        self._context.reactor.unwatch(self.socket)
        self._watch = None
        if not self.socket.closed:
            waits = self.endpoint.scheme != "inproc" and self._zmq is self._context.zmq
            self._monitor.close(linger, waits=waits)

    def _end_context(self) -> None:
        if self._zmq is not self._context.zmq:
            self._context.endings.add(self._zmq)

    def renew(self) -> None:
        """End every connection and start again with new keys: libzmq asks about keys only once for each connection.

        What the old socket had queued is lost, as when a cable is cut: it may be for a peer that is not allowed any
        more.
        """
        self._close_socket(0)
        self._on_change("down")
        self._open_again()

    def _open_again(self) -> None:
        try:
            self.socket = self._make()
        except zmq.ZMQError as error:
            # There is no free descriptor. Without one nobody can be connected.
            self._lost(error, self._open_again)
            return
        if self._handler is not None:
            self._watch = self._context.reactor.watch(self.socket, self._interest, self._handler)
        self._attach_again()

    def _attach_again(self) -> None:
        try:
            self._attach()
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE:
                self._timer = self._context.reactor.call_later(REBIND, self._attach_again)
            else:
                self._lost(error, self._attach_again)

    def _lost(self, error: zmq.ZMQError, again: Callable[[], None]) -> None:
        self._context.log("error", "endpoint.lost", endpoint=self.endpoint.url, error=error.strerror)
        self._timer = self._context.reactor.call_later(REDIAL, again)

    def close(self) -> None:
        """Close the socket; what was sent still goes out within the linger time."""
        if self._curve is not None:
            self._curve.renewals.discard(self.renew)
        if self._file is not None:
            self._file.close()
        self._close_socket(None)
        self._end_context()

    def watch(self, handler: Handler, events: int = READ) -> None:
        """Call `handler(events)` when the socket is ready."""
        self._handler, self._interest = handler, events
        self._watch = self._context.reactor.watch(self.socket, events, handler)

    def interest(self, events: int) -> None:
        """Change the events that the socket is watched for."""
        self._interest = events
        if self._watch is not None:
            self._context.reactor.interest(self.socket, events)

    # -- connections ----------------------------------------------------------------------------

    @property
    def peers(self) -> int:
        """The number of live connections."""
        return self._monitor.peers

    def _connection(self, what: str, why: int) -> None:
        if what == "turned_away":
            self._counters[self._prefix + "turned_away"] += 1
            self._say_refused("turned_away")
        elif what == "refused":
            self._refused(why)
            if not self.endpoint.server and not self._timer.pending:
                self._timer = self._context.reactor.call_later(REDIAL, self._redial)
        else:
            self._unheard = 0
            self._on_change(what)

    def _refused(self, why: int) -> None:
        if self._curve is None:
            self._counters[self._prefix + "wire_errors.handshake"] += 1
            error = "handshake: a peer does not speak ZMTP as we do"
            self._context.complain("message.refused", self._port, port=self._port, error=error)
            return
        reasons = _BOUND_REASONS if self.endpoint.server else _CONNECTING_REASONS
        reason = reasons.get(why, "protocol") if why else NO_HANDSHAKE
        self._counters[f"{self._prefix}curve_refused.{reason}"] += 1
        if reason != "unknown_key":
            # The ZAP handler knows more about an unknown key, and has logged it.
            self._say_refused(reason)

    def _say_refused(self, reason: str) -> None:
        port, url = self._port, self.endpoint.url
        self._context.complain("peer.refused", f"{port} {reason}", port=port, reason=reason, endpoint=url)

    def _redial(self) -> None:
        if not self.peers:
            self._turn += 1
            self._dial_again()

    def _dial_again(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.endpoint.url)
        self._monitor.forget()
        self._attach_again()

    def check_silence(self, heard: float) -> None:
        """Call it once a second while a message from the peer is expected; `heard` is when the last one came. After
        `SILENT` calls without a message the connecting end dials again.

        A ROUTER that has given our routing id to another process keeps our connection: heartbeats are answered,
        messages reach nobody, and nothing reports it. Calls are counted, not seconds, because this process may itself
        have stood still.
        """
        if heard > self._heard or self._timer.pending or not self.peers:
            self._heard, self._unheard = max(heard, self._heard), 0
            return
        self._unheard += 1
        if self.endpoint.server or self._unheard < SILENT:
            return
        self._unheard = 0
        self._counters[self._prefix + "redialled"] += 1
        self._context.complain("link.silent", self._port, port=self._port, endpoint=self.endpoint.url, seconds=SILENT)
        self._dial_again()

    # -- messages -------------------------------------------------------------------------------

    def receive(self) -> tuple[bytes, bytes | memoryview | None] | None:
        """The next message with its peer; None when there is none. The message is None when it has several parts."""
        if self._watch is not None and not self._watch.readable():
            return None
        peer = b""
        try:
            if self.router:
                peer = self.socket.recv(zmq.NOBLOCK)
                if not self.socket.rcvmore:
                    return peer, None
            frame = self.socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return None
        if not frame.more:
            return peer, frame.buffer
        # All parts of a message arrive together.
        while self.socket.rcvmore:
            self.socket.recv()
        return peer, None

    def send(self, peer: bytes, message: bytes) -> bool:
        """Send; False when that is not possible now. `ConnectionError` when a ROUTER does not know the peer."""
        if self._watch is not None:
            self._watch.used()
        try:
            # Always copied: when libzmq releases a reference, pyzmq sends a message to a thread of its own, which takes
            # the interpreter from this thread. That costs more than copying 256 KiB (measured).
            if self.router:
                self.socket.send_multipart((peer, message), zmq.NOBLOCK)
            else:
                self.socket.send(message, zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                raise ConnectionError(f"no peer {peer!r}") from None
            if self.socket.closed:
                return False
            raise
        return True


def wire(link: Link, *, router: bool, on_change: Callable[[str], None] = lambda _what: None) -> PeerSocket:
    """The socket of a link."""
    return PeerSocket(
        link.context,
        link.endpoint,
        link.option,
        router=router,
        counters=link.counters,
        on_change=on_change,
        # Both ends of a reliable link send messages, whichever way its frames go.
        sends=link.writes or link.endpoint.reliable,
    )
