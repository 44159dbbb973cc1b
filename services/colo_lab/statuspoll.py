"""Asking the COLO frames of both hosts about their processes: are they ready, what did they count, is all at rest?"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from colo_proto.messages import Query
from colo_runtime.client import NoAnswerError, ask

ANSWER_WITHIN: Final = 0.3
"""Seconds to wait for the answer of a COLO frame. One that is just being restarted is asked again the next time."""


class StatusPoll:
    """The last answers of both COLO frames. A process's counters are summed over all incarnations that reported."""

    def __init__(self, endpoints: dict[str, str]) -> None:
        self.endpoints = endpoints
        """Of the COLO frame of each side that is asked."""
        self.bodies: dict[str, dict[str, Any]] = {}
        """The last answer of the COLO frame of each side."""
        self._reports: dict[str, dict[int, dict[str, Any]]] = {}

    def forget(self, side: str) -> None:
        """Stop asking the COLO frame of a host that has died. The last reports of its processes are kept."""
        self.endpoints.pop(side, None)
        self.bodies.pop(side, None)

    def poll(self) -> None:
        """Ask both COLO frames, and keep what they answer."""
        for side, endpoint in self.endpoints.items():
            with contextlib.suppress(NoAnswerError):
                answer = ask(endpoint, Query("status"), ANSWER_WITHIN)
                if answer.ok:
                    self._take(side, answer.body)

    def _take(self, side: str, body: dict[str, Any]) -> None:
        self.bodies[side] = body
        for entry in entries(body):
            self._reports.setdefault(entry["id"], {})[entry["incarnation"]] = entry

    def not_ready(self, expected: set[str]) -> list[str]:
        """Ask both COLO frames, and name those of the expected processes that have not reported that they are ready."""
        self.poll()
        ready = {
            str(entry["id"])
            for entry in self._live()
            if entry.get("report_age_ms") is not None and (entry.get("status") or {}).get("ready", True)
        }
        return sorted(expected - ready)

    def last(self, name: str) -> dict[str, Any]:
        """The last report of a process; empty when it has never reported."""
        return next(reversed(self._reports.get(name, {}).values()), {})

    def counters(self, name: str) -> Counter[str]:
        """The counters of a process, summed over all of its incarnations that have reported."""
        counters: Counter[str] = Counter()
        for entry in self._reports.get(name, {}).values():
            counters.update({k: n for k, n in entry["counters"].items() if isinstance(n, int)})
        return counters

    def promotion(self) -> dict[str, Any] | None:
        """What the secondary's COLO frame reports about its promotion (not in the symmetric wiring, where either side's
        is told by `colo_lab.circle`); None when there was none.
        """
        found: dict[str, Any] | None = self.last("frame-s").get("status", {}).get("leadership", {}).get("promotion")
        return found

    def await_rest(self, timeout: float, step: Callable[[float], None]) -> bool:
        """Wait until no frames move any more: every process has reported again since the last change of a count.

        False when that did not happen within `timeout` seconds. `step(seconds)` waits between two polls.
        """
        same_since = time.monotonic()
        deadline = same_since + timeout
        before: dict[str, Any] = {}
        while True:
            self.poll()
            now = time.monotonic()
            counts = self._moving()
            if counts != before:
                before, same_since = counts, now
            if self._all_reported_since(same_since, now):
                return True
            if now >= deadline:
                return False
            step(0.1)

    def _live(self) -> list[dict[str, Any]]:
        found = [entry for body in self.bodies.values() for entry in entries(body)]
        return [entry for entry in found if entry.get("state") == "live"]

    def _moving(self) -> dict[str, Any]:
        """The counters that change with frames. Others change with time alone, by heartbeats and reports."""
        return {
            name: {
                key: n
                for key, n in entry["counters"].items()
                if not key.startswith(_IDLE + _CLAIMS.get(str(entry.get("role")), ()))
            }
            for name in self._reports
            if (entry := self.last(name)).get("role") != "frame"
        }

    def _all_reported_since(self, moment: float, now: float) -> bool:
        ages = [
            entry.get("report_age_ms") for entry in self._live() if entry.get("role") != "frame" and not _leaving(entry)
        ]
        return bool(ages) and all(age is not None and now - age / 1000 > moment for age in ages)


_SHOWN = ("verdict", "epoch", "mode", "fence", "table", "leadership", "peer", "checkpoint")
_IDLE = ("control.", "reports", "claims_")
_LAN = ("tap.lan", "link.claims.", "link.standby.", "frames.standby", "dropped.standby")
_CLAIMS = {
    "mirror": (*_LAN, "link.netdev."),
    "redirector": _LAN,
    "rewriter": (*_LAN, "dropped.claim", "frames_in"),
}
"""Counters that change a few times a second because the two COLO frames send claims on the LAN."""


def _leaving(entry: dict[str, Any]) -> bool:
    """True for a process that is about to end and reports no more."""
    return "draining" in ((entry.get("status") or {}).get("waiting_for") or ())


def entries(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The processes in the answer of a COLO frame, that COLO frame among them."""
    frame = {
        "role": "frame",
        "state": "live",
        "report_age_ms": 0,
        "status": {key: body[key] for key in _SHOWN if key in body},
        **{key: body.get(key) for key in ("id", "incarnation", "counters", "gauges")},
    }
    found = [frame, *body.get("processes", [])]
    return [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
