"""Everything that is counted, in one report: the counters of the core, of the links, and of the process itself.

Names are dotted. Those of the core are as the core has them (`released`, `dropped.timeout`); those of a link are
`link.<port>.<thing>[.<reason>]`; a tap has `tap.<name>.written` and `.read` as well; the control link has
`control.<thing>`. In /metrics the last part of a dotted name becomes a label.

======================================  ===================================================================
link counter                            counts
======================================  ===================================================================
`frames_in` `bytes_in`                  frames that came in and were passed to the core; their bytes
`frames_out` `bytes_out`                frames that the core sent here; their bytes
`sequence`                              frames numbered on the link since the start
`dropped` `dropped.<reason>`            frames that were dropped: all, and by reason
`coalesced`                             taps: segments that were written as a part of the frame before
`joined`                                taps: segments that were read and became a part of the frame before
`lost`                                  plain links: frames that the receiver found missing (legal loss)
`gaps` `gap_frames`                     reliable inputs: losses that could not be replayed; frames, where known
`replayed` `evicted` `resets`           reliable outputs: sent again; removed unacknowledged; gaps admitted
`duplicates` `early`                    reliable inputs: frames received again; frames after a missing one
`wire_errors.<reason>`                  messages that could not be decoded
======================================  ===================================================================
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colo_runtime.link import Link


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A process at one moment, for reports, metrics and health."""

    role: str
    id: str
    counters: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, int] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    waiting_for: tuple[str, ...] = ()
    """Why the process is not ready; empty when it is."""
    note: str = ""
    """What /ready says of a process that is ready, for people; it changes no status."""


def link_counters(links: Iterable[Link]) -> dict[str, int]:
    """The counters of links, by their names in reports."""
    out: dict[str, int] = {}
    for link in links:
        prefix = f"link.{link.port}."
        out |= {prefix + name: value for name, value in link.counters.items()}
        out[prefix + "dropped"] = sum(n for name, n in link.counters.items() if name.startswith("dropped."))
        if link.endpoint.scheme == "tap":
            tap = f"tap.{link.endpoint.address}."
            if link.reads:
                out[tap + "read"] = out.get(tap + "read", 0) + link.counters["frames_in"]
            if link.writes:
                out[tap + "written"] = out.get(tap + "written", 0) + link.counters["written"]
    return out


def link_gauges(links: Iterable[Link]) -> dict[str, int]:
    """The gauges of links, by their names in reports."""
    return {f"link.{link.port}.{name}": value for link in links for name, value in link.gauges().items()}


def metric(name: str) -> tuple[str, dict[str, str]]:
    """`link.outdev.dropped.queue_full` -> `link_dropped`, `{"port": "outdev", "reason": "queue_full"}`."""
    labels: dict[str, str] = {}
    head, _, tail = name.partition(".")
    if head in ("link", "tap") and tail:
        labels["port" if head == "link" else "tap"], _, tail = tail.partition(".")
    if head in ("link", "tap", "control") and tail:
        thing, _, tail = tail.partition(".")
        head = f"{head}_{thing}"
    if tail:
        labels["reason"] = tail
    return head, labels


def families(values: Mapping[str, int]) -> dict[str, list[tuple[dict[str, str], int]]]:
    """Values grouped for /metrics. A total is left out where its parts are given by reason: a sum over the family would
    count them twice.
    """
    out: dict[str, list[tuple[dict[str, str], int]]] = {}
    for name, value in sorted(values.items()):
        family, labels = metric(name)
        out.setdefault(family, []).append((labels, value))
    for rows in out.values():
        detailed = {row.get("port") for row, _ in rows if "reason" in row}
        rows[:] = [(row, n) for row, n in rows if "reason" in row or row.get("port") not in detailed]
    return out
