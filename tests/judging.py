"""Invariants of a running pair after faults, from what both COLO frames report (rings chaos and faults).

The counters of a process that was killed are lost. So each look judges the incarnations that live, by what their
counters have grown since the look before.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from colo_lab import invariants
from colo_lab.observed import Process, Usage

NAMES = ("S1", "S5", "S6", "L1")
UNCOMPARED = ("checkpoint", "unprotected", "mode")


class Judge:
    """Remembers what each process reported at the last look."""

    def __init__(self, processes: Sequence[dict[str, Any]]) -> None:
        self._before = {one["id"]: one for one in processes}
        self.uncompared = 0
        """Frames that compare has released without comparing since the last look. This is allowed (after a checkpoint,
        or without a secondary), but it belongs beside a result that says that no client stalled.
        """

    def look(self, processes: Sequence[dict[str, Any]]) -> dict[str, str]:
        """Invariants that the counters contradict, by name. Entries as from `statuspoll.entries`, with a `host`."""
        live = [one for one in processes if one["state"] == "live"]
        facts = invariants.Facts(
            mode="enforce",
            same_guests=True,
            settled=False,
            processes=[
                Process(
                    role=one["role"],
                    id=one["id"],
                    host=one["host"],
                    pid=one.get("pid", 0),
                    usage=Usage(),
                    restarts=one.get("restarts", 0),
                    reported=True,
                    counters=Counter(one["counters"]),
                    gauges=Counter(one["gauges"]),
                    detail=one["status"],
                    complete=True,
                )
                for one in live
            ],
        )
        verdicts = invariants.judge(facts)
        found = {name: verdicts[name].why for name in NAMES if verdicts[name].verdict == invariants.VIOLATED}
        missed, wanted = self._grown(live, "link.", ".gaps"), self._grown(live, "checkpoints_wanted.", "")
        same_frame = all(self._before.get(one["id"], one)["incarnation"] == one["incarnation"] for one in live[:1])
        if missed and not wanted and same_frame:
            found["S4"] = f"{missed} mirrored frames missed, no checkpoint wanted"
        self.uncompared = sum(self._grown(live, f"released.{cause}", "") for cause in UNCOMPARED)
        self._before = {one["id"]: one for one in live}
        return found

    def _grown(self, live: Sequence[dict[str, Any]], prefix: str, suffix: str) -> int:
        """How much counters have grown since the last look; those of a restarted process begin at zero."""
        total = 0
        for one in live:
            before = self._before.get(one["id"], {})
            old = before.get("counters", {}) if before.get("incarnation") == one["incarnation"] else {}
            total += sum(
                n - old.get(name, 0)
                for name, n in one["counters"].items()
                if name.startswith(prefix) and name.endswith(suffix)
            )
        return total
