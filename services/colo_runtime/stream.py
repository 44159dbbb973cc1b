"""A byte stream that is listened for or connected to again and again (`chardev+unix://`, `chardev+tcp://`).

::

    server: listening --accept--> up --end--> listening     (one peer at a time, as QEMU's chardev has it)
    client: away --connect--> up --end--> away, again after a pause

Never stops reading: a QEMU whose socket is not read stands still, monitor and all.
"""

import contextlib
import errno
import os
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError, StartError
from colo_proto.frame import Buffer
from colo_runtime.context import Context
from colo_runtime.reactor import READ, WRITE, Timer
from colo_runtime.socketfile import SocketFile

RETRY: Final = 0.05
RETRY_MAX: Final = 1.0
READ_SIZE: Final = 256 * 1024
GATHER: Final = 256
"""Messages handed to the kernel at once (it takes up to 1,024)."""
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))
"""A TCP peer that is gone without a FIN is noticed after some ten seconds, and another one let in."""


class Stream:
    """One endpoint; `on_up` when a connection is there, `on_data` for its bytes, `on_down` at its end."""

    def __init__(self, endpoint: Endpoint, context: Context, what: str) -> None:
        self.endpoint = endpoint
        self.context = context
        self.what = what
        self.on_up: Callable[[], None] = lambda: None
        self.on_data: Callable[[memoryview], None] = lambda _data: None
        """Its argument is good for this call only: the next bytes come into the same place."""
        self.on_down: Callable[[int], None] = lambda _messages: None
        """Called with the number of messages that were queued and are lost."""
        self.on_drained: Callable[[], None] = lambda: None
        """Called when nothing is queued any more."""
        self.pending = 0
        """Bytes accepted by `send` that have not left."""
        self._queue: deque[Buffer] = deque()
        # A new buffer for every read costs more than the read: so much memory comes from the kernel, page by page.
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._listener: socket.socket | None = None
        self._connecting: socket.socket | None = None
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._pause = RETRY
        self._inode: tuple[int, int] | None = None
        self._lookup: _Lookup | None = None
        self._file: SocketFile | None = None

    @property
    def up(self) -> bool:
        """True while a connection is there."""
        return self._socket is not None

    def open(self) -> None:
        """Listen, or start to connect."""
        if self.endpoint.server:
            self._listen()
        else:
            self._connect()

    # -- connections ----------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            if self.endpoint.scheme == "chardev+unix":
                sock = self._bind(self.endpoint.address)
            else:
                host, port = self.endpoint.host_port()
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                sock = socket.create_server(("" if host == "*" else host, port), family=family, backlog=8)
        except OSError as error:
            raise StartError(f"{self.what}: cannot listen on {self.endpoint.url}: {error.strerror}") from None
        self._serve(sock)
        if self.endpoint.scheme == "chardev+unix":
            context = self.context
            self._file = SocketFile(self.endpoint.address, context.reactor, self._bind_again, context.log)

    def _serve(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._listener = sock
        # The next peer waits in the backlog until the present one is gone.
        self.context.reactor.watch(sock.fileno(), 0 if self.up else READ, self._accept)

    def _bind_again(self) -> None:
        """Its file is gone: who is connected stays, the next one finds a new one."""
        before, sock = self._listener, self._bind(self.endpoint.address)
        if before is not None:
            self.context.reactor.unwatch(before.fileno())
            before.close()
        self._serve(sock)

    def _bind(self, path: str) -> socket.socket:
        _clear_stale(path, self.what)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(path)
            about = Path(path).stat()
            self._inode = (about.st_dev, about.st_ino)
            sock.listen(8)
        except OSError:
            sock.close()
            raise
        return sock

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            # No descriptor. The listener stays readable: do not look at it for a while.
            self.context.complain("stream.unreachable", self.what, endpoint=str(self.endpoint), error=error.strerror)
            self.context.reactor.interest(self._listener.fileno(), 0)
            self._timer = self.context.reactor.call_later(RETRY_MAX, self._accept_again)
            return
        # The next peer waits in the backlog until this one is gone.
        self.context.reactor.interest(self._listener.fileno(), 0)
        self._begin(sock)

    def _accept_again(self) -> None:
        self._timer = None
        if self._listener is not None and self._socket is None:
            self.context.reactor.interest(self._listener.fileno(), READ)

    def _connect(self) -> None:
        self._timer = None
        if self.endpoint.scheme == "chardev+unix":
            self._connect_to(socket.AF_UNIX, self.endpoint.address)
            return
        host, port = self.endpoint.host_port()
        try:
            self._resolved(_lookup(host, port, socket.AI_NUMERICHOST))
        except OSError:
            # A name: who answers for it may take its time, and frames must not wait.
            try:
                self._lookup = _Lookup(host, port)
            except (OSError, RuntimeError) as error:
                # Neither a descriptor nor a thread is to be had.
                self._again(str(error))
                return
            self.context.reactor.watch(self._lookup.done.fileno(), READ, self._looked_up)

    def _looked_up(self, _events: int) -> None:
        lookup = self._lookup
        assert lookup is not None
        self._forget_lookup()
        if isinstance(lookup.found, OSError):
            self._again(str(lookup.found))
        else:
            self._resolved(lookup.found)

    def _forget_lookup(self) -> None:
        if self._lookup is not None:
            self.context.reactor.unwatch(self._lookup.done.fileno())
            self._lookup.done.close()
            self._lookup = None

    def _resolved(self, found: tuple[int, tuple[Any, ...]]) -> None:
        family, address = found
        self._connect_to(family, address)

    def _connect_to(self, family: int, address: str | tuple[Any, ...]) -> None:
        try:
            sock = socket.socket(family)
        except OSError as error:
            self._again(str(error))
            return
        sock.setblocking(False)
        number = sock.connect_ex(address)
        if number == 0:
            self._begin(sock)
        elif number == errno.EINPROGRESS:
            self._connecting = sock
            self.context.reactor.watch(sock.fileno(), WRITE, self._connected)
        else:
            sock.close()
            self._again(os.strerror(number))

    def _connected(self, _events: int) -> None:
        sock = self._connecting
        assert sock is not None
        self._connecting = None
        self.context.reactor.unwatch(sock.fileno())
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
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
        if sock.family != socket.AF_UNIX:
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
        """Send or queue messages, all or none of them; False when more than `limit` bytes would be queued."""
        sock = self._socket
        size = sum(map(len, messages))
        if sock is None or self.pending + size > limit:
            return False
        if not self._queue:
            try:
                # sendmsg gathers; the kernel takes what fits.
                sent = sock.sendmsg(messages[:GATHER])
            except BlockingIOError:
                sent = 0
            except OSError:
                self.hang_up()
                return False
            if sent == size:
                return True
            self.context.reactor.interest(sock.fileno(), READ | WRITE)
            self._queue.extend(messages)
            self.pending = size
            self._sent(sent)
            return True
        self._queue.extend(messages)
        self.pending += size
        return True

    def _sent(self, size: int) -> None:
        """The first `size` bytes of the queue have gone."""
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
        """End everything; a socket file that is still ours goes too."""
        if self._timer is not None:
            self._timer.cancel()
        self._forget_lookup()
        if self._file is not None:
            self._file.close()
        for sock in (self._listener, self._connecting, self._socket):
            if sock is not None:
                self.context.reactor.unwatch(sock.fileno())
                sock.close()
        self._listener = self._connecting = self._socket = None
        if self._inode is not None:
            with contextlib.suppress(OSError):
                about = Path(self.endpoint.address).stat()
                if (about.st_dev, about.st_ino) == self._inode:
                    Path(self.endpoint.address).unlink()


def _lookup(host: str, port: int, flags: int = 0) -> tuple[int, tuple[Any, ...]]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
    except UnicodeError as error:
        # What cannot be a name in the DNS.
        raise OSError(f"{host[:80]}: {error}") from None
    return family, address


class _Lookup:
    """A name is looked up in a thread of its own; `done` becomes readable when `found` is there."""

    def __init__(self, host: str, port: int) -> None:
        self.found: tuple[int, tuple[Any, ...]] | OSError = OSError("not looked up yet")
        self.done, self._tell = socket.socketpair()
        try:
            threading.Thread(target=self._run, args=(host, port), name=f"lookup {host}", daemon=True).start()
        except RuntimeError:
            self.done.close()
            self._tell.close()
            raise

    def _run(self, host: str, port: int) -> None:
        try:
            self.found = _lookup(host, port)
        except OSError as error:
            self.found = error
        # Readable: the other end sees the end of the stream.
        self._tell.close()


def _clear_stale(path: str, what: str) -> None:
    """Remove a socket file that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigError(f"{what}: {path} exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        # A listener whose backlog is full would let us wait.
        probe.setblocking(False)
        number = probe.connect_ex(path)
    if number == errno.ECONNREFUSED:
        Path(path).unlink()
    elif number in (0, errno.EAGAIN):
        raise StartError(f"{what}: somebody listens on {path} already")
    else:
        raise StartError(f"{what}: {path}: {os.strerror(number)}")
