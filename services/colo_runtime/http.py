"""`/metrics`, `/health` and `/ready` on one port, in a thread of its own.

The thread touches nothing of the loop's: it asks for a snapshot and waits for the loop to hand one over.
`/health`: 200 while the loop turns. `/ready`: 200 when links are open, taps attached, the frame has
welcomed us; 503 with the reasons before that and while draining.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric

from colo_proto.config import host_port
from colo_runtime.counting import Snapshot, families
from colo_runtime.link import StartError

FRESH: Final = 1.0
"""Seconds to wait for the loop's snapshot before the last one is served."""
STUCK: Final = 5.0
"""Seconds without a turn of the loop after which the process is not healthy."""


class Exchange:
    """Hands snapshots from the loop to the HTTP threads."""

    def __init__(self, wake: Callable[[], None], turned: Callable[[], float], first: Snapshot) -> None:
        self.wanted = False
        self._wake = wake
        self._turned = turned
        self._last = first
        self._condition = threading.Condition()

    def give(self, snapshot: Snapshot) -> None:
        """From the loop."""
        with self._condition:
            self._last = snapshot
            self.wanted = False
            self._condition.notify_all()

    def get(self) -> Snapshot:
        """From an HTTP thread: a fresh snapshot, or the last one when the loop does not answer."""
        with self._condition:
            self.wanted = True
            self._wake()
            self._condition.wait_for(lambda: not self.wanted, FRESH)
            return self._last

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
        snapshot = self._exchange.get()
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


class HttpServer:
    """The server; `address` is HOST:PORT as it is bound."""

    def __init__(self, where: str, exchange: Exchange) -> None:
        host, port = host_port(where, "--http")
        registry = CollectorRegistry()
        registry.register(Collector(exchange))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)

        class Handler(_Handler):
            pass

        Handler.exchange, Handler.registry = exchange, registry

        class Server(ThreadingHTTPServer):
            address_family = AF_INET6 if ":" in host else AF_INET
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Whoever asked has hung up, which is no news; anything else is a bug of ours and shows."""
                if not isinstance(sys.exception(), OSError):
                    super().handle_error(request, client_address)

        try:
            self._server = Server((host, port), Handler)
        except OSError as error:
            raise StartError(f"--http {where}: {error.strerror}") from None
        bound = self._server.server_address
        shown = f"[{bound[0]!s}]" if ":" in str(bound[0]) else str(bound[0])
        self.address = f"{shown}:{bound[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name=f"http {self.address}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    exchange: Exchange
    registry: CollectorRegistry
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._say(200, generate_latest(self.registry), CONTENT_TYPE_LATEST)
        elif path == "/health":
            age = self.exchange.age
            ok = age < STUCK
            self._say(200 if ok else 503, b"ok\n" if ok else f"the loop has not turned for {age:.1f} s\n".encode())
        elif path == "/ready":
            reasons = self.exchange.get().waiting_for
            if self.exchange.age >= STUCK:
                reasons = (*reasons, "the loop does not turn")
            self._say(503 if reasons else 200, ("\n".join(reasons) or "ready").encode() + b"\n")
        else:
            self._say(404, b"/metrics /health /ready\n")

    do_HEAD = do_GET  # noqa: N815

    def _say(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Scrapes are not news."""
