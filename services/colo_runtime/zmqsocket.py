"""Making ZeroMQ sockets the way our links want them (`monitor` watches their connections).

* `ZMQ_IMMEDIATE`: nothing is queued for a peer that is not there, so what is queued is ours to bound. Not on an
  input that nothing is sent on: with it a connecting socket throws away what it has received and not yet handed over
  when its peer hangs up (libzmq 4.3.5), and so loses a draining peer's last words.
* A routing id on connecting sockets: the id of the process, by which a ROUTER addresses it;
  `ZMQ_ROUTER_HANDOVER`: a restarted peer takes its id over from a connection that is not known dead yet.
* Bounds on handshakes (`doors`): their number, their time.
* Heartbeats on TCP: a peer that is gone without a FIN is noticed after three seconds.
* CURVE on TCP, when there are keys (`curve`).
* Sockets of a host (`ipc://`) are for their owner and group alone, whatever the umask.
* A link that connects to a name waits for the resolver alone (`dialling`).
"""

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from colo_proto.codec import MAX_MESSAGE
from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError, StartError, WireError
from colo_runtime.context import Context
from colo_runtime.dialling import LINGER_MS, looks_up
from colo_runtime.doors import BACKLOG, HANDSHAKE_MS, LEAST, limit
from colo_runtime.link import Link, keep_safe
from colo_runtime.monitor import Monitor
from colo_runtime.reactor import READ, Handler, Timer, Watch
from colo_runtime.socketfile import SocketFile

HWM = 64
"""Batches that ZeroMQ queues on each side of a link."""
HEARTBEAT_MS = 1000
HEARTBEAT_TIMEOUT_MS = 3000
RECONNECT_MS = 20
RECONNECT_MAX_MS = 1000
REDIAL = 1.0
"""Seconds from a failed handshake until the connecting end tries again; after most, libzmq itself never would."""
SILENT = 5
"""Seconds in which a peer that should speak says nothing, until the connecting end dials anew."""
CONNECT_MS = 1500
"""Time for a connection to be made, over TCP. The kernel asks ever more seldom, and that much longer a port that was
full for a moment would keep us out.
"""
REBIND = 0.01
"""Seconds between attempts to bind again; libzmq lets go of an address a moment after the socket was closed."""
MAX_LISTENERS = 8
"""Listeners of one ipc endpoint, of which the last one alone has a file: each has a descriptor."""

Socket = zmq.Socket[bytes]

NO_HANDSHAKE: Final = "no_handshake"
_BOUND_REASONS: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "unknown_key",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: NO_HANDSHAKE,
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "plaintext",
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "wrong_server_key",
}
_CONNECTING_REASONS: Final[dict[int, str]] = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "our_key_unknown",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: NO_HANDSHAKE,
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "plaintext",
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "cryptographic",
}
"""What CURVE refused, by event or protocol error; anything else is `protocol`."""


def _no_file_in_the_way(endpoint: Endpoint, what: str) -> None:
    # libzmq unlinks whatever stands at the path of an ipc endpoint that it binds.
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(endpoint.address).st_mode):
            raise ConfigError(f"{what}: {endpoint.address} exists and is not a socket")
    directory = Path(endpoint.address).parent
    if not directory.is_dir():
        raise ConfigError(f"{what}: there is no directory {directory}")


def whole(message: bytes | memoryview | None) -> bytes | memoryview:
    """A message of one part; `WireError` when it had several (`PeerSocket.receive` gives None for those)."""
    if message is None:
        raise WireError("multipart", "one message has one part")
    return message


class PeerSocket:
    """A DEALER with one peer, or a ROUTER with many, behind the same calls. DEALER's peer is `b""`.

    `what` names the option in errors. `on_change` hears `up` and `down` of connections. What peers do wrong while
    they connect is counted in `counters`: `curve_refused.REASON` where there are keys, else `wire_errors.handshake`.
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
        self._counters = counters
        self._prefix = prefix
        self._on_change = on_change
        self._zmq = zmq.Context() if looks_up(endpoint) else context.zmq
        self._curve = context.curve if endpoint.scheme == "tcp" else None
        keep_safe(what, endpoint, keys=self._curve is not None, insecure=context.insecure)
        self._handler: Handler | None = None
        self._interest: int = READ
        self._watch: Watch | None = None
        self._timer: Timer | None = None
        self._turn = 0
        self._heard = float("-inf")
        self._unheard = 0
        if endpoint.server and endpoint.scheme == "ipc":
            _no_file_in_the_way(endpoint, what)
        if endpoint.server and endpoint.scheme == "tcp" and limit() < LEAST:
            raise StartError(
                f"{what} {endpoint}: a port between hosts needs {LEAST} descriptors, there are {limit()} (ulimit -n)"
            )
        try:
            self.socket = self._make()
        except zmq.ZMQError as error:
            self._end_context()
            raise StartError(f"{what}: {error.strerror}") from None
        try:
            self._attach()
        except zmq.ZMQError as error:
            self._let_go(0)
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
            self._prepare(socket)
            self._monitor = Monitor(self._context, socket, self._connection)
        except zmq.ZMQError:
            socket.close(0)
            raise
        return socket

    def _prepare(self, socket: Socket) -> None:
        endpoint = self.endpoint
        socket.linger = LINGER_MS
        socket.immediate = self._sends
        socket.sndhwm = socket.rcvhwm = HWM
        # Larger ones end the connection inside libzmq, unseen; up to this size we see, count and refuse them.
        socket.maxmsgsize = MAX_MESSAGE + (1 << 20)
        socket.reconnect_ivl = RECONNECT_MS
        socket.reconnect_ivl_max = RECONNECT_MAX_MS
        socket.handshake_ivl = HANDSHAKE_MS
        socket.backlog = BACKLOG
        if endpoint.scheme == "tcp":
            socket.connect_timeout = CONNECT_MS
            socket.heartbeat_ivl = HEARTBEAT_MS
            socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
            socket.heartbeat_ttl = HEARTBEAT_TIMEOUT_MS
            socket.ipv6 = endpoint.address.startswith("[")
        if self.router:
            socket.router_mandatory = True
            socket.router_handover = True
        if not endpoint.server:
            socket.routing_id = self._context.id.encode()

    def _attach(self) -> None:
        """Bind or connect."""
        if self._curve is not None and not self._curve.protect(self.socket, self.endpoint, self._what, self._turn):
            # Nobody is allowed any more: stay alone.
            return
        if not self.endpoint.server:
            self.socket.connect(self.endpoint.url)
            return
        self._bind()

    def _bind(self) -> None:
        # The file of an ipc endpoint is made by this call, in this thread. It is for owner and group alone: netdev,
        # which may be another user, shares no more than the group.
        before = os.umask(0o117)
        try:
            self.socket.bind(self.endpoint.url)
        finally:
            os.umask(before)

    def _bind_again(self) -> None:
        """The file of an ipc endpoint is gone. One more listener leaves those who are connected alone: with the old one
        libzmq would end its connections, too. After some it has to.
        """
        if self._listeners >= MAX_LISTENERS:
            # libzmq ends them in a thread of its own, and deletes the file then: it is bound at the next look.
            self.socket.unbind(self.endpoint.url)
            self._listeners = 0
            raise StartError(f"its file was deleted {MAX_LISTENERS} times: connections end, and begin anew")
        self._bind()
        self._listeners += 1
        self._counters[self._prefix + "bound_again"] += 1

    def _let_go(self, linger: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._context.reactor.unwatch(self.socket)
        self._watch = None
        if not self.socket.closed:
            waits = self.endpoint.scheme != "inproc" and self._zmq is self._context.zmq
            self._monitor.close(linger, waits=waits)

    def _end_context(self) -> None:
        if self._zmq is not self._context.zmq:
            self._context.endings.add(self._zmq)

    def renew(self) -> None:
        """End every connection and begin anew: keys have changed, and libzmq asks about keys only once a connection.

        What the old socket had queued is lost with it, as when a cable is cut: it may be meant for somebody who is
        not allowed any more.
        """
        self._let_go(0)
        self._on_change("down")
        self._open_again()

    def _open_again(self) -> None:
        self._timer = None
        try:
            self.socket = self._make()
        except zmq.ZMQError as error:
            # No descriptor is left: nobody is connected until one is.
            self._context.log("error", "endpoint.lost", endpoint=self.endpoint.url, error=error.strerror)
            self._timer = self._context.reactor.call_later(REDIAL, self._open_again)
            return
        if self._handler is not None:
            self._watch = self._context.reactor.watch(self.socket, self._interest, self._handler)
        self._attach_again()

    def _attach_again(self) -> None:
        self._timer = None
        try:
            self._attach()
        except zmq.ZMQError as error:
            taken = error.errno == errno.EADDRINUSE
            if not taken:
                self._context.log("error", "endpoint.lost", endpoint=self.endpoint.url, error=error.strerror)
            self._timer = self._context.reactor.call_later(REBIND if taken else REDIAL, self._attach_again)

    def close(self) -> None:
        """What was sent still goes out within the linger time."""
        if self._curve is not None:
            self._curve.renewals.discard(self.renew)
        if self._file is not None:
            self._file.close()
        self._let_go(None)
        self._end_context()

    def watch(self, handler: Handler, events: int = READ) -> None:
        """Call `handler(events)` when the socket is ready."""
        self._handler, self._interest = handler, events
        self._watch = self._context.reactor.watch(self.socket, events, handler)

    def interest(self, events: int) -> None:
        """Change what it is watched for."""
        self._interest = events
        if self._watch is not None:
            self._context.reactor.interest(self.socket, events)

    # -- connections ----------------------------------------------------------------------------

    @property
    def peers(self) -> int:
        """Live connections."""
        return self._monitor.peers

    def _connection(self, what: str, why: int) -> None:
        if what == "turned_away":
            self._turned_away()
            return
        if what != "refused":
            self._unheard = 0
            self._on_change(what)
            return
        self._refused(why)
        if not self.endpoint.server and self._timer is None:
            self._timer = self._context.reactor.call_later(REDIAL, self._redial)

    def _refused(self, why: int) -> None:
        context, port = self._context, self._what.removeprefix("--").replace("-", "_")
        if self._curve is None:
            self._counters[self._prefix + "wire_errors.handshake"] += 1
            context.complain("message.refused", port, port=port, error="handshake: a peer does not speak ZMTP as we do")
            return
        reasons = _BOUND_REASONS if self.endpoint.server else _CONNECTING_REASONS
        reason = reasons.get(why, "protocol") if why else NO_HANDSHAKE
        self._counters[f"{self._prefix}curve_refused.{reason}"] += 1
        if reason != "unknown_key":
            # The ZAP handler knows more of that one, and has told.
            context.complain("peer.refused", f"{port} {reason}", port=port, reason=reason, endpoint=self.endpoint.url)

    def _turned_away(self) -> None:
        port = self._what.removeprefix("--").replace("-", "_")
        self._counters[self._prefix + "turned_away"] += 1
        self._context.complain("peer.refused", f"{port} turned_away", port=port, reason="turned_away",
                              endpoint=self.endpoint.url)  # fmt: skip

    def _redial(self) -> None:
        self._timer = None
        if self.peers:
            return
        self._turn += 1
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.endpoint.url)
        self._attach_again()

    def mind(self, heard: float) -> None:
        """Call it once a second where the peer owes us a word; `heard` is when it last spoke. After `SILENT` calls
        without a word the connecting end dials anew.

        A ROUTER that has handed our id over to somebody else lets our connection stand: heartbeats are answered,
        messages go nowhere, and nobody ever says so. Calls are counted, not time: we may have stood still ourselves.
        """
        if heard > self._heard or self._timer is not None or not self.peers:
            self._heard, self._unheard = max(heard, self._heard), 0
            return
        self._unheard += 1
        if self.endpoint.server or self._unheard < SILENT:
            return
        self._unheard = 0
        context, port = self._context, self._what.removeprefix("--").replace("-", "_")
        self._counters[self._prefix + "redialled"] += 1
        context.complain("link.silent", port, port=port, endpoint=self.endpoint.url, seconds=SILENT)
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.endpoint.url)
        self._monitor.forget()
        self._attach_again()

    # -- messages -------------------------------------------------------------------------------

    def receive(self) -> tuple[bytes, bytes | memoryview | None] | None:
        """The next message with its peer; None when there is none. The message is None when it has several parts."""
        if self._watch is not None and not self._watch.readable():
            return None
        try:
            if not self.router:
                frame = self.socket.recv(zmq.NOBLOCK, copy=False)
                if not frame.more:
                    return b"", frame.buffer
                self._skip()
                return b"", None
            peer = self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None
        if not self.socket.rcvmore:
            return peer, None
        frame = self.socket.recv(copy=False)
        if not frame.more:
            return peer, frame.buffer
        self._skip()
        return peer, None

    def _skip(self) -> None:
        while self.socket.rcvmore:
            self.socket.recv()

    def send(self, peer: bytes, message: bytes) -> bool:
        """False when it does not take it now. `ConnectionError` when a ROUTER does not know the peer."""
        if self._watch is not None:
            self._watch.used()
        try:
            # Copied, whatever its size: what pyzmq does when libzmq lets go of a reference (a message to a thread of
            # its own, which takes the interpreter from this one) costs more than to copy 256 KiB (measured).
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
        # The two ends of a reliable link talk to each other, whichever way its frames go.
        sends=link.writes or link.endpoint.reliable,
    )
