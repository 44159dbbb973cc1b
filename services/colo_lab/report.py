"""The report of a lab: numbers summed over instances, numbers of each process, and the invariants. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from colo_lab import invariants
from colo_lab.invariants import Facts
from colo_lab.observed import Process, gaps, labelled, total, wanted


def build(
    facts: Facts,
    exit_status: int,
    seconds: float,
    failed_at: float | None = None,
    promotion: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The report file; the README lists its keys. `exit_status` and `seconds` are those of the client's command,
    `failed_at` is when the primary host died meanwhile, and `promotion` what the secondary's COLO frame reports about
    its promotion.
    """
    processes, verdicts = facts.processes, invariants.judge(facts)
    return {
        "exit": exit_status,
        "seconds": round(seconds, 3),
        "wiring": facts.wiring,
        "mode": facts.mode,
        "settled": facts.settled,
        "compare": _compare(processes),
        "mirror": _mirror(processes),
        "rewriter": _rewriter(processes),
        "failover": failover(facts.lan, failed_at, promotion),
        "lan": facts.lan,
        "invariants": {name: verdict.verdict for name, verdict in verdicts.items()},
        "invariants_why": {name: verdict.why for name, verdict in verdicts.items()},
        "restarts": sum(process.restarts for process in processes),
        "processes": [_process(process) for process in processes],
    }


def _picked(values: Mapping[str, int], *names: str, **renamed: str) -> dict[str, int]:
    """The values of these names, and of `renamed` (key in the report: name of the counter or gauge)."""
    return {**{name: values[name] for name in names}, **{key: values[name] for key, name in renamed.items()}}


def _compare(processes: Sequence[Process]) -> dict[str, Any]:
    counters, gauges = total(processes, "compare")
    return {
        **_picked(counters, "frames_primary", "frames_secondary", "released", "synthesized", "bytes_compared"),
        **_picked(counters, "miscompares", "checkpoints_done", "handovers_given_up"),
        **_picked(counters, flows="flows_opened", flows_moved="flows_taken_over", flows_adopted="adopted"),
        **_picked(gauges, "held", "held_secondary", "flows_unprotected", "flows_unjudged", flows_now="flows"),
        "released_by": labelled(counters, "released"),
        "dropped": labelled(counters, "dropped"),
        "secondary_dropped": labelled(counters, "secondary_dropped"),
        "checkpoints_wanted": wanted(processes),
        "last": [one for process in processes if process.role == "compare" for one in process.detail.get("last", [])],
    }


def _mirror(processes: Sequence[Process]) -> dict[str, int]:
    counters, _ = total(processes, "mirror")
    links = _picked(counters, "frames", sequence="link.outdev.sequence", replayed="link.outdev.replayed")
    return {**links, "gaps": gaps(processes)}


def _rewriter(processes: Sequence[Process]) -> dict[str, int]:
    counters, gauges = total(processes, "rewriter")
    return {**_picked(counters, "rewritten", flows="flows_opened"), "flows_now": gauges["flows"]}


def _process(process: Process) -> dict[str, Any]:
    return {
        **{name: getattr(process, name) for name in ("role", "id", "host", "pid", "restarts")},
        "cpu_seconds": round(process.usage.cpu_seconds, 3),
        "max_rss_bytes": process.usage.max_rss_bytes,
        "counters": dict(process.counters),
        "gauges": dict(process.gauges),
        "status": process.detail,
    }


def failover(
    lan: dict[str, Any] | None, failed_at: float | None, promotion: dict[str, Any] | None
) -> dict[str, Any] | None:
    """How long it took until the secondary had the LAN and until connections made progress; None without a promotion.

    `detected_ms` is the time from the primary's death to the promotion. `stall_ms` is the time in which no connection
    made progress (no payload and no higher ACK from the guest) as the capture on the LAN saw it. It is None when no
    connection made progress after the failover.

    Each connection that was open at the failover has continued (it has made progress since), was reset, or is unknown:
    neither has happened yet.
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
        **{f"connections_{fate}": (lan or {}).get(fate, 0) for fate in ("continued", "reset", "unknown")},
    }
