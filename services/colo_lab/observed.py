"""What the lab has observed of its processes, and the sums that are made of it. Pure.

The lab knows two things about each process: what its parent sees (whether it runs, how often it was restarted, how much
CPU time and memory it has used) and what the process has reported about itself (counters, gauges and details). The
invariants are judged by these observations, the report adds them up, and the live table shows them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Usage:
    """CPU time of all incarnations of a process together, and the largest memory that one of them has used."""

    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the lab as its parent knows it, and what it has reported."""

    role: str
    id: str
    host: str
    pid: int
    usage: Usage
    restarts: int
    complete: bool
    """True when its only incarnation was alive at the last report, so that its counters miss nothing."""
    reported: bool
    """False when it has never reported; then the rest is empty."""
    counters: Counter[str] = field(default_factory=Counter)
    """Sums over all incarnations that have reported."""
    gauges: Counter[str] = field(default_factory=Counter)
    detail: dict[str, Any] = field(default_factory=dict)
    """What else it has reported last."""


def summed(counters: Mapping[str, int], prefix: str, suffix: str = "") -> int:
    """The sum of all counters whose names begin with `prefix` and end with `suffix`."""
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
        if process.role == role:
            counters.update(process.counters)
            gauges.update(process.gauges)
    return counters, gauges


def wanted(processes: Sequence[Process]) -> dict[str, int]:
    """Wanted checkpoints by reason. The COLO frame of a host with compare workers counts their requests once more and
    also those of others (a mirror gap, for instance), so compare's own count is taken where there is one.
    """
    compare, _ = total(processes, "compare")
    hosts = {process.host for process in processes if process.role == "compare"}
    frame, _ = total((process for process in processes if process.host in hosts), "frame")
    return {**labelled(frame, "checkpoints_wanted"), **labelled(compare, "checkpoints_wanted")}


def gaps(processes: Iterable[Process]) -> int:
    """Frames that receivers of a reliable link found missing and that could not be replayed."""
    return sum(summed(process.counters, "link.", ".gaps") for process in processes)


def frames(process: Process) -> int:
    """Frames that a filter received on all its ports."""
    return summed(process.counters, "", ".frames_in")


def drops(process: Process) -> int:
    """Frames that it dropped, for any reason (a secondary frame that compare no longer needs is not a drop)."""
    return summed(process.counters, "dropped")
