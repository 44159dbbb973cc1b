"""What is counted, put together: the core's counters, the links', the process's own.

Names are dotted. The core's are as the core has them (`released`, `dropped.timeout`); those of a link are
`link.<port>.<thing>[.<reason>]`; a tap has `tap.<name>.written` and `.read` as well; the control link
has `control.<thing>`. In /metrics a dotted tail becomes a label.

======================================  ===================================================================
link counter                            counts
======================================  ===================================================================
`frames_in` `bytes_in`                  what came and was handed to the core
`frames_out` `bytes_out`                what the core sent here
`sequence`                              frames numbered on the link since the start
`dropped` `dropped.<reason>`            frames that went nowhere: all, and by reason
`coalesced`                             taps: segments that were written as a part of the frame before
`joined`                                taps: segments that were read and became a part of the frame before
`lost`                                  plain links: frames the receiver found missing (legal loss)
`gaps` `gap_frames`                     reliable inputs: losses that could not be replayed; frames, where known
`replayed` `evicted` `resets`           reliable outputs: sent again; pushed out unacknowledged; gaps admitted
`duplicates` `early`                    reliable inputs: frames received again; ahead of a hole
`wire_errors.<reason>`                  messages that did not decode
======================================  ===================================================================
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colo_runtime.link import Link


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A process at one moment, for reports, metrics, health."""

    role: str
    id: str
    counters: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, int] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    waiting_for: tuple[str, ...] = ()
    """Why the process is not ready; empty when it is."""


def link_counters(links: Iterable[Link]) -> dict[str, int]:
    """The counters of links by their names in reports."""
    out: dict[str, int] = {}
    for link in links:
        prefix = f"link.{link.port}."
        dropped = 0
        for name, value in link.counters.items():
            out[prefix + name] = value
            if name.startswith("dropped."):
                dropped += value
        out[prefix + "dropped"] = dropped
        if link.endpoint.scheme == "tap":
            tap = f"tap.{link.endpoint.address}."
            if link.reads:
                out[tap + "read"] = out.get(tap + "read", 0) + link.counters["frames_in"]
            if link.writes:
                out[tap + "written"] = out.get(tap + "written", 0) + link.counters["written"]
    return out


def link_gauges(links: Iterable[Link]) -> dict[str, int]:
    """Likewise the gauges."""
    return {f"link.{link.port}.{name}": value for link in links for name, value in link.gauges().items()}


def metric(name: str) -> tuple[str, dict[str, str]]:
    """`link.outdev.dropped.queue_full` -> `link_dropped`, `{"port": "outdev", "reason": "queue_full"}`."""
    labels: dict[str, str] = {}
    head, _, tail = name.partition(".")
    if head in ("link", "tap") and tail:
        who, _, thing = tail.partition(".")
        labels["port" if head == "link" else "tap"] = who
        thing, _, tail = thing.partition(".")
        head = f"{head}_{thing}"
    elif head == "control" and tail:
        thing, _, tail = tail.partition(".")
        head = f"{head}_{thing}"
    if tail:
        labels["reason"] = tail
    return head, labels


def families(values: Mapping[str, int]) -> dict[str, list[tuple[dict[str, str], int]]]:
    """Values grouped for /metrics. A total stands aside where its parts are given by reason: sums would count twice."""
    out: dict[str, list[tuple[dict[str, str], int]]] = {}
    for name, value in sorted(values.items()):
        family, labels = metric(name)
        out.setdefault(family, []).append((labels, value))
    for rows in out.values():
        detailed = {row.get("port") for row, _ in rows if "reason" in row}
        rows[:] = [(row, n) for row, n in rows if "reason" in row or row.get("port") not in detailed]
    return out
