"""The report of a lab: numbers summed over instances, per process, and the invariants. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from colo_lab import invariants
from colo_proto.topology import Wiring


@dataclass(frozen=True, slots=True)
class Status:
    """What a process last said of itself, summed over the incarnations that were heard of."""

    role: str
    id: str
    counters: dict[str, int]
    gauges: dict[str, int]
    detail: dict[str, Any] = field(default_factory=dict)
    incarnations: int = 1


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the lab as its parent knows it, with its last status if it ever gave one."""

    role: str
    id: str
    host: str
    pid: int
    cpu_seconds: float
    max_rss_bytes: int
    restarts: int
    status: Status | None
    complete: bool
    """One incarnation, alive when it was asked: its counters are the whole truth."""


def total(processes: Iterable[Process], role: str) -> tuple[Counter[str], Counter[str]]:
    """Counters and gauges of a role, summed over its instances."""
    counters: Counter[str] = Counter()
    gauges: Counter[str] = Counter()
    for process in processes:
        if process.role == role and process.status is not None:
            counters.update(process.status.counters)
            gauges.update(process.status.gauges)
    return counters, gauges


def labelled(counters: Counter[str], name: str) -> dict[str, int]:
    """`{"a": 1}` from the counters `name.a`."""
    prefix = name + "."
    return {key.removeprefix(prefix): n for key, n in sorted(counters.items()) if key.startswith(prefix) and n}


def wanted(processes: Sequence[Process]) -> dict[str, int]:
    """Checkpoints wanted by reason: compare's, and what others asked the primary's frame for (a mirror gap, …)."""
    compare, _ = total(processes, "compare")
    frame, _ = total((process for process in processes if process.host == "host-p"), "frame")
    return {**labelled(frame, "checkpoints_wanted"), **labelled(compare, "checkpoints_wanted")}


def build(
    *,
    exit_status: int,
    seconds: float,
    wiring: Wiring,
    mode: str,
    same_guests: bool,
    settled: bool,
    processes: Sequence[Process],
    lan: dict[str, Any] | None = None,
    failed_at: float | None = None,
    promotion: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The report file; see the README for its keys. Moments are monotonic seconds, durations milliseconds."""
    compare, compare_now = total(processes, "compare")
    mirror, _ = total(processes, "mirror")
    rewriter, rewriter_now = total(processes, "rewriter")
    facts = invariants.Facts(
        mode=mode, same_guests=same_guests, settled=settled, processes=processes, wiring=wiring, lan=lan
    )
    verdicts = invariants.judge(facts)
    return {
        "exit": exit_status,
        "seconds": round(seconds, 3),
        "wiring": wiring,
        "mode": mode,
        "settled": settled,
        "compare": {
            "frames_primary": compare["frames_primary"],
            "frames_secondary": compare["frames_secondary"],
            "released": compare["released"],
            "released_by": labelled(compare, "released"),
            "synthesized": compare["synthesized"],
            "held": compare_now["held"],
            "held_secondary": compare_now["held_secondary"],
            "dropped": labelled(compare, "dropped"),
            "secondary_dropped": labelled(compare, "secondary_dropped"),
            "bytes_compared": compare["bytes_compared"],
            "miscompares": compare["miscompares"],
            "checkpoints_wanted": wanted(processes),
            "checkpoints_done": compare["checkpoints_done"],
            "flows": compare["flows_opened"],
            "flows_now": compare_now["flows"],
            "flows_unprotected": compare_now["flows_unprotected"],
            "flows_unjudged": compare_now["flows_unjudged"],
            "flows_moved": compare["flows_taken_over"],
            "flows_adopted": compare["adopted"],
            "moves_given_up": compare["moves_given_up"],
            "last": [
                one
                for process in processes
                if process.role == "compare" and process.status is not None
                for one in process.status.detail.get("last", [])
            ],
        },
        "mirror": {
            "frames": mirror["frames"],
            "sequence": mirror["link.outdev.sequence"],
            "gaps": invariants.gaps(processes),
            "replayed": mirror["link.outdev.replayed"],
        },
        "rewriter": {
            "flows": rewriter["flows_opened"],
            "flows_now": rewriter_now["flows"],
            "rewritten": rewriter["rewritten"],
        },
        "failover": failover(lan, failed_at, promotion),
        "lan": lan,
        "invariants": {name: verdict.verdict for name, verdict in verdicts.items()},
        "invariants_why": {name: verdict.why for name, verdict in verdicts.items()},
        "restarts": sum(process.restarts for process in processes),
        "processes": [
            {
                "role": process.role,
                "id": process.id,
                "host": process.host,
                "pid": process.pid,
                "cpu_seconds": round(process.cpu_seconds, 3),
                "max_rss_bytes": process.max_rss_bytes,
                "restarts": process.restarts,
                "counters": process.status.counters if process.status else {},
                "gauges": process.status.gauges if process.status else {},
                "status": process.status.detail if process.status else {},
            }
            for process in processes
        ],
    }


def failover(
    lan: dict[str, Any] | None, failed_at: float | None, promotion: dict[str, Any] | None
) -> dict[str, Any] | None:
    """How long it took until the secondary had the LAN, and until connections moved on; None without a promotion.

    `detected_ms` counts from the primary's death to the promotion. `stall_ms` is the time in which no
    connection moved on (no payload, no higher ACK from the guest) as the LAN saw it; None when none went on.
    """
    if promotion is None:
        return None
    moves = (lan or {}).get("moves", {})
    before, after = moves.get("lan-p"), moves.get("lan-s")
    return {
        "promoted": True,
        "silence_ms": promotion["silence_ms"],
        "detected_ms": None if failed_at is None else round((promotion["at"] - failed_at) * 1000),
        "stall_ms": None if before is None or after is None else round((after[0] - before[1]) * 1000),
        "connections_continued": (lan or {}).get("continued", 0),
    }


def frames(process: Process) -> int:
    """Frames that a filter took in by all its ports, for the live table."""
    if process.status is None:
        return 0
    return sum(n for name, n in process.status.counters.items() if name.endswith(".frames_in"))


def drops(process: Process) -> int:
    """Frames that it dropped for whatever reason (a secondary frame that compare is done with is no drop)."""
    if process.status is None:
        return 0
    return sum(n for name, n in process.status.counters.items() if name.startswith("dropped"))
