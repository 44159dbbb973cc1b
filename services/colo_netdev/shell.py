"""The shell of netdev: it opens the taps first, then the socket. The rest is the runtime's, as in every process."""

import time
from typing import Any

from colo_netdev.netdev import Netdev
from colo_netdev.server import Server
from colo_proto.endpoint import parse_endpoint
from colo_proto.messages import Drain, Message
from colo_runtime.control import Control
from colo_runtime.counting import Snapshot
from colo_runtime.options import CommonConfig
from colo_runtime.service import Resolved
from colo_runtime.shell import LogFn, Shell


class NetdevShell(Shell):
    """See the module."""

    def __init__(self, core: Netdev, common: CommonConfig, log: LogFn) -> None:
        super().__init__("netdev", common, log)
        self.core = core
        self._server: Server | None = None
        if common.frame:
            self.control = Control(parse_endpoint(common.frame), self.context, "netdev", self._hear, self.snapshot)

    def open_links(self) -> None:
        """Open the taps, then listen."""
        self.core.open(time.monotonic())
        for tap in self.core.owned.values():
            self.log("info", "tap.opened", tap=tap.spec.name, interface=tap.spec.kernel_name, mac=tap.mac)
        for name in self.core.awaited:
            self.log("warning", "tap.awaited", tap=name, seconds=self.core.config.adopt_timeout)
        self._server = Server(self.core, self.reactor, self._logged)
        self.log("info", "netdev.listening", path=self.core.config.listen, allow=self.core.status()["allow"])

    def _logged(self, level: str, event: str, **fields: Any) -> None:
        self.log(level, event, **fields)
        self._look_ready()

    def _hear(self, message: Message) -> None:
        if isinstance(message, Drain):
            self.drain("the frame asks")

    def core_deadline(self) -> float | None:
        """When to give up on taps that nobody returned, or to look at what was dropped at the taps."""
        return min(self.core.deadline or float("inf"), self.core.next_look)

    def core_timer(self, now: float) -> None:
        """Look at what was dropped, and give up on taps that nobody returned (`ConfigError`)."""
        self._look(now)
        if self.core.deadline is not None:
            self.core.check(now)
            self._look_ready()

    def _look(self, now: float) -> None:
        for tap, frames in self.core.look(now).items():
            queue = self.core.owned[tap].spec.queue
            self.context.complain("tap.overflowed", tap, tap=tap, frames=frames, queue=queue)

    def begin_drain(self) -> None:
        """Nothing is queued here."""

    def drained(self) -> bool:
        """At once."""
        return True

    def close_links(self) -> None:
        """Close the socket, then our copies of the descriptors."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.core.close()

    def waiting_for(self) -> tuple[str, ...]:
        """Taps that exist and were not returned yet, and what else is missing."""
        reasons = [f"tap {name}: a filter holds it and has not returned it yet" for name in self.core.awaited]
        reasons += [f"tap {spec.name}: its place is not there ({spec.netns or 'here'})" for spec in self.core.missing()]
        return (*super().waiting_for(), *reasons)

    def snapshot(self) -> Snapshot:
        """Everything that is counted, for metrics and the status."""
        self._look(time.monotonic())
        waiting = self.waiting_for()
        counters = dict(self.core.counters) | self.own_counters()
        gauges = self.core.gauges() | {"clients": len(self._server.clients) if self._server else 0}
        status = self.core.status() | {"ready": not waiting, "waiting_for": list(waiting)}
        return Snapshot("netdev", self.id, counters, gauges, status, waiting)


def make(found: Resolved, log: LogFn, _zmq_context: Any = None) -> NetdevShell:
    """Netdev in its shell, which is not open yet."""
    return NetdevShell(found.service.core_class()(found.config), found.common, log)
