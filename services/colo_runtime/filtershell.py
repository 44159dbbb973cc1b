"""The shell around the core of a filter: its links, its control link, and carrying out the outputs of the core.

::

    link --frames--> core.receive --> Send --> link
    frame -message-> core.tell    --> Tell --> the frame, notify_dev
    clock ---------> core.on_timer    Save --> a file, Log --> the log

Inputs are opened when the outputs can take their frames; reliable inputs are held back whenever they cannot.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import zmq

from colo_proto import pcapng
from colo_proto.config import flag
from colo_proto.core import Core, HearsBarriers, Log, Output, Save, Send, Tell, Way
from colo_proto.endpoint import Endpoint, parse_endpoint
from colo_proto.errors import ConfigError
from colo_proto.messages import CheckpointWanted, Drain, Lease, Message, Reason, WorkerTable, Yielded
from colo_runtime.abilities import Judges, Leaves, TakesRules
from colo_runtime.control import Control
from colo_runtime.counting import Snapshot, link_counters, link_gauges
from colo_runtime.link import Link
from colo_runtime.links import make_link
from colo_runtime.options import CommonConfig
from colo_runtime.pressure import Pressure
from colo_runtime.rulesfile import load_rules
from colo_runtime.service import Resolved
from colo_runtime.shell import LogFn, Shell
from colo_runtime.tuning import yield_less

if TYPE_CHECKING:
    from colo_runtime.notify import Notify
    from colo_runtime.reliable import ReliableIn

CONGESTED: Final = 1 << 20
"""Bytes queued on an output above which captures are not read."""
DIFFERENT: Final = 3
"""Exit status of a compare whose captures differ. cmp uses 1 for that, but here 1 says that the process could not run.
"""
LEAVE: Final = 5.0
"""Seconds that other processes have to take over the work of one that was asked to end."""


class FilterShell(Shell):
    """The shell of a filter. `endpoints` are by the name of the port; a port without an endpoint is not connected."""

    def __init__(
        self,
        role: str,
        core: Core,
        endpoints: Mapping[str, Endpoint],
        common: CommonConfig,
        log: LogFn,
        *,
        zmq_context: zmq.Context[Any] | None = None,
        notify_dev: Endpoint | None = None,
    ) -> None:
        super().__init__(role, common, log, zmq_context)
        self.core = core
        self.links: dict[str, Link] = {}
        self.notify: Notify | None = None
        self._out: dict[str, Link] = {}
        self.leaving = False
        """The process was asked to end, and waits until others have taken over its work."""
        self._reliable_inputs: list[ReliableIn] = []
        """Frames that were lost before these inputs are reported as a gap; so must those that are lost after them."""
        self._opening = False
        self._pressure: Pressure | None = None
        self._spare = {port.name for port in core.ports if port.spare}
        self._leased = False
        self._offline = False
        """All inputs were captures, and have ended."""
        self.context.on_gap = self._gap
        self.context.on_lost = self._lost
        self.context.congested = lambda: any(link.pending > CONGESTED for link in self._out.values())
        self.context.on_end = self._ended
        for port in core.ports:
            endpoint = endpoints.get(port.name)
            if endpoint is None:
                if port.required:
                    raise ConfigError(f"{flag(port.name)}: required ({port.doc})")
                continue
            link = make_link(port, endpoint, self.context, self._receiver(port.name))
            self.links[port.name] = link
            if port.barriers:
                link.on_barrier = partial(self._barrier, port.name)
            if port.way is not Way.IN:
                self._out[port.name] = link
                self._leased |= endpoint.lease
        self._relay()
        # A replay ring is made for keeping frames, and writing to a tap does not wait. The inputs of a mirror never
        # rest because of the copies: its guest must not be slowed down by the other host.
        slow = [
            link
            for link in self._out.values()
            if not link.endpoint.reliable
            and link.endpoint.scheme != "tap"
            and (role, link.port) != ("mirror", "outdev")
        ]
        if slow:
            self._pressure = Pressure(slow, common.queue_bytes, self.reactor)
        self._control(notify_dev)
        if self._leased and self.control is None:
            raise ConfigError("lease=on: needs a COLO frame (--frame) that gives the permission")

    def _relay(self) -> None:
        reliable = [link for link in self.links.values() if link.endpoint.reliable]
        if not reliable:
            return
        from colo_runtime.reliable import ReliableIn, ReliableOut  # noqa: PLC0415  most processes have none

        outputs = [link for link in reliable if isinstance(link, ReliableOut)]
        self._reliable_inputs = inputs = [link for link in reliable if isinstance(link, ReliableIn)]
        # Frames of a tap or a plain link beside the reliable inputs would not be sent again by anybody.
        only = all(one in inputs for name, one in self.links.items() if one.reads and name not in self._spare)

        def acknowledged() -> None:
            for one in inputs:
                one.outputs_acknowledged()

        for one in inputs:
            one.outputs = outputs
        for out in outputs:
            out.relay = bool(inputs) and only
            out.on_acknowledged = acknowledged

    def _control(self, notify_dev: Endpoint | None) -> None:
        frame = parse_endpoint(self.common.frame) if self.common.frame else None
        option = "--frame"
        if notify_dev is not None and notify_dev.is_chardev:
            from colo_runtime.notify import Notify  # noqa: PLC0415

            self.notify = Notify(notify_dev, self.context, self._hear)
        elif notify_dev is not None:
            if frame is not None and frame != notify_dev:
                raise ConfigError(f"--frame {frame} and --notify-dev {notify_dev}: one control link only")
            frame, option = notify_dev, "--notify-dev"
        if frame is not None:
            if not frame.is_zmq or frame.server or frame.split or frame.reliable:
                raise ConfigError(f"{option} {frame}: a plain ipc:// or tcp:// endpoint to connect to is expected")
            self.control = Control(frame, self.context, self.role, self._hear, self.snapshot, option=option)

    # -- life -----------------------------------------------------------------------------------

    def run(self) -> int:
        """Run as every shell does. A filter does not preempt others; a COLO frame does, for its heartbeats."""
        yield_less()
        return super().run()

    def open_links(self) -> None:
        """Open the outputs first, so that the first frames of an input can be sent."""
        self._opening = True
        for link in sorted(self.links.values(), key=lambda one: one.reads):
            if link.writes:
                self._open(link)
        self._opening = False
        self._open_inputs()
        if self.notify is not None:
            self.notify.open()

    def _open(self, link: Link) -> None:
        link.open()
        link.opened = True

    def _open_inputs(self) -> None:
        """Open the inputs, as soon as every tap that is written to is attached. A reliable input also waits for the
        peers of chardevs, and is held back again when they leave: nobody would send its frames again.
        """
        if self._opening:
            return
        self._opening = True
        try:
            outputs = [link for name, link in self._out.items() if name not in self._spare]
            no_tap = any(link.waiting_for for link in outputs if link.endpoint.scheme == "tap")
            stalled = any(link.stalled for link in outputs)
            for link in self.links.values():
                if not link.opened and not (stalled if link in self._reliable_inputs else no_tap):
                    self._open(link)
            for one in self._reliable_inputs:
                if one.opened:
                    one.hold(stalled)
        finally:
            self._opening = False

    def _look_ready(self) -> None:
        if not self.draining:
            self._open_inputs()
        super()._look_ready()

    def close_links(self) -> None:
        """Close the inputs first."""
        for link in sorted(self.links.values(), key=lambda one: one.writes):
            if link.opened:
                link.close()
        if self._offline and any(link.failed for link in self.links.values()):
            self.status = 1
        if self.notify is not None:
            self.notify.close()

    def drain(self, why: str) -> None:
        """Let other processes take over the work first, if there are any; then start to drain."""
        core, control = self.core, self.control
        if not isinstance(core, Leaves) or control is None or self.draining or self.leaving or not control.connected:
            super().drain(why)
            return
        outputs = core.leave(time.monotonic())
        if not outputs:
            super().drain(why)
            return
        self.leaving = True
        self.log("info", "process.leaving", why=why)
        # The frame sends Drain when the work was taken over, unless it ends itself.
        control.on_lost = lambda: self.drain("the frame has gone")
        self.reactor.call_later(LEAVE, lambda: self.drain("nobody took over"))
        self._do(outputs)
        self._look_ready()

    def begin_drain(self) -> None:
        """Read no more, then send the last outputs of the core."""
        for link in self.links.values():
            if link.reads and link.opened:
                link.stop_reading()
        self._do(self.core.drain(time.monotonic()))

    def drained(self) -> bool:
        """True when nothing is queued, and nothing waits for an acknowledgement."""
        return not any(link.pending or link.unconfirmed for link in self._out.values())

    def _ended(self) -> None:
        """A capture has ended. When all inputs are captures and all have ended, the process ends as well; the exit
        status of compare then says whether they differ.
        """
        if not all(link.ended for link in self.links.values() if link.reads):
            return
        core = self.core
        if isinstance(core, Judges):
            self._do(core.finish(time.monotonic()))
            found = core.differences()
            self.log("warning" if found else "info", "captures.compared", differences=found)
            self.status = DIFFERENT if found else 0
        self._offline = True
        self.drain("captures ended")

    # -- the core -------------------------------------------------------------------------------

    def _barrier(self, port: str, version: int) -> None:
        self._do(cast("HearsBarriers", self.core).barrier(port, version, time.monotonic()))

    def _receiver(self, port: str) -> Callable[[Sequence[bytes]], None]:
        core_receive, do, monotonic = self.core.receive, self._do, time.monotonic

        def receive(frames: Sequence[bytes]) -> None:
            outputs = core_receive(port, frames, monotonic())
            if outputs:
                do(outputs)
                if self._pressure is not None:
                    self._pressure.delivered(self.links[port])

        return receive

    def _do(self, outputs: list[Output]) -> None:
        """Carry out the outputs of the core."""
        for output in outputs:
            kind = type(output)
            if kind is Send:
                link = self._out.get(output.port)  # type: ignore[union-attr]
                if link is not None:
                    link.send(output.frames)  # type: ignore[union-attr]
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
        """Write a file for people. If that fails, the process continues without it."""
        path = Path(output.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pcapng.encode(output.capture, time.time() - time.monotonic()))
        except OSError as error:
            self.counters["files_not_written"] += 1
            self.context.complain("file.not_written", output.path, path=output.path, error=error.strerror)

    def _tell(self, message: Message) -> None:
        if self.notify is not None:
            self.notify.tell(message)
        if self.control is not None:
            self.control.tell(message)
        elif self.notify is None:
            self.counters["control.untold"] += 1
            if isinstance(message, CheckpointWanted):
                self.context.complain("checkpoint.unheard", message.reason, reason=message.reason, flow=message.flow)

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
        """The permission to write to the client LAN, or its end."""
        had, self.context.lease = self.context.lease > time.monotonic(), lease.until
        self.context.fence = max(self.context.fence, lease.fence)
        if not self._leased:
            return
        if had != (lease.until > time.monotonic()):
            self.log("info", "lease.ended" if had else "lease.given", fence=lease.fence)
        if not lease.until:
            self._tell(Yielded(lease.fence))

    def _gap(self, port: str, fields: dict[str, Any]) -> None:
        detail = {"port": port, **fields}
        self._tell(CheckpointWanted(Reason.MIRROR_GAP, detail=detail, epoch=self.context.epoch, source=self.id))

    def _lost(self, port: str, reason: str, frames: int) -> None:
        """An output has lost frames. Those of a reliable input are a gap, because they were acknowledged."""
        if self._reliable_inputs:
            self._gap(port, {"lost": reason, "frames": frames})

    def core_deadline(self) -> float | None:
        """The deadline of the core."""
        return self.core.deadline()

    def core_timer(self, now: float) -> None:
        """Call the timer of the core, and carry out its outputs."""
        self._do(self.core.on_timer(now))

    # -- what is seen ---------------------------------------------------------------------------

    def waiting_for(self) -> tuple[str, ...]:
        """Links that are not ready, and the welcome of the COLO frame."""
        reasons = list(super().waiting_for())
        if self.leaving and not self.draining:
            reasons.append("leaving")
        reasons += [why for link in self.links.values() if link.opened and (why := link.waiting_for)]
        stalled = "; ".join(link.stalled for link in self._out.values() if link.opened and link.stalled)
        reasons += [f"{link.option}: waits, {stalled}" for link in self.links.values() if not link.opened]
        return tuple(reasons)

    def snapshot(self) -> Snapshot:
        """Everything that is counted."""
        links = [link for link in self.links.values() if link.opened]
        counters = dict(self.core.counters) | link_counters(links) | self.own_counters()
        if self._pressure is not None:
            counters["rests"] = self._pressure.rests
        if self.notify is not None:
            counters |= {f"control.{name}": n for name, n in self.notify.counters.items()}
        waiting = self.waiting_for()
        status = self.core.status() | {
            "ready": not waiting,
            "waiting_for": list(waiting),
            "endpoints": {name: str(link.endpoint) for name, link in self.links.items()},
        }
        gauges = self.core.gauges() | link_gauges(links) | {"epoch": self.context.epoch}
        for splitter in filter(None, (link.splitter for link in links)):
            gauges["table_version"], status["workers"] = splitter.version, splitter.workers
        if self._leased:
            gauges["leased"] = int(self.context.lease > time.monotonic())
        return Snapshot(self.role, self.id, counters, gauges, status, waiting)


def make(found: Resolved, log: LogFn, zmq_context: zmq.Context[Any] | None = None) -> FilterShell:
    """The shell of a filter, not yet open."""
    core: Core = found.service.core_class()(found.config)
    endpoints = dict(found.endpoints)
    notify = endpoints.pop("notify_dev", None)
    shell = FilterShell(
        found.service.role, core, endpoints, found.common, log, notify_dev=notify, zmq_context=zmq_context
    )
    if isinstance(core, TakesRules):
        shell.files.append(partial(load_rules, found.config.rules, core))
    return shell
