"""Judges transfers under a fault as pass, fail or unknown, and makes a table of many. Pure.

==========  =====================================================================================
pass        every client got the bytes that were served, no connection was reset, the counters add up
fail        a wrong byte, a short transfer, a reset, or counters that contradict an invariant
unknown     no failure, but also no result: the fault missed the transfer, a client or the host did not
            answer, or the pair did not recover in time
==========  =====================================================================================
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
EXIT: Final = {PASS: 0, FAIL: 1, UNKNOWN: 3}
RESETS: Final = ("ConnectionReset", "BrokenPipe", "ConnectionAborted", "RemoteDisconnected")
TRANSFERS: Final = ("download", "upload")


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault at one service under load, and what was observed."""

    service: str
    fault: str
    seed: int
    clients: Mapping[str, Mapping[str, Any]]
    """By job, the last line of each client."""
    overlapped: Mapping[str, bool]
    """By job: whether it was under way when the fault began."""
    invariants: Mapping[str, str] = field(default_factory=dict)
    recovered: bool = True
    """All services had recovered in time."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a trial, and the reason."""

    verdict: str
    why: str
    resets: int
    stalls: Mapping[str, float]
    """By job, the longest time without progress, in seconds."""


def resets(result: Mapping[str, Any]) -> int:
    """Connections of a client that were reset."""
    counted = sum(n for name, n in result.get("failures", {}).items() if name.startswith(RESETS))
    wrong = result.get("wrong")
    return counted + int(isinstance(wrong, str) and any(name in wrong for name in RESETS))


def judge(trial: Trial) -> Verdict:
    """The verdict on one trial."""
    bad, open_ = [], []
    for job, result in trial.clients.items():
        wrong = result.get("wrong", "no answer")
        silent = isinstance(wrong, str) and wrong.startswith("no answer")
        if silent:
            open_.append(f"{job}: {wrong}")
        elif wrong:
            bad.append(f"{job}: {result.get('failures') or wrong}")
        if job in TRANSFERS and not trial.overlapped.get(job):
            open_.append(f"{job} was over before the fault began")
    bad += [f"{name} violated: {why}" for name, why in trial.invariants.items()]
    if not trial.recovered:
        open_.append("not everybody was well again in time")
    if trial.note:
        open_.append(trial.note)
    verdict = FAIL if bad else UNKNOWN if open_ else PASS
    stalls = {job: float(result["longest_stall"]) for job, result in trial.clients.items() if "longest_stall" in result}
    return Verdict(verdict, "; ".join(bad or open_), sum(map(resets, trial.clients.values())), stalls)


def worst(verdicts: Sequence[str]) -> str:
    """The verdict on a campaign: one failure fails it; without a failure, one unknown trial makes it unknown."""
    return FAIL if FAIL in verdicts else UNKNOWN if UNKNOWN in verdicts or not verdicts else PASS


def table(trials: Sequence[tuple[Trial, Verdict]]) -> str:
    """One line for each service and fault."""
    head = (
        f"{'service':<10} {'fault':<8} {'runs':>4} {'pass':>4} {'fail':>4} {'unkn':>4} {'resets':>6}"
        f"   {'stall, median / longest (s)':<28}"
    )
    rows: dict[tuple[str, str], list[Verdict]] = {}
    for trial, verdict in trials:
        rows.setdefault((trial.service, trial.fault), []).append(verdict)
    lines = [head]
    for (service, fault), verdicts in sorted(rows.items()):
        counts = [sum(one.verdict == kind for one in verdicts) for kind in (PASS, FAIL, UNKNOWN)]
        stalls = []
        for job in TRANSFERS:
            seen = [one.stalls[job] for one in verdicts if job in one.stalls]
            if seen:
                stalls.append(f"{job} {median(seen):.2f} / {max(seen):.2f}")
        lines.append(
            f"{service:<10} {fault:<8} {len(verdicts):>4} {counts[0]:>4} {counts[1]:>4} {counts[2]:>4} "
            f"{sum(one.resets for one in verdicts):>6}   {', '.join(stalls)}"
        )
    return "\n".join(lines) + "\n"
