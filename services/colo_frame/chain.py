"""What is broken in this host's chain of filters, from what its processes report.

::

    primary      lan --> m0 --> guest-p --> redire1 --> comp* --> redire0 --> lan
    secondary    mirror0 --> f1 --> rew0 --> guest-s --> rew0 --> f2 --> compare1

A process is missing when its connection to this frame has ended, which is noticed at the next message for it, or when
it was silent for `process_timeout`. A link is cut when a report says that nobody is at its other end, or that a tap is
not attached. Links to the other host are judged apart (`crossing`), and by the primary alone: a secondary whose primary
has died has nobody at their other ends, and must be able to take over.
"""

from collections.abc import Collection
from typing import Final

from colo_frame.registry import Process, Registry
from colo_frame.verdict import DEGRADED, HERE, UNPROTECTED, Cause, Why

FILTERS: Final = frozenset({"mirror", "redirector", "rewriter", "compare"})
INSIDE: Final = ("ipc://", "tap://", "chardev+unix://")
"""How endpoints of links inside a host begin. Those of links between hosts begin with `tcp://`."""
_MAX_ID: Final = 64
"""Characters of an id or of the name of a port that are shown."""


def broken(registry: Registry, workers: Collection[str], began: float, *, primary: bool) -> list[Cause]:
    """What is broken on this host, the cause before its consequences. `workers` are the compares that are in use, and
    `began` is when this frame was started.
    """
    filters = _filters(registry, workers)
    chain = f"the {HERE[primary]}'s chain is broken: "
    # While the primary's chain is broken, the secondary could still take over.
    level = DEGRADED if primary else UNPROTECTED
    if not filters:
        return [Cause(Why.NO_FILTERS, level, chain + "no filter has reported", began)]
    causes = [
        Cause(Why.PROCESS, level, f"{chain}{one.id[:_MAX_ID]} silent", one.seen if one.lost else one.gone)
        for one in filters
        if one.lost or one.gone is not None
    ]
    # If a process is missing, nobody is at the other end of its links: that is no cause of its own.
    causes = causes or [
        _cut(one, port, chain, level, since)
        for one in filters
        for port, since in sorted(one.cut.items())
        if one.endpoint(port).startswith(INSIDE)
    ]
    causes += [
        Cause(Why.NETDEV, DEGRADED, f"{one.id[:_MAX_ID]} silent", one.seen if one.lost else one.gone)
        for one in registry.processes.values()
        if one.role == "netdev" and (one.lost or one.gone is not None)
    ]
    return causes


def crossing(registry: Registry, workers: Collection[str]) -> list[Cause]:
    """Primary: links to the other host that nobody is at."""
    return [
        Cause(
            Why.LINK, UNPROTECTED, f"the secondary's chain is broken: nobody is connected to {where(one, port)}", since
        )
        for one in _filters(registry, workers)
        for port, since in sorted(one.cut.items())
        if one.endpoint(port).startswith("tcp://")
    ]


def where(process: Process, port: str) -> str:
    """A port of a process, for people."""
    return f"{process.id[:_MAX_ID]} ({port[:_MAX_ID]})"


def _filters(registry: Registry, workers: Collection[str]) -> list[Process]:
    """The filters of this host. A compare that has left is none, and one that joins is none yet."""
    found = [one for one in registry.processes.values() if one.role in FILTERS]
    return [one for one in found if one.role != "compare" or one.id in workers]


def _cut(process: Process, port: str, chain: str, level: str, since: float) -> Cause:
    if process.endpoint(port).startswith("tap://"):
        return Cause(Why.TAP, level, f"{chain}{where(process, port)} has no tap", since)
    return Cause(Why.LINK, level, f"{chain}nobody is connected to {where(process, port)}", since)
