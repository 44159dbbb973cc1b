"""What was observed of the processes of a lab, and what is read from it. Pure.

The lab knows of each process what its parent sees (it runs, it was restarted, how much it has used), and what the
process has reported of itself: counters, gauges and details. The invariants are judged by this, the report sums it up,
and the live table shows it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Status:
    """What a process last said of itself; the counters are sums over all incarnations that were heard of."""

    counters: dict[str, int]
    gauges: dict[str, int]
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Usage:
    """What all incarnations of a process have used together."""

    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the lab as its parent knows it, with its last status if it ever gave one."""

    role: str
    id: str
    host: str
    pid: int
    usage: Usage
    restarts: int
    status: Status | None
    complete: bool
    """It has had one incarnation, which lived when it was asked: its counters are the whole truth."""


def summed(counters: Mapping[str, int], prefix: str, suffix: str = "") -> int:
    """The sum of all counters whose names begin and end like this."""
    return sum(n for name, n in counters.items() if name.startswith(prefix) and name.endswith(suffix))


def labelled(counters: Mapping[str, int], name: str) -> dict[str, int]:
    """`{"a": 1}` from the counters `name.a`."""
    prefix = name + "."
    return {key.removeprefix(prefix): n for key, n in sorted(counters.items()) if key.startswith(prefix) and n}


def total(processes: Iterable[Process], role: str) -> tuple[Counter[str], Counter[str]]:
    """Counters and gauges of a role, summed over its instances."""
    counters: Counter[str] = Counter()
    gauges: Counter[str] = Counter()
    for process in processes:
        if process.role == role and process.status is not None:
            counters.update(process.status.counters)
            gauges.update(process.status.gauges)
    return counters, gauges


def wanted(processes: Sequence[Process]) -> dict[str, int]:
    """Checkpoints wanted by reason: compare's, and what others asked the primary's frame for (a mirror gap, …)."""
    compare, _ = total(processes, "compare")
    frame, _ = total((process for process in processes if process.host == "host-p"), "frame")
    return {**labelled(frame, "checkpoints_wanted"), **labelled(compare, "checkpoints_wanted")}


def gaps(processes: Iterable[Process]) -> int:
    """Frames that receivers of a reliable link found missing and could not have replayed."""
    return sum(summed(process.status.counters, "link.", ".gaps") for process in processes if process.status)


def frames(process: Process) -> int:
    """Frames that a filter took in by all its ports, for the live table."""
    return summed(process.status.counters, "", ".frames_in") if process.status else 0


def drops(process: Process) -> int:
    """Frames that it dropped for whatever reason (a secondary frame that compare is done with is no drop)."""
    return summed(process.status.counters, "dropped") if process.status else 0
