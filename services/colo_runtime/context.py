"""What the links of one process share: the loop, the ZeroMQ context, the log, options, and who is told about what."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from colo_runtime.curve import Curve
from colo_runtime.dialling import Endings
from colo_runtime.options import CommonConfig
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
    common: CommonConfig = field(default_factory=CommonConfig)
    endings: Endings = field(default_factory=Endings)
    epoch: int = 0
    """The epoch of the COLO frame; it is sent with every batch."""
    curve: Curve | None = None
    """Keys for links over TCP."""
    lease: float = float("-inf")
    """Monotonic time until which outputs with `lease=on` may be written to."""
    fence: int = 0
    """The highest fencing token that came with such a permission."""
    vnet_hdr_len: int | None = None
    """The length of the header that any chardev input of this process saw last."""
    on_gap: Callable[[str, dict[str, Any]], None] = lambda _port, _fields: None
    """`on_gap(port, fields)`: a reliable input has lost frames for ever."""
    on_lost: Callable[[str, str, int], None] = lambda _port, _reason, _frames: None
    """`on_lost(port, reason, frames)`: an output has lost frames that it had accepted."""
    on_ready: Callable[[], None] = lambda: None
    """Called when `waiting_for` or `stalled` of a link has changed."""
    congested: Callable[[], bool] = lambda: False
    """True while outputs have much to send: captures, which nothing urges, are then not read."""
    on_end: Callable[[], None] = lambda: None
    """Called when a capture that is read has ended."""
    _complained: dict[tuple[str, str], float] = field(default_factory=dict)

    def complain(self, event: str, key: str, /, **fields: Any) -> None:
        """Log a warning about something that may happen very often: at most once a minute for each `key`."""
        now = time.monotonic()
        last = self._complained.get((event, key))
        if last is None or now - last >= COMPLAIN_EVERY:
            if len(self._complained) > 1024:
                self._complained.clear()
            self._complained[event, key] = now
            self.log("warning", event, **fields)
