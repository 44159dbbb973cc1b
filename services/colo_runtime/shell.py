"""The shell around a core: opens its ports, feeds it, carries out what it asks for, ends it well.

::

    start: open links, http, control -> run: turn the reactor -> drain -> close
                                                 ^
              SIGTERM, SIGINT, Drain, end of all captures: not ready first, no more input, the core's
              last words out, queues empty or two seconds over, a final report, exit 0.
              A second signal: out at once.
"""

import os
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import zmq

from colo_proto import pcapng
from colo_proto.core import Core, Log, Marked, Output, Save, Send, Tell, Way
from colo_proto.endpoint import Endpoint, parse_endpoint
from colo_proto.errors import ConfigError
from colo_proto.messages import CheckpointWanted, Drain, Lease, Message, Reason, WorkerTable, Yielded
from colo_runtime.control import Control
from colo_runtime.counting import Snapshot, link_counters, link_gauges
from colo_runtime.link import Link, StartError, Surroundings
from colo_runtime.links import make_link
from colo_runtime.options import CommonConfig
from colo_runtime.reactor import Reactor
from colo_runtime.rulesfile import RulesFile
from colo_runtime.tuning import settle, yield_less

if TYPE_CHECKING:
    from colo_runtime.notify import Notify
    from colo_runtime.reliable import ReliableIn

CONGESTED: Final = 1 << 20
"""Bytes queued on an output above which captures are read no further."""
DRAIN_LOOK: Final = 0.02
LEAVE: Final = 5.0
"""Seconds for others to take over what a process is asked to leave."""

LogFn = Callable[..., None]


def incarnation() -> int:
    """A random name for this start of a process: 1 to 2^63 - 1."""
    return int.from_bytes(os.urandom(8), "big") % (2**63 - 1) + 1


class Shell(ABC):
    """What filters and the frame have in common: reactor, signals, HTTP, draining."""

    def __init__(self, role: str, common: CommonConfig, log: LogFn, context: zmq.Context[Any] | None = None) -> None:
        self.role = role
        self.common = common
        self.id = common.id or role
        self.log = log
        self.reactor = Reactor()
        self._own_context = context is None
        self.zmq: zmq.Context[Any] = context or zmq.Context()
        self.around = Surroundings(
            reactor=self.reactor,
            zmq=self.zmq,
            id=self.id,
            incarnation=incarnation(),
            log=log,
            queue_bytes=common.queue_bytes,
            ring_bytes=common.ring_bytes,
            netdev_socket=common.netdev_socket,
            on_ready=self._look_ready,
            insecure=common.insecure,
        )
        if common.curve_secret or common.curve_peers:
            from colo_runtime.curve import Curve  # noqa: PLC0415  most processes have no link between hosts

            self.around.curve = Curve(common.curve_secret, common.curve_peers, self.around)
        self._closed = False
        self.draining = False
        self.done = False
        self.status = 0
        self.counters: Counter[str] = Counter()
        """The shell's own."""
        self.rules = RulesFile("", None)
        self._http: Any = None
        self._exchange: Any = None
        self._drain_until = 0.0
        self._was_ready = False
        self._signals = 0

    # -- for subclasses -------------------------------------------------------------------------

    @abstractmethod
    def open_links(self) -> None:
        """Open everything that frames or messages cross."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """Counters, gauges and status now."""

    @abstractmethod
    def core_deadline(self) -> float | None:
        """When the core wants its timer."""

    @abstractmethod
    def core_timer(self, now: float) -> None:
        """Call the core's timer and carry out what it asks for."""

    def _do(self, outputs: list[Output]) -> None:
        """Do what a core asks for; a shell whose core asks for nothing leaves it as it is."""
        assert not outputs, "outputs of a core that has a shell which carries nothing out"

    @abstractmethod
    def begin_drain(self) -> None:
        """Stop reading; send the core's last words."""

    @abstractmethod
    def drained(self) -> bool:
        """Nothing waits any more."""

    def last_words(self) -> None:
        """After draining, before closing."""

    @abstractmethod
    def close_links(self) -> None:
        """Close everything."""

    # -- life -----------------------------------------------------------------------------------

    def open(self) -> None:
        """Open all that there is; `ConfigError` or `StartError`, with everything closed again, when that fails."""
        try:
            if self.common.http:
                self._open_http()
            self._do(self.rules.load())
            if self.around.curve is not None:
                self.around.curve.open()
            self.open_links()
        except BaseException:
            self.close()
            raise
        self.log("info", "process.started", pid=os.getpid(), incarnation=self.around.incarnation, http=self.http)
        self._look_ready()

    def _open_http(self) -> None:
        from colo_runtime.http import Exchange, HttpServer  # noqa: PLC0415  only who serves pays for it

        first = Snapshot(self.role, self.id, waiting_for=("starting",))
        self._exchange = Exchange(self.reactor.wake, lambda: self.reactor.turned, first)
        self.reactor.on_wake = self._give_snapshot
        self._http = HttpServer(self.common.http, self._exchange)

    def _give_snapshot(self) -> None:
        if self._exchange is not None and self._exchange.wanted:
            self._exchange.give(self.snapshot())

    @property
    def http(self) -> str:
        """HOST:PORT of the metrics, or empty."""
        return self._http.address if self._http is not None else ""

    def step(self, limit: float = 0.0) -> None:
        """One turn, of at most `limit` seconds."""
        deadline = self.core_deadline()
        until = time.monotonic() + limit
        self._turn(min(until, deadline) if deadline is not None else until)

    def _turn(self, until: float | None) -> None:
        self.reactor.turn(until)
        deadline = self.core_deadline()
        if deadline is not None:
            now = time.monotonic()
            if deadline <= now:
                self.core_timer(now)

    def run(self) -> int:
        """Open, turn until it is over, close. The exit status."""
        self.reactor.catch_signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self.reactor.on_signal = self._signalled
        try:
            self.open()
            settle()
            turn, deadline = self._turn, self.core_deadline
            while not self.done:
                turn(deadline())
        finally:
            self.close()
        return self.status

    def reload(self) -> None:
        """SIGHUP: read again what can change while we run. What is wrong is logged, and the old stays."""
        if self.around.curve is not None:
            self.around.curve.reload()
        try:
            self._do(self.rules.load())
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
        """Begin to end. Harmless when it has begun."""
        if self.draining:
            return
        self.draining = True
        self.log("info", "process.draining", why=why)
        self._drain_until = time.monotonic() + self.common.drain_timeout
        self.begin_drain()
        self._drain_on()

    def _drain_on(self) -> None:
        if not self.drained() and time.monotonic() < self._drain_until:
            self.reactor.call_later(DRAIN_LOOK, self._drain_on)
            return
        self.last_words()
        self.done = True

    def close(self) -> None:
        """Let go of everything; harmless when it was done before."""
        if self._closed:
            return
        self._closed = True
        if self._http is not None:
            self._http.close()
            self._http = None
        self.close_links()
        if self.around.curve is not None:
            self.around.curve.close()
        if self._own_context:
            self.zmq.term()
        self.reactor.close()
        if self.done:
            self.log("info", "process.stopped", status=self.status)

    def waiting_for(self) -> tuple[str, ...]:
        """Why the process is not ready; empty when it is."""
        return ("draining",) if self.draining else ()

    def _look_ready(self) -> None:
        ready = not self.waiting_for()
        if ready != self._was_ready:
            self._was_ready = ready
            self.log("info", "process.ready" if ready else "process.unready", **self._reasons())

    def _reasons(self) -> dict[str, Any]:
        reasons = self.waiting_for()
        return {"waiting_for": list(reasons)} if reasons else {}


class FilterShell(Shell):
    """Around a filter's core. `endpoints` by port name; ports that are not there are not connected."""

    def __init__(
        self,
        role: str,
        core: Core,
        endpoints: Mapping[str, Endpoint],
        common: CommonConfig,
        log: LogFn,
        *,
        context: zmq.Context[Any] | None = None,
        notify_dev: Endpoint | None = None,
    ) -> None:
        super().__init__(role, common, log, context)
        self.core = core
        self.links: dict[str, Link] = {}
        self.control: Control | None = None
        self.notify: Notify | None = None
        self._out: dict[str, Link] = {}
        self.leaving = False
        """Others are to take over before we end."""
        self._sure: list[ReliableIn] = []
        """Inputs that are told of everything they miss; so must the frame be, of what is lost behind them."""
        self._opening = False
        self._spare = {port.name for port in core.ports if port.spare}
        self._leased = False
        self.around.on_gap = self._gap
        self.around.on_lost = self._lost
        self.around.congested = lambda: any(link.pending > CONGESTED for link in self._out.values())
        self.around.on_end = self._ended
        for port in core.ports:
            endpoint = endpoints.get(port.name)
            if endpoint is None:
                if port.required:
                    raise ConfigError(f"--{port.name.replace('_', '-')}: required ({port.doc})")
                continue
            link = make_link(port, endpoint, self.around, self._taker(port.name))
            self.links[port.name] = link
            if port.marks:
                link.on_mark = self._marker(port.name)
            if port.way is not Way.IN:
                self._out[port.name] = link
                self._leased |= endpoint.lease
        self._relay()
        self._control(notify_dev)
        if self._leased and self.control is None:
            raise ConfigError("lease=on: needs a COLO frame (--frame) that gives the permission")

    def _relay(self) -> None:
        reliable = [link for link in self.links.values() if link.endpoint.reliable]
        if not reliable:
            return
        from colo_runtime.reliable import ReliableIn, ReliableOut  # noqa: PLC0415  most processes have none

        outputs = [link for link in reliable if isinstance(link, ReliableOut)]
        self._sure = inputs = [link for link in reliable if isinstance(link, ReliableIn)]
        # A tap or a plain link beside them brings frames that nobody would send again.
        sure = all(one in inputs for name, one in self.links.items() if one.reads and name not in self._spare)

        def settle() -> None:
            for one in inputs:
                one.settle()

        for one in inputs:
            one.outputs = outputs
        for out in outputs:
            out.relay = bool(inputs) and sure
            out.on_settled = settle

    def _control(self, notify_dev: Endpoint | None) -> None:
        frame = parse_endpoint(self.common.frame) if self.common.frame else None
        option = "--frame"
        if notify_dev is not None and notify_dev.is_chardev:
            from colo_runtime.notify import Notify  # noqa: PLC0415

            self.notify = Notify(notify_dev, self.around, self._hear)
        elif notify_dev is not None:
            if frame is not None and frame != notify_dev:
                raise ConfigError(f"--frame {frame} and --notify-dev {notify_dev}: one control link only")
            frame, option = notify_dev, "--notify-dev"
        if frame is not None:
            if not frame.is_zmq or frame.server or frame.split or frame.reliable:
                raise ConfigError(f"{option} {frame}: a plain ipc:// or tcp:// endpoint to connect to is expected")
            self.control = Control(frame, self.around, self.role, self._hear, self.snapshot, option=option)

    # -- life -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Like every shell; a filter leaves the processor to others, a frame must not miss a heartbeat."""
        yield_less()
        return super().run()

    def open_links(self) -> None:
        """Outputs first: what an input brings at once has somewhere to go."""
        self._opening = True
        for link in sorted(self.links.values(), key=lambda one: one.reads):
            if link.writes:
                self._open(link)
        self._opening = False
        self._open_inputs()
        if self.notify is not None:
            self.notify.open()
        if self.control is not None:
            self.control.http = self.http
            self.control.open()

    def _open(self, link: Link) -> None:
        link.open()
        link.opened = True

    def _open_inputs(self) -> None:
        """Open what only reads, once every tap that is written to is here. A reliable input waits for the peers of
        chardevs too, and is held back again when they leave: what it delivers nobody would send again.
        """
        if self._opening:
            return
        self._opening = True
        try:
            ways = [link for name, link in self._out.items() if name not in self._spare]
            tapless = any(link.waiting_for for link in ways if link.endpoint.scheme == "tap")
            stalled = any(link.stalled for link in ways)
            for link in self.links.values():
                if not link.opened and not (stalled if link in self._sure else tapless):
                    self._open(link)
            for one in self._sure:
                if one.opened:
                    one.hold(stalled)
        finally:
            self._opening = False

    def _look_ready(self) -> None:
        if not self.draining:
            self._open_inputs()
        super()._look_ready()

    def close_links(self) -> None:
        """Inputs first."""
        for link in sorted(self.links.values(), key=lambda one: one.writes):
            if link.opened:
                link.close()
        if self.notify is not None:
            self.notify.close()
        if self.control is not None and self.control.opened:
            self.control.close()

    def drain(self, why: str) -> None:
        """First ask the others to take over what is here, if there are any; then begin to end."""
        leave = getattr(self.core, "leave", None)
        control = self.control
        if leave is None or control is None or self.draining or self.leaving or not control.connected:
            super().drain(why)
            return
        outputs = leave(time.monotonic())
        if not outputs:
            super().drain(why)
            return
        self.leaving = True
        self.log("info", "process.leaving", why=why)
        # The frame says Drain when it has been seen to; it may be gone itself.
        control.on_lost = lambda: self.drain("the frame has gone")
        self.reactor.call_later(LEAVE, lambda: self.drain("nobody took over"))
        self._do(outputs)
        self._look_ready()

    def begin_drain(self) -> None:
        """Not ready first, then no more input, then the core's last words."""
        self._look_ready()
        if self.control is not None and self.control.opened:
            self.control.report()
        for link in self.links.values():
            if link.reads and link.opened:
                link.stop_reading()
        self._do(self.core.drain(time.monotonic()))

    def drained(self) -> bool:
        """Nothing is queued and nothing unacknowledged."""
        return not any(link.pending or link.unconfirmed for link in self._out.values())

    def last_words(self) -> None:
        """The final report."""
        if self.control is not None:
            self.control.report()

    def _ended(self) -> None:
        """A capture has ended; when all inputs are captures and all have, the process is done."""
        inputs = [link for link in self.links.values() if link.reads]
        if all(getattr(link, "ended", False) for link in inputs):
            self.drain("captures ended")

    # -- the core -------------------------------------------------------------------------------

    def _marker(self, port: str) -> Callable[[int], None]:
        core = cast("Marked", self.core)
        return lambda version: self._do(core.mark(port, version, time.monotonic()))

    def _taker(self, port: str) -> Callable[[list[bytes]], None]:
        core_receive, do, monotonic = self.core.receive, self._do, time.monotonic

        def take(frames: list[bytes]) -> None:
            outputs = core_receive(port, frames, monotonic())
            if outputs:
                do(outputs)

        return take

    def _do(self, outputs: list[Output]) -> None:
        """Send, tell, write, log."""
        for output in outputs:
            kind = type(output)
            if kind is Send:
                link = self._out.get(output.port)  # type: ignore[union-attr]
                if link is not None:
                    link.send(output.frames, output.to)  # type: ignore[union-attr]
                else:
                    self.counters[f"link.{output.port}.dropped.unconnected"] += len(output.frames)  # type: ignore[union-attr]
            elif kind is Tell:
                self._tell(output.message)  # type: ignore[union-attr]
            elif kind is Save:
                self._save(output)  # type: ignore[arg-type]
            else:
                assert isinstance(output, Log)
                self.log(output.level, output.event, **output.fields)

    def _save(self, output: Save) -> None:
        """Write a file for people; that it cannot be written is no reason to stop."""
        path = Path(output.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pcapng.encode(output.capture, time.time() - time.monotonic()))
        except OSError as error:
            self.counters["files_not_written"] += 1
            self.around.complain("file.not_written", output.path, path=output.path, error=error.strerror)

    def _tell(self, message: Message) -> None:
        if self.notify is not None:
            self.notify.tell(message)
        if self.control is not None:
            self.control.tell(message)
        elif self.notify is None:
            self.counters["control.untold"] += 1
            if isinstance(message, CheckpointWanted):
                self.around.complain("checkpoint.unheard", message.reason, reason=message.reason, flow=message.flow)

    def _hear(self, message: Message) -> None:
        if isinstance(message, Drain):
            self.drain("the frame asks")
            return
        if isinstance(message, WorkerTable):
            for link in self._out.values():
                link.table(message)
        elif isinstance(message, Lease):
            self._lease(message)
        self._do(self.core.tell(message, time.monotonic()))

    def _lease(self, lease: Lease) -> None:
        """Permission to write to the client LAN, or its end."""
        had, self.around.lease = self.around.lease > time.monotonic(), lease.until
        if not self._leased:
            return
        if had != (lease.until > time.monotonic()):
            self.log("info", "lease.ended" if had else "lease.given", fence=lease.fence)
        if not lease.until:
            self._tell(Yielded(lease.fence))

    def _gap(self, port: str, fields: dict[str, Any]) -> None:
        detail = {"port": port, **fields}
        self._tell(CheckpointWanted(Reason.MIRROR_GAP, detail=detail, epoch=self.around.epoch, source=self.id))

    def _lost(self, port: str, reason: str, frames: int) -> None:
        """An output lost frames. Behind a reliable input they are a gap: they were acknowledged."""
        if self._sure:
            self._gap(port, {"lost": reason, "frames": frames})

    def core_deadline(self) -> float | None:
        """The core's."""
        return self.core.deadline()

    def core_timer(self, now: float) -> None:
        """Carry out what the timer brings."""
        self._do(self.core.on_timer(now))

    # -- what is seen ---------------------------------------------------------------------------

    def waiting_for(self) -> tuple[str, ...]:
        """Links, and the frame's welcome."""
        reasons = list(super().waiting_for())
        if self.leaving and not self.draining:
            reasons.append("leaving")
        reasons += [why for link in self.links.values() if link.opened and (why := link.waiting_for)]
        stalled = "; ".join(link.stalled for link in self._out.values() if link.opened and link.stalled)
        reasons += [f"{link.option}: waits, {stalled}" for link in self.links.values() if not link.opened]
        if self.control is not None and not self.control.welcomed:
            reasons.append(f"the frame at {self.control.endpoint.url} has not answered")
        return tuple(reasons)

    def snapshot(self) -> Snapshot:
        """Everything that is counted."""
        links = [link for link in self.links.values() if link.opened]
        counters = dict(self.core.counters) | link_counters(links) | self.counters
        for who in (self.control, self.notify):
            if who is not None:
                counters |= {f"control.{name}": n for name, n in who.counters.items()}
        waiting = self.waiting_for()
        status = self.core.status() | {
            "ready": not waiting,
            "waiting_for": list(waiting),
            "endpoints": {name: str(link.endpoint) for name, link in self.links.items()},
        }
        gauges = self.core.gauges() | link_gauges(links) | {"epoch": self.around.epoch}
        if self._leased:
            gauges["leased"] = int(self.around.lease > time.monotonic())
        return Snapshot(self.role, self.id, counters, gauges, status, waiting)


__all__ = ["FilterShell", "Shell", "StartError", "incarnation"]
