"""A byte stream that listens or connects again and again (`chardev+unix://`, `chardev+tcp://`).

::

    server: listening --accept--> up --end--> listening     (one peer at a time, as in QEMU's chardev)
    client: away --connect--> up --end--> away, again after a pause

It never stops reading: a QEMU whose socket is not read stands still, including its monitor.
"""

import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final

from colo_proto.endpoint import Endpoint
from colo_proto.errors import StartError
from colo_proto.frame import Buffer
from colo_runtime.context import Context
from colo_runtime.reactor import IDLE, READ, WRITE
from colo_runtime.socketfile import SocketFile, clear_stale

RETRY: Final = 0.05
RETRY_MAX: Final = 1.0
"""Seconds between attempts to connect: the first pause and the longest one."""
READ_SIZE: Final = 256 * 1024
GATHER: Final = 256
"""Messages passed to the kernel in one call (it accepts up to 1,024)."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""A TCP peer that disappears without a FIN is noticed after some ten seconds, and then the next peer is served."""

Address = tuple[int, str | tuple[Any, ...]]
"""The family and the address of a socket."""


class Stream:
    """One endpoint; `on_up` is called when a connection was made, `on_data` for its bytes, `on_down` at its end."""

    def __init__(self, endpoint: Endpoint, context: Context, what: str) -> None:
        self.endpoint = endpoint
        self.context = context
        self.what = what
        self.on_up: Callable[[], None] = lambda: None
        self.on_data: Callable[[memoryview], None] = lambda _data: None
        """Its argument is valid during the call only: the next bytes are read into the same memory."""
        self.on_down: Callable[[int], None] = lambda _messages: None
        """Called with the number of messages that were queued and are lost."""
        self.on_drained: Callable[[], None] = lambda: None
        """Called when nothing is queued any more."""
        self.pending = 0
        """Bytes that `send` has accepted and that were not sent yet."""
        self._queue: deque[Buffer] = deque()
        # A new buffer for every read would cost more than the read: the kernel provides that much memory page by page.
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._unix = endpoint.scheme == "chardev+unix"
        self._listener: socket.socket | None = None
        self._connecting: socket.socket | None = None
        self._socket: socket.socket | None = None
        self._timer = IDLE
        self._pause = RETRY
        self._lookup: _Lookup | None = None
        self._file: SocketFile | None = None

    @property
    def up(self) -> bool:
        """True while a connection exists."""
        return self._socket is not None

    def open(self) -> None:
        """Listen, or start to connect."""
        if not self.endpoint.server:
            self._connect()
            return
        try:
            self._listen()
        except OSError as error:
            raise StartError(f"{self.what}: cannot listen on {self.endpoint.url}: {error.strerror}") from None
        if self._unix:
            self._file = SocketFile(self.endpoint.address, self.context.reactor, self._listen, self.context.log)

    # -- connections ----------------------------------------------------------------------------

    def _listen(self) -> None:
        """Bind; also when the socket file was deleted. Present connections stay, and new peers find the new file."""
        before = self._listener
        if self._unix:
            clear_stale(self.endpoint.address, self.what)
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.bind(self.endpoint.address)
                sock.listen(8)
            except OSError:
                sock.close()
                raise
        else:
            host, port = self.endpoint.host_port()
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.create_server(("" if host == "*" else host, port), family=family, backlog=8)
        if before is not None:
            self.context.reactor.unwatch(before.fileno())
            before.close()
        sock.setblocking(False)
        self._listener = sock
        # The next peer waits in the backlog until the present one has gone.
        self.context.reactor.watch(sock.fileno(), 0 if self.up else READ, self._accept)

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # There is no free descriptor. The listener stays readable, so it is not watched for a while.
            self.context.complain("stream.unreachable", self.what, endpoint=str(self.endpoint), error=error.strerror)
            self.context.reactor.interest(self._listener.fileno(), 0)
            self._timer = self.context.reactor.call_later(RETRY_MAX, self._accept_again)
            return
        self.context.reactor.interest(self._listener.fileno(), 0)
        self._begin(sock)

    def _accept_again(self) -> None:
        if self._listener is not None and self._socket is None:
            self.context.reactor.interest(self._listener.fileno(), READ)

    def _connect(self) -> None:
        if self._unix:
            self._connect_to((socket.AF_UNIX, self.endpoint.address))
            return
        host, port = self.endpoint.host_port()
        try:
            address = _resolve(host, port, socket.AI_NUMERICHOST)
        except OSError:
            # It is a name. The resolver may need time, and frames must not wait for it.
            try:
                self._lookup = _Lookup(host, port)
            except (OSError, RuntimeError) as error:
                # There is no free descriptor, or no thread.
                self._again(str(error))
                return
            self.context.reactor.watch(self._lookup.done.fileno(), READ, self._looked_up)
        else:
            self._connect_to(address)

    def _looked_up(self, _events: int) -> None:
        assert self._lookup is not None
        found = self._lookup.found
        self._forget_lookup()
        if isinstance(found, OSError):
            self._again(str(found))
        else:
            self._connect_to(found)

    def _forget_lookup(self) -> None:
        if self._lookup is not None:
            self.context.reactor.unwatch(self._lookup.done.fileno())
            self._lookup.done.close()
            self._lookup = None

    def _connect_to(self, address: Address) -> None:
        try:
            sock = socket.socket(address[0])
        except OSError as error:
            self._again(str(error))
            return
        sock.setblocking(False)
        self._result(sock, sock.connect_ex(address[1]))

    def _connected(self, _events: int) -> None:
        sock = self._connecting
        assert sock is not None
        self._connecting = None
        self.context.reactor.unwatch(sock.fileno())
        self._result(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _result(self, sock: socket.socket, number: int) -> None:
        """The attempt to connect has ended with this error number, or has not ended yet."""
        if number == errno.EINPROGRESS:
            self._connecting = sock
            self.context.reactor.watch(sock.fileno(), WRITE, self._connected)
        elif number:
            sock.close()
            self._again(os.strerror(number))
        else:
            self._begin(sock)

    def _again(self, why: str) -> None:
        self.context.complain("stream.unreachable", self.what, endpoint=str(self.endpoint), error=why)
        self._timer = self.context.reactor.call_later(self._pause, self._connect)
        self._pause = min(self._pause * 2, RETRY_MAX)

    def _begin(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        if not self._unix:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE:
                sock.setsockopt(socket.IPPROTO_TCP, name, value)
        self._pause = RETRY
        self._socket = sock
        self.context.reactor.watch(sock.fileno(), READ, self._ready)
        self.context.log("info", "stream.connected", option=self.what, endpoint=str(self.endpoint))
        self.on_up()

    def hang_up(self) -> None:
        """End the present connection; the next one may come."""
        sock = self._socket
        if sock is None:
            return
        self._socket = None
        lost = len(self._queue)
        self._queue.clear()
        self.pending = 0
        self.context.reactor.unwatch(sock.fileno())
        sock.close()
        self.context.log("info", "stream.closed", option=self.what, endpoint=str(self.endpoint))
        if self._listener is not None:
            self.context.reactor.interest(self._listener.fileno(), READ)
        elif not self.endpoint.server:
            self._timer = self.context.reactor.call_later(self._pause, self._connect)
        self.on_down(lost)

    # -- bytes ----------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self._socket is None or not events & ~WRITE:
            return
        try:
            size = self._socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self.on_data(self._buffer[:size])
        else:
            self.hang_up()

    def send(self, messages: Sequence[Buffer], limit: int) -> bool:
        """Send or queue all messages; False, and none of them, when more than `limit` bytes would be queued."""
        sock = self._socket
        size = sum(map(len, messages))
        if sock is None or self.pending + size > limit:
            return False
        sent = 0
        if not self._queue:
            try:
                # The kernel takes as much as it has space for.
                sent = sock.sendmsg(messages[:GATHER])
            except BlockingIOError:
                pass
            except OSError:
                self.hang_up()
                return False
            if sent == size:
                return True
            self.context.reactor.interest(sock.fileno(), READ | WRITE)
        self._queue.extend(messages)
        self.pending += size
        self._sent(sent)
        return True

    def _sent(self, size: int) -> None:
        """The first `size` bytes of the queue were sent."""
        queue = self._queue
        self.pending -= size
        while size:
            first = queue[0]
            if size < len(first):
                queue[0] = first[size:]
                return
            size -= len(first)
            queue.popleft()

    def _flush(self) -> None:
        sock = self._socket
        if sock is None:
            return
        try:
            while self._queue:
                self._sent(sock.sendmsg(list(islice(self._queue, GATHER))))
        except BlockingIOError:
            return
        except OSError:
            self.hang_up()
            return
        self.context.reactor.interest(sock.fileno(), READ)
        self.on_drained()

    def close(self) -> None:
        """End everything, and delete the socket file if it is still ours."""
        self._timer.cancel()
        self._forget_lookup()
        if self._file is not None:
            self._file.close(remove=True)
        for sock in (self._listener, self._connecting, self._socket):
            if sock is not None:
                self.context.reactor.unwatch(sock.fileno())
                sock.close()
        self._listener = self._connecting = self._socket = None


def _resolve(host: str, port: int, flags: int = 0) -> Address:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    except UnicodeError as error:
        # The text cannot be a name in the DNS.
        raise OSError(f"{host[:80]}: {error}") from None
    return family, address


class _Lookup:
    """Resolves a name in its own thread; `done` becomes readable when `found` has the result."""

    def __init__(self, host: str, port: int) -> None:
        self.found: Address | OSError = OSError("not looked up yet")
        self.done, self._tell = socket.socketpair()
        try:
            threading.Thread(target=self._run, args=(host, port), name=f"lookup {host}", daemon=True).start()
        except RuntimeError:
            self.done.close()
            self._tell.close()
            raise

    def _run(self, host: str, port: int) -> None:
        try:
            self.found = _resolve(host, port)
        except OSError as error:
            self.found = error
        # This makes `done` readable: it is now at the end of its stream.
        self._tell.close()
