"""The report of a lab: numbers summed over instances, numbers of each process, and the invariants. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from colo_lab import invariants
from colo_lab.circle import OTHER, PLANNED, Failover
from colo_lab.invariants import Facts
from colo_lab.observed import Process, gaps, labelled, total, wanted


def build(
    facts: Facts,
    exit_status: int,
    seconds: float,
    failed_at: float | None = None,
    promotion: dict[str, Any] | None = None,
    records: Sequence[Failover] = (),
) -> dict[str, Any]:
    """The report file; the README lists its keys. `exit_status` and `seconds` are those of the client's command,
    `failed_at` is when the primary host died meanwhile, and `promotion` what the secondary's COLO frame reports about
    its promotion. `records` are the failovers of the symmetric wiring, where the two before are None.
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
        "failovers": failovers(facts.lan, records),
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
    return {
        "promoted": True,
        "silence_ms": promotion["silence_ms"],
        "detected_ms": _ms(failed_at, promotion["at"]),
        **_seen(next(iter((lan or {}).get("changes", ())), {})),
    }


def failovers(lan: dict[str, Any] | None, records: Sequence[Failover]) -> list[dict[str, Any]]:
    """Each failover of the symmetric wiring: the host that led until then, and the same numbers as above.

    `protected_ms` is the time from the start of the repaired host's processes until the pair was protected again; after
    a planned failover it is counted from the order. What has not happened is None.
    """
    found = []
    for number, record in enumerate(records, 1):
        until = records[number].began if number < len(records) else float("inf")
        changes = [one for one in (lan or {}).get("changes", ()) if record.began <= one["at"] < until]
        planned = record.kind == PLANNED
        found.append({
            "host": f"host-{record.side[0]}",
            "leads": f"host-{OTHER[record.side][0]}" if record.led is not None else None,
            "planned": planned,
            "refused": record.refused,
            "silence_ms": record.silence_ms,
            "detected_ms": _ms(record.began, record.led),
            **_seen(next(iter(changes), {})),
            "protected_ms": _ms(record.began if planned else record.repaired, record.protected),
        })  # fmt: skip
    return found


def _seen(change: dict[str, Any]) -> dict[str, Any]:
    """What the capture on the LAN has seen of a change; empty when it has seen none."""
    fates = {f"connections_{fate}": change.get(fate, 0) for fate in ("continued", "reset", "unknown")}
    return {"stall_ms": _ms(change.get("before"), change.get("after")), **fates}


def _ms(since: float | None, until: float | None) -> int | None:
    return None if since is None or until is None else round((until - since) * 1000)
