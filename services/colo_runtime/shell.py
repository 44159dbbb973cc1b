"""The life of every process: open, run, drain, close. The shells of filters, of netdev and of the COLO frame share it.

::

    start: open links, http, control -> run: turn the reactor -> drain -> close
                                                 ^
              SIGTERM, SIGINT, Drain, or the end of all captures: report not ready, read no more input, send the
              last outputs of the core, wait until queues are empty (two seconds at most), send a final report, exit 0.
              A second signal: exit at once.
"""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import zmq

from colo_proto.core import Output
from colo_proto.errors import ConfigError
from colo_runtime.context import Context
from colo_runtime.control import Control
from colo_runtime.counting import Snapshot
from colo_runtime.curve import Curve
from colo_runtime.doors import raise_limit
from colo_runtime.options import CommonConfig
from colo_runtime.reactor import Reactor
from colo_runtime.tuning import tune_memory

DRAIN_LOOK: Final = 0.02

LogFn = Callable[..., None]


def incarnation() -> int:
    """A random number that identifies this start of a process: 1 to 2^63 - 1."""
    return int.from_bytes(os.urandom(8), "big") % (2**63 - 1) + 1


class Shell(ABC):
    """What all shells have in common: reactor, signals, HTTP, draining."""

    def __init__(
        self, role: str, common: CommonConfig, log: LogFn, zmq_context: zmq.Context[Any] | None = None
    ) -> None:
        self.role = role
        self.common = common
        self.id = common.id or role
        self.log = log
        self.reactor = Reactor()
        self._own_context = zmq_context is None
        self.zmq: zmq.Context[Any] = zmq_context or zmq.Context()
        self.context = Context(
            reactor=self.reactor,
            zmq=self.zmq,
            id=self.id,
            incarnation=incarnation(),
            log=log,
            common=common,
            on_ready=self._look_ready,
        )
        if common.curve_secret or common.curve_peers:
            curve = Curve(common.curve_secret, common.curve_peers, self.zmq, self.reactor, log)
            curve.complain = self.context.complain
            self.context.curve = curve
        self._closed = False
        self.draining = False
        self.done = False
        self.status = 0
        self.counters: Counter[str] = Counter()
        """The counters of the shell itself."""
        self.files: list[Callable[[], list[Output]]] = []
        """Each reads a file for the core, at the start and at SIGHUP, and returns the outputs of the core.
        `ConfigError` when the file is wrong; the core then keeps what it has.
        """
        self.control: Control | None = None
        """The link to the COLO frame of this host, where there is one."""
        self._http: Any = None
        self._drain_until = 0.0
        self._was_ready = False
        self._signals = 0

    # -- for subclasses -------------------------------------------------------------------------

    @abstractmethod
    def open_links(self) -> None:
        """Open everything that carries frames or messages."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Counters, gauges and status now."""

    @abstractmethod
    def core_deadline(self) -> float | None:
        """When the timer of the core is due (monotonic seconds), or None."""

    @abstractmethod
    def core_timer(self, now: float) -> None:
        """Call the timer of the core and carry out its outputs."""

    def _do(self, outputs: list[Output]) -> None:
        """Carry out the outputs of the core. A shell whose core has no outputs need not override this."""
        assert not outputs, "this shell cannot carry out outputs"

    @abstractmethod
    def begin_drain(self) -> None:
        """Stop reading, and send the last outputs of the core."""

    @abstractmethod
    def drained(self) -> bool:
        """True when nothing waits to be sent any more."""

    @abstractmethod
    def close_links(self) -> None:
        """Close everything."""

    # -- life -----------------------------------------------------------------------------------

    def open(self) -> None:
        """Open everything. When that fails, everything is closed again; `ConfigError` or `StartError` say why."""
        try:
            if self.common.http:
                self._open_http()
            self._load_files()
            if self.context.curve is not None:
                self.context.curve.open()
            self.open_links()
            if self.control is not None:
                self.control.http = self.http
                self.control.open()
        except BaseException:
            self.close()
            raise
        self.log("info", "process.started", pid=os.getpid(), incarnation=self.context.incarnation, http=self.http)
        self._look_ready()

    def _load_files(self) -> None:
        for load in self.files:
            self._do(load())

    def _open_http(self) -> None:
        from colo_runtime.http import HttpServer  # noqa: PLC0415  it takes time and memory, and not every process serves

        first = Snapshot(self.role, self.id, waiting_for=("starting",))
        self._http = HttpServer(self.common.http, self.reactor.wake, lambda: self.reactor.turned, first)
        self.reactor.on_wake = self._give_snapshot

    def _give_snapshot(self) -> None:
        if self._http is not None and self._http.wanted:
            self._http.give(self.snapshot())

    @property
    def http(self) -> str:
        """HOST:PORT of the metrics; empty when there are none."""
        return self._http.address if self._http is not None else ""

    def _turn(self, until: float | None) -> None:
        self.reactor.turn(until)
        deadline = self.core_deadline()
        if deadline is not None:
            now = time.monotonic()
            if deadline <= now:
                self.core_timer(now)

    def run(self) -> int:
        """Open, run until the process ends, close. Returns the exit status."""
        self.reactor.catch_signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self.reactor.on_signal = self._signalled
        raise_limit()
        try:
            self.open()
            tune_memory()
            turn, deadline = self._turn, self.core_deadline
            while not self.done:
                turn(deadline())
        finally:
            self.close()
        return self.status

    def reload(self) -> None:
        """SIGHUP: read all files again that may change while we run. Mistakes are logged, and the old content stays."""
        if self.context.curve is not None:
            self.context.curve.reload()
        try:
            self._load_files()
        except ConfigError as error:
            self.counters["reloads_refused"] += 1
            self.log("error", "process.not_reloaded", error=str(error))
        else:
            self.log("info", "process.reloaded")

    def _signalled(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.reload()
            return
        self._signals += 1
        if self._signals > 1:
            self.log("warning", "process.left", signal=signal.Signals(number).name)
            os._exit(128 + number)
        self.drain(signal.Signals(number).name)

    def drain(self, why: str) -> None:
        """Start to drain; does nothing when that was started before."""
        if self.draining:
            return
        self.draining = True
        self.log("info", "process.draining", why=why)
        self._drain_until = time.monotonic() + self.common.drain_timeout
        self._look_ready()
        self._report()
        self.begin_drain()
        self._drain_on()

    def _report(self) -> None:
        if self.control is not None and self.control.opened:
            self.control.report()

    def _drain_on(self) -> None:
        if not self.drained() and time.monotonic() < self._drain_until:
            self.reactor.call_later(DRAIN_LOOK, self._drain_on)
            return
        self._report()
        self.done = True

    def close(self) -> None:
        """Close everything; does nothing when that was done before."""
        if self._closed:
            return
        self._closed = True
        if self._http is not None:
            self._http.close()
            self._http = None
        self.close_links()
        if self.control is not None and self.control.opened:
            self.control.close()
        if self.context.curve is not None:
            self.context.curve.close()
        self.context.endings.wait()
        if self._own_context:
            self.zmq.term()
        self.reactor.close()
        if self.done:
            self.log("info", "process.stopped", status=self.status)

    def waiting_for(self) -> tuple[str, ...]:
        """Why the process is not ready; empty when it is."""
        reasons = ["draining"] if self.draining else []
        if self.control is not None and not self.control.welcomed:
            reasons.append(f"the frame at {self.control.endpoint.url} has not answered")
        return tuple(reasons)

    def own_counters(self) -> dict[str, int]:
        """The counters of the shell itself and of its control link."""
        control = self.control.counters if self.control is not None else {}
        return dict(self.counters) | {f"control.{name}": n for name, n in control.items()}

    def _look_ready(self) -> None:
        waiting = self.waiting_for()
        ready = not waiting
        if ready != self._was_ready:
            self._was_ready = ready
            reasons = {} if ready else {"waiting_for": list(waiting)}
            self.log("info", "process.ready" if ready else "process.unready", **reasons)
