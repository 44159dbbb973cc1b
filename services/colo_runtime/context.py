"""What the links of one process share: the loop, the ZeroMQ context, the log, settings, and who hears of what."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from colo_runtime.curve import Curve
from colo_runtime.dialling import Endings
from colo_runtime.reactor import Reactor

COMPLAIN_EVERY = 60.0
"""Seconds between two log lines about the same trouble of the same link."""


@dataclass
class Context:
    """What the links of one process share."""

    reactor: Reactor
    zmq: zmq.Context[zmq.Socket[bytes]]
    id: str
    incarnation: int
    log: Callable[..., None]
    """`log(level, event, **fields)`."""
    endings: Endings = field(default_factory=Endings)
    queue_bytes: int = 8 << 20
    ring_bytes: int = 64 << 20
    netdev_socket: str = "/run/colo/netdev.sock"
    epoch: int = 0
    """Of the COLO frame; goes with every batch."""
    curve: Curve | None = None
    """Keys for links over TCP."""
    insecure: bool = False
    """Links between hosts may do without."""
    lease: float = float("-inf")
    """Monotonic time until which outputs with `lease=on` may be written to."""
    fence: int = 0
    """Highest fencing token that came with such a permission."""
    vnet_hdr_len: int | None = None
    """Header length last seen on any chardev input of this process."""
    on_gap: Callable[[str, dict[str, Any]], None] = lambda _port, _fields: None
    """A reliable input misses frames for good."""
    on_lost: Callable[[str, str, int], None] = lambda _port, _reason, _frames: None
    """An output lost frames that it had accepted."""
    on_ready: Callable[[], None] = lambda: None
    """A link's `waiting_for` or `stalled` has changed."""
    congested: Callable[[], bool] = lambda: False
    """True while outputs have much to send: unhurried inputs (captures) wait."""
    on_end: Callable[[], None] = lambda: None
    """An input that can end has ended."""
    _complained: dict[tuple[str, str], float] = field(default_factory=dict)

    def complain(self, event: str, key: str, /, **fields: Any) -> None:
        """Log a warning about something that may repeat very often, at most once a minute per `key`."""
        now = time.monotonic()
        last = self._complained.get((event, key))
        if last is None or now - last >= COMPLAIN_EVERY:
            if len(self._complained) > 1024:
                self._complained.clear()
            self._complained[event, key] = now
            self.log("warning", event, **fields)
