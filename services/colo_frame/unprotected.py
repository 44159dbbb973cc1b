"""Passes on which connections a failover cannot continue: from the compares to the rewriters of the other host.

::

    compare --Unprotected--> frame of the primary --> frame of the secondary --> rewriter
                                   ^                         |
              Welcome, if one      +---- heartbeat: which ---+---- report: which version of each source it has
              is missing                 versions it has

The frames keep nothing of it, so no restart of a frame loses anything. The rewriter says which version of each source
it has, and if that is not the newest one, the primary's frame has the compare tell everything again.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from colo_frame.outbox import Outbox
from colo_frame.peer import PEER
from colo_frame.registry import Process, Registry
from colo_proto.messages import MAX_KEY, MAX_KEYS, Unprotected

PATIENCE: Final = 3.0
"""Seconds within which the rewriter's answer to a message should be here: a report, a heartbeat, and some delay."""
MAX_SOURCES: Final = 48
"""Sources whose versions fit into a heartbeat."""


@dataclass(slots=True)
class _Source:
    version: int = 0
    at: float = 0.0
    """When the last message was passed on, or everything was asked for again."""


@dataclass(slots=True)
class Relay:
    """See the module."""

    _id: str
    _registry: Registry
    _out: Outbox
    _sources: dict[str, _Source] = field(default_factory=dict)
    """Primary: what was passed on, by source."""

    # -- primary ------------------------------------------------------------------------------------

    def from_compare(self, process: Process, message: Unprotected, now: float) -> bool:
        """Pass on what a compare says; False when it makes no sense."""
        if process.role != "compare" or message.source != process.id or message.everything or not _valid(message):
            return False
        self._pass_on(message, now)
        return True

    def resynced(self, epoch: int, now: float) -> None:
        """There is another secondary, which has got no state: it can continue nothing that is open now."""
        self._pass_on(Unprotected(self._id, epoch, everything=True), now)

    def _pass_on(self, message: Unprotected, now: float) -> None:
        if message.source not in self._sources and len(self._sources) >= MAX_SOURCES:
            self._sources = {name: one for name, one in self._sources.items() if name in self._registry.processes}
        self._sources[message.source] = _Source(message.version, now)
        self._out.counters["unprotected_told"] += 1
        self._out.tell(message, PEER)

    def secondary_has(self, versions: object, welcome: Any, now: float) -> None:
        """A heartbeat says what the rewriter has heard. Have told again what it has not; `welcome` is the message that
        makes a compare do so.
        """
        if not isinstance(versions, dict):
            return
        compares = self._registry.live("compare")
        for name, source in self._sources.items():
            unknown = name not in versions and len(versions) >= MAX_SOURCES
            if versions.get(name) == source.version or unknown or now < source.at + PATIENCE:
                continue
            source.at = now
            if name == self._id:
                self._out.tell(Unprotected(name, source.version, everything=True), PEER)
            elif name not in compares:
                continue
            self._out.counters["unprotected_again"] += 1
            self._out.tell(welcome, *(compares if name == self._id else [name]))

    def forget(self) -> None:
        """Another host leads from now on."""
        self._sources.clear()

    # -- secondary ----------------------------------------------------------------------------------

    def from_peer(self, message: Unprotected) -> bool:
        """Tell the rewriters what the primary's frame says; False when it makes no sense."""
        if not _valid(message):
            return False
        self._out.tell(message, *self._registry.live("rewriter"))
        return True

    def versions(self) -> dict[str, int] | None:
        """What the rewriter of this host has heard, for the heartbeat; None when there is none, or it has not said."""
        for name in self._registry.live("rewriter"):
            report = self._registry.processes[name].report
            told = report.status.get("unprotected") if report is not None else None
            if isinstance(told, dict):
                known = [(name, one) for name, one in told.items() if isinstance(name, str) and type(one) is int]
                return dict(known[:MAX_SOURCES])
        return None


def _valid(message: Unprotected) -> bool:
    keys = (message.lost, message.doubtful, message.kept)
    return sum(map(len, keys)) <= MAX_KEYS and all(0 < len(key) <= MAX_KEY for part in keys for key in part)
