"""`/metrics`, `/health` and `/ready` on one port, in a thread of its own.

The thread reads nothing that the loop of the process may be changing: it asks for a snapshot, and the loop provides
one. `/health`: 200 while the loop turns. `/ready`: 200 when links are open, taps attached, and the COLO frame has
welcomed us; 503 with the reasons before that and while draining.

asyncio serves all connections in this thread (it is imported only for this and for CURVE), and none of them can take
much of it::

    accepted --> request (5 s, 8 KiB) --> waits for the loop's snapshot (1 s) --> answer (5 s) --> the next request

At most `MAX_CONNECTIONS` are open at a time; when one more comes, the oldest is ended. `RATE` answers are given in a
second; who asks for more has to wait, and the loop of the process does not. No ready-made HTTP server is used:
`http.server` has a thread for each connection, and neither it nor wsgiref bounds time, connections or answers.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
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
"""Seconds to wait for a snapshot before the last one is served."""
STUCK: Final = 5.0
"""Seconds without a turn of the loop after which the process is not healthy."""
MAX_CONNECTIONS: Final = 32
MAX_HEAD: Final = 8192
"""Bytes of a request."""
CLIENT_TIMEOUT: Final = 5.0
"""Seconds that a client has to send a request, and again to take the answer."""
RATE: Final = 100.0
"""Connections and answers in a second, on average."""
BURST: Final = 50.0
"""Connections and answers that are possible at once."""
PLAIN: Final = "text/plain; charset=utf-8"
PAUSE: Final = 0.1
"""Seconds without `accept` after there was no free descriptor for it."""


class HttpServer:
    """The server; `address` is HOST:PORT as it is bound.

    When it needs a new snapshot, it sets `wanted` and calls `wake`; the loop of the process then calls `give`. `turned`
    says when the loop turned last, and `first` is served until there is a snapshot.
    """

    def __init__(self, where: str, wake: Callable[[], None], turned: Callable[[], float], first: Snapshot) -> None:
        host, port = host_port(where, "--http")
        self.wanted = False
        self._last = first
        self._wake = wake
        self._turned = turned
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._visitors: dict[asyncio.Task[None], None] = {}
        """The connections, the oldest first."""
        self._budget, self._filled = BURST, time.monotonic()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with contextlib.ExitStack() as opened:
                self._listener = opened.enter_context(socket.create_server((host, port), family=family, backlog=128))
                self._loop = asyncio.new_event_loop()
                # Both were opened; the thread closes them.
                opened.pop_all()
        except OSError as error:
            raise StartError(f"--http {where}: {error.strerror}") from None
        self._listener.setblocking(False)
        self._fresh = asyncio.Event()
        """Set when a snapshot came that is newer than all requests."""
        bound = self._listener.getsockname()
        shown = f"[{bound[0]!s}]" if ":" in str(bound[0]) else str(bound[0])
        self.address = f"{shown}:{bound[1]}"
        self._accepting = self._loop.create_task(self._accept())
        self._thread = threading.Thread(target=self._run, name=f"http {self.address}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections, and stop listening."""
        self._call(self._accepting.cancel)
        self._thread.join()

    def give(self, snapshot: Snapshot) -> None:
        """A new snapshot; called in the thread of the loop."""
        self._last = snapshot
        self.wanted = False
        self._call(self._given)

    def _call(self, function: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # raised when the thread has ended
            self._loop.call_soon_threadsafe(function)

    # -- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        with self._listener, contextlib.closing(self._loop), contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._accepting)

    def _given(self) -> None:
        if not self.wanted:
            self._fresh.set()

    def _pay(self) -> None:
        """Pay for a connection or an answer. When too many are wanted, the whole thread sleeps, and everything that
        clients send meanwhile waits in the kernel.
        """
        now = time.monotonic()
        self._budget = min(BURST, self._budget + (now - self._filled) * RATE) - 1
        self._filled = now
        if self._budget < 0:
            time.sleep(-self._budget / RATE)

    async def _accept(self) -> None:
        try:
            while True:
                await self._accept_one()
                # Let the others run: `sock_accept` does not wait when there is another connection.
                await asyncio.sleep(0)
        finally:
            for task in self._visitors:
                task.cancel()
            await asyncio.gather(*self._visitors, return_exceptions=True)

    async def _accept_one(self) -> None:
        try:
            sock, _ = await self._loop.sock_accept(self._listener)
        except ConnectionError:
            return
        except OSError:
            # There is no free descriptor. The listener stays readable, so it is not looked at for a while.
            await asyncio.sleep(PAUSE)
            return
        self._pay()
        if crowded(sock.fileno()):
            sock.close()
            return
        if len(self._visitors) >= MAX_CONNECTIONS:
            oldest = next(iter(self._visitors))
            del self._visitors[oldest]
            oldest.cancel()
        task = self._loop.create_task(self._serve(sock))
        self._visitors[task] = None
        task.add_done_callback(lambda done: self._visitors.pop(done, None))

    async def _serve(self, sock: socket.socket) -> None:
        """One connection. A client that hangs up, or is too slow, is not an error of ours."""
        with sock, contextlib.suppress(OSError):
            data, last = b"", False
            while not last:
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    while (end := data.find(b"\r\n\r\n")) < 0 and len(data) <= MAX_HEAD:
                        more = await self._loop.sock_recv(sock, MAX_HEAD)
                        if not more:
                            return
                        data += more
                if end < 0:
                    last, answer = True, self._say(431, b"", last=True)
                else:
                    head, data = data[:end], data[end + 4 :]
                    last, answer = await self._answer(head.decode("latin-1").split("\r\n"))
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    await self._loop.sock_sendall(sock, answer)
                # Let the others run: nothing above waits when the next request is here already.
                await asyncio.sleep(0)
            # Bytes that were not read would make the end a reset, and the answer would be lost with it.
            sock.shutdown(socket.SHUT_WR)
            sock.recv(MAX_HEAD)

    async def _answer(self, lines: list[str]) -> tuple[bool, bytes]:
        """The answer to a request, and whether the connection ends with it."""
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return True, self._say(400, b"", last=True)
        method, path = words[0], words[1].partition("?")[0]
        parts = (line.partition(":") for line in lines[1:])
        fields = {name.strip().lower(): value.strip().lower() for name, _, value in parts}
        connection = fields.get("connection", "")
        last = "close" in connection or (words[2] == "HTTP/1.0" and "keep-alive" not in connection)
        if method not in ("GET", "HEAD") or "transfer-encoding" in fields or fields.get("content-length", "0") != "0":
            # What follows is the body, not the next request.
            return True, self._say(501, b"GET, HEAD\n", last=True)
        status, body, kind = await self._page(path)
        return last, self._say(status, body, kind, last=last, head=method == "HEAD")

    async def _page(self, path: str) -> tuple[int, bytes, str]:
        """The status, the body and the content type."""
        if path == "/health":
            age = time.monotonic() - self._turned()
            return (200, b"ok\n", PLAIN) if age < STUCK else (503, b"the loop has not turned for %.1f s\n" % age, PLAIN)
        if path not in ("/metrics", "/ready"):
            return 404, b"/metrics /health /ready\n", PLAIN
        self._fresh.clear()
        self.wanted = True
        self._wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FRESH):
                await self._fresh.wait()
        if path == "/metrics":
            return 200, generate_latest(self._registry), CONTENT_TYPE_LATEST
        reasons = self._last.waiting_for
        if time.monotonic() - self._turned() >= STUCK:
            reasons = (*reasons, "the loop does not turn")
        ready = f"ready; {self._last.note}" if self._last.note else "ready"
        return 503 if reasons else 200, ("\n".join(reasons) or ready).encode() + b"\n", PLAIN

    def collect(self) -> Iterator[Metric]:
        """The counters and gauges of the last snapshot as metrics `colo_<role>_<thing>[_total]`.

        Called by prometheus-client for each scrape.
        """
        snapshot = self._last
        role = snapshot.role
        for kind, suffix, values in (("counter", "_total", snapshot.counters), ("gauge", "", snapshot.gauges)):
            for name, rows in families(values).items():
                clean = "".join(c if c.isalnum() else "_" for c in name)
                metric = Metric(f"colo_{role}_{clean}", f"{name} of {role}", kind)
                for labels, value in rows:
                    metric.add_sample(metric.name + suffix, labels, value)
                yield metric
        process = {"role": role, "id": snapshot.id}
        ready = int(not snapshot.waiting_for)
        for name, text, value in (("colo_up", "runs", 1), ("colo_ready", "is ready", ready)):
            metric = Metric(name, f"1 while the process {text}", "gauge")
            metric.add_sample(name, process, value)
            yield metric

    def _say(self, status: int, body: bytes, kind: str = PLAIN, *, last: bool, head: bool = False) -> bytes:
        self._pay()
        lines = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {kind}", f"Content-Length: {len(body)}",
            *(["Connection: close"] if last else []), "", "",
        )  # fmt: skip
        return "\r\n".join(lines).encode() + (b"" if head else body)
