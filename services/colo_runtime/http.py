"""`/metrics`, `/health` and `/ready` on one port, in a thread of its own.

The thread touches nothing of the loop's: it asks for a snapshot, and the loop hands one over.
`/health`: 200 while the loop turns. `/ready`: 200 when links are open, taps attached, the frame has
welcomed us; 503 with the reasons before that and while draining.

One thread serves all connections, and none of them can take much of it::

    accepted --> head (5 s, 8 KiB) --> waits for the loop's snapshot (1 s) --> answer (5 s) --> head of the next one

`MAX_CONNECTIONS` are open at a time: one more, and the oldest is ended. `RATE` answers a second are given; who asks for
more waits, and the loop does not.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric

from colo_proto.config import host_port
from colo_proto.errors import StartError
from colo_runtime.counting import Snapshot, families
from colo_runtime.doors import crowded

FRESH: Final = 1.0
"""Seconds to wait for the loop's snapshot before the last one is served."""
STUCK: Final = 5.0
"""Seconds without a turn of the loop after which the process is not healthy."""
MAX_CONNECTIONS: Final = 32
MAX_HEAD: Final = 8192
"""Bytes of a request."""
PATIENCE: Final = 5.0
"""Seconds that somebody has for his request, and as many to take the answer."""
RATE: Final = 100.0
"""Answers a second, on average, and as many connections."""
BURST: Final = 50.0
"""Answers that may be given at once."""
PAUSE: Final = 0.1
"""Seconds without `accept` after there was no descriptor for it."""


class Exchange:
    """Hands snapshots from the loop to the HTTP thread."""

    def __init__(self, wake: Callable[[], None], turned: Callable[[], float], first: Snapshot) -> None:
        self.wanted = False
        self.last = first
        self.on_given: Callable[[], None] = lambda: None
        """Called in the loop's thread when there is a new one."""
        self._wake = wake
        self._turned = turned

    def give(self, snapshot: Snapshot) -> None:
        """From the loop."""
        self.last = snapshot
        self.wanted = False
        self.on_given()

    def ask(self) -> None:
        """From the HTTP thread: a snapshot is wanted."""
        self.wanted = True
        self._wake()

    @property
    def age(self) -> float:
        """Seconds since the loop last turned."""
        return time.monotonic() - self._turned()


class Collector:
    """Counters and gauges of a snapshot as metrics `colo_<role>_<thing>[_total]`."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus-client at each scrape."""
        snapshot = self._exchange.last
        role = snapshot.role
        for kind, values in (("counter", snapshot.counters), ("gauge", snapshot.gauges)):
            for name, rows in families(values).items():
                metric = Metric(f"colo_{role}_{_clean(name)}", f"{name} of {role}", kind)
                for labels, value in rows:
                    suffix = "_total" if kind == "counter" else ""
                    metric.add_sample(metric.name + suffix, labels, value)
                yield metric
        up = Metric("colo_up", "1 while the process runs", "gauge")
        up.add_sample("colo_up", {"role": role, "id": snapshot.id}, 1)
        yield up
        ready = Metric("colo_ready", "1 while the process is ready", "gauge")
        ready.add_sample("colo_ready", {"role": role, "id": snapshot.id}, int(not snapshot.waiting_for))
        yield ready


def _clean(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


@dataclass(slots=True, eq=False)
class _Visitor:
    """A connection."""

    socket: socket.socket
    until: float
    """When its patience is over."""
    head: bytearray = field(default_factory=bytearray)
    asked: tuple[str, str] | None = None
    """Method and path, while it waits for a snapshot."""
    answer: memoryview = field(default_factory=lambda: memoryview(b""))
    last: bool = False
    """The connection ends with this answer."""


class HttpServer:
    """The server; `address` is HOST:PORT as it is bound."""

    def __init__(self, where: str, exchange: Exchange) -> None:
        host, port = host_port(where, "--http")
        self._exchange = exchange
        self._registry = CollectorRegistry()
        self._registry.register(Collector(exchange))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._visitors: dict[int, _Visitor] = {}
        """By descriptor, the oldest first."""
        self._more: dict[_Visitor, None] = {}
        """Who has sent another request already: each gets one answer a turn."""
        self._budget, self._filled = BURST, time.monotonic()
        self._accepting = True
        self._paused = 0.0
        self._closing = False
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise StartError(f"--http {where}: {error.strerror}") from None
        try:
            self._selector = selectors.DefaultSelector()
            self._bell, self._rope = socket.socketpair()
        except OSError as error:
            self._listener.close()
            raise StartError(f"--http {where}: {error.strerror}") from None
        for one in (self._listener, self._bell, self._rope):
            one.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)
        bound = self._listener.getsockname()
        shown = f"[{bound[0]!s}]" if ":" in str(bound[0]) else str(bound[0])
        self.address = f"{shown}:{bound[1]}"
        exchange.on_given = self._ring
        self._thread = threading.Thread(target=self._run, name=f"http {self.address}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._closing = True
        self._ring()
        self._thread.join()
        self._exchange.on_given = lambda: None
        self._rope.close()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._rope.send(b"r")

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            ready = self._selector.select(self._wait())
            now = time.monotonic()
            self._budget = min(BURST, self._budget + (now - self._filled) * RATE)
            self._filled = now
            for key, _ in ready:
                if key.fileobj is self._listener:
                    self._accept(now)
                elif key.fileobj is self._bell:
                    self._rung()
                elif (visitor := self._visitors.get(key.fd)) is not None:
                    self._try(self._serve, visitor, now)
            more, self._more = self._more, {}
            for visitor in more:
                self._try(self._read, visitor, now)
            self._look(now)
        for visitor in list(self._visitors.values()):
            self._end(visitor)
        self._selector.close()
        self._listener.close()
        self._bell.close()

    def _wait(self) -> float:
        if self._budget < 1:
            # Asked too often: whatever comes meanwhile waits in the kernel.
            time.sleep((1 - self._budget) / RATE)
        if self._more:
            return 0.0
        now = time.monotonic()
        due = min((visitor.until for visitor in self._visitors.values()), default=now + 60)
        if not self._accepting:
            due = min(due, self._paused)
        return max(0.0, due - now)

    def _look(self, now: float) -> None:
        """What time brings."""
        if not self._accepting and now >= self._paused:
            self._accepting = True
            self._selector.register(self._listener, selectors.EVENT_READ)
        for visitor in list(self._visitors.values()):
            if visitor.until > now or visitor.socket.fileno() not in self._visitors:
                continue
            if visitor.asked is not None:
                self._try(self._give, visitor, now)
            else:
                self._end(visitor)

    def _accept(self, now: float) -> None:
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            # No descriptor. The listener stays readable: do not look at it for a while.
            self._accepting, self._paused = False, now + PAUSE
            self._selector.unregister(self._listener)
            return
        self._budget -= 1
        if crowded(sock.fileno()):
            sock.close()
            return
        if len(self._visitors) >= MAX_CONNECTIONS:
            self._end(next(iter(self._visitors.values())))
        sock.setblocking(False)
        self._visitors[sock.fileno()] = _Visitor(sock, now + PATIENCE)
        self._selector.register(sock, selectors.EVENT_READ)

    def _end(self, visitor: _Visitor) -> None:
        if visitor.asked is None:
            self._selector.unregister(visitor.socket)
        self._more.pop(visitor, None)
        del self._visitors[visitor.socket.fileno()]
        visitor.socket.close()

    def _rung(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.recv(4096)
        if not self._exchange.wanted:
            now = time.monotonic()
            for visitor in [one for one in self._visitors.values() if one.asked is not None]:
                self._try(self._give, visitor, now)

    def _try(self, what: Callable[[_Visitor, float], None], visitor: _Visitor, now: float) -> None:
        """Whoever asked may have hung up, which is no news."""
        if visitor.socket.fileno() not in self._visitors:
            return
        try:
            what(visitor, now)
        except BlockingIOError:
            return
        except OSError:
            self._end(visitor)

    def _serve(self, visitor: _Visitor, now: float) -> None:
        if visitor.answer:
            self._write(visitor, now)
            return
        data = visitor.socket.recv(MAX_HEAD)
        if data:
            visitor.head += data
            self._read(visitor, now)
        else:
            self._end(visitor)

    # -- a request ------------------------------------------------------------------------------

    def _read(self, visitor: _Visitor, now: float) -> None:
        """A request, when all of it is here."""
        end = visitor.head.find(b"\r\n\r\n")
        if end < 0:
            if len(visitor.head) > MAX_HEAD:
                self._say(visitor, now, 431, b"")
            return
        lines = bytes(visitor.head[:end]).decode("latin-1").split("\r\n")
        del visitor.head[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            visitor.last = True
            self._say(visitor, now, 400, b"")
            return
        method, path = words[0], words[1].partition("?")[0]
        said = (line.partition(":") for line in lines[1:])
        fields = {name.strip().lower(): value.strip().lower() for name, _, value in said}
        connection = fields.get("connection", "")
        visitor.last = "close" in connection or (words[2] == "HTTP/1.0" and "keep-alive" not in connection)
        if method not in ("GET", "HEAD") or "transfer-encoding" in fields or fields.get("content-length", "0") != "0":
            # What follows is no request.
            visitor.last = True
            self._say(visitor, now, 501, b"GET, HEAD\n")
        elif path in ("/metrics", "/ready"):
            # It is not read from meanwhile.
            self._selector.unregister(visitor.socket)
            visitor.asked, visitor.until = (method, path), now + FRESH
            self._exchange.ask()
        elif path == "/health":
            age = self._exchange.age
            text = b"ok\n" if age < STUCK else f"the loop has not turned for {age:.1f} s\n".encode()
            self._say(visitor, now, 200 if age < STUCK else 503, text, head=method == "HEAD")
        else:
            self._say(visitor, now, 404, b"/metrics /health /ready\n", head=method == "HEAD")

    def _give(self, visitor: _Visitor, now: float) -> None:
        """Answer one that has waited for a snapshot."""
        assert visitor.asked is not None
        (method, path), visitor.asked = visitor.asked, None
        head = method == "HEAD"
        self._selector.register(visitor.socket, selectors.EVENT_READ)
        if path == "/metrics":
            self._say(visitor, now, 200, generate_latest(self._registry), CONTENT_TYPE_LATEST, head=head)
            return
        reasons = self._exchange.last.waiting_for
        if self._exchange.age >= STUCK:
            reasons = (*reasons, "the loop does not turn")
        self._say(visitor, now, 503 if reasons else 200, ("\n".join(reasons) or "ready").encode() + b"\n", head=head)

    def _say(
        self, visitor: _Visitor, now: float, status: int, body: bytes,
        kind: str = "text/plain; charset=utf-8", *, head: bool = False,
    ) -> None:  # fmt: skip
        self._budget -= 1
        if status in (400, 431):
            visitor.last = True
        lines = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {kind}", f"Content-Length: {len(body)}",
            *(["Connection: close"] if visitor.last else []), "", "",
        )  # fmt: skip
        visitor.answer = memoryview("\r\n".join(lines).encode() + (b"" if head else body))
        visitor.until = now + PATIENCE
        self._selector.modify(visitor.socket, selectors.EVENT_WRITE)
        self._write(visitor, now)

    def _write(self, visitor: _Visitor, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            visitor.answer = visitor.answer[visitor.socket.send(visitor.answer) :]
        if visitor.answer:
            return
        if visitor.last:
            # What was not read would turn the end into a reset, and the answer would be lost with it.
            with contextlib.suppress(OSError):
                visitor.socket.shutdown(socket.SHUT_WR)
                visitor.socket.recv(MAX_HEAD)
            self._end(visitor)
            return
        self._selector.modify(visitor.socket, selectors.EVENT_READ)
        visitor.until = now + PATIENCE
        if visitor.head:
            self._more[visitor] = None
