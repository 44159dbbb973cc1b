"""The report of a lab: numbers summed over instances, per process, and the invariants. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from colo_lab import invariants
from colo_lab.invariants import Facts
from colo_lab.observed import Process, gaps, labelled, total, wanted


@dataclass(frozen=True, slots=True)
class Run:
    """How the client's command went, and when the hosts changed places meanwhile. Moments are monotonic seconds."""

    exit_status: int
    seconds: float
    failed_at: float | None = None
    """When everything of the primary host died."""
    promotion: dict[str, Any] | None = None
    """What the secondary's frame says of its promotion."""


def build(run: Run, facts: Facts) -> dict[str, Any]:
    """The report file; see the README for its keys."""
    processes, verdicts = facts.processes, invariants.judge(facts)
    return {
        "exit": run.exit_status,
        "seconds": round(run.seconds, 3),
        "wiring": facts.wiring,
        "mode": facts.mode,
        "settled": facts.settled,
        "compare": _compare(processes),
        "mirror": _mirror(processes),
        "rewriter": _rewriter(processes),
        "failover": failover(facts.lan, run.failed_at, run.promotion),
        "lan": facts.lan,
        "invariants": {name: verdict.verdict for name, verdict in verdicts.items()},
        "invariants_why": {name: verdict.why for name, verdict in verdicts.items()},
        "restarts": sum(process.restarts for process in processes),
        "processes": [_process(process) for process in processes],
    }


def _compare(processes: Sequence[Process]) -> dict[str, Any]:
    counters, gauges = total(processes, "compare")
    return {
        "frames_primary": counters["frames_primary"],
        "frames_secondary": counters["frames_secondary"],
        "released": counters["released"],
        "released_by": labelled(counters, "released"),
        "synthesized": counters["synthesized"],
        "held": gauges["held"],
        "held_secondary": gauges["held_secondary"],
        "dropped": labelled(counters, "dropped"),
        "secondary_dropped": labelled(counters, "secondary_dropped"),
        "bytes_compared": counters["bytes_compared"],
        "miscompares": counters["miscompares"],
        "checkpoints_wanted": wanted(processes),
        "checkpoints_done": counters["checkpoints_done"],
        "flows": counters["flows_opened"],
        "flows_now": gauges["flows"],
        "flows_unprotected": gauges["flows_unprotected"],
        "flows_unjudged": gauges["flows_unjudged"],
        "flows_moved": counters["flows_taken_over"],
        "flows_adopted": counters["adopted"],
        "moves_given_up": counters["moves_given_up"],
        "last": [
            one
            for process in processes
            if process.role == "compare" and process.status is not None
            for one in process.status.detail.get("last", [])
        ],
    }


def _mirror(processes: Sequence[Process]) -> dict[str, int]:
    counters, _ = total(processes, "mirror")
    return {
        "frames": counters["frames"],
        "sequence": counters["link.outdev.sequence"],
        "gaps": gaps(processes),
        "replayed": counters["link.outdev.replayed"],
    }


def _rewriter(processes: Sequence[Process]) -> dict[str, int]:
    counters, gauges = total(processes, "rewriter")
    return {"flows": counters["flows_opened"], "flows_now": gauges["flows"], "rewritten": counters["rewritten"]}


def _process(process: Process) -> dict[str, Any]:
    status = process.status
    return {
        "role": process.role,
        "id": process.id,
        "host": process.host,
        "pid": process.pid,
        "cpu_seconds": round(process.usage.cpu_seconds, 3),
        "max_rss_bytes": process.usage.max_rss_bytes,
        "restarts": process.restarts,
        "counters": status.counters if status else {},
        "gauges": status.gauges if status else {},
        "status": status.detail if status else {},
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
