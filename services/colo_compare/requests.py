"""Requests for checkpoints, and how the differences behind them are reported."""

from collections import Counter
from operator import attrgetter
from typing import Any, Final

from colo_compare.config import CompareConfig
from colo_compare.evidence import Evidence
from colo_compare.flow import Flow
from colo_proto.core import Log, Output, Tell
from colo_proto.messages import CheckpointWanted, Reason
from colo_proto.rules import DEFAULT

REPEAT_AFTER: Final = 3.0
"""Seconds after which a flow repeats a request that no checkpoint answered, because the COLO frame may have been
restarted. QEMU repeats it on every scan and for every packet."""

MAX_REPEATED: Final = 16
"""Requests repeated at one scan. A checkpoint may be put off for longer than `REPEAT_AFTER`, for many flows."""

LAST_DIFFERENCES: Final = 16
"""Differences kept for `colo status`."""


class Requests:
    """What this worker has asked of the COLO frame. `outputs` is the list that messages and log entries go to."""

    def __init__(self, config: CompareConfig, counters: Counter[str], outputs: list[Output]) -> None:
        self.epoch = 0
        self.waiting: dict[Flow, None] = {}
        """Flows that wait for a checkpoint."""
        self.last: list[dict[str, Any]] = []
        self._source = config.id
        self._counters = counters
        self._outputs = outputs
        self._evidence = Evidence(config, counters)

    def report(self, flow: Flow, reason: str, offset: int | None, detail: dict[str, Any], now: float) -> None:
        """Count, log and keep why `flow` needs a checkpoint; `offset` and `detail` say where and what differs."""
        self._counters["checkpoints_wanted." + reason] += 1
        seen = {"reason": reason, "flow": flow.describe(), "offset": offset, **detail}
        if flow.rule is not DEFAULT:
            seen["rule"] = flow.rule.text
        file = self._evidence.save(flow, seen, now)
        if file is not None:
            self._outputs.append(file)
        self.last = [*self.last[-LAST_DIFFERENCES + 1 :], seen]
        self._outputs.append(Log("warning", "miscompare.found" if flow.diverged else "checkpoint.wanted", seen))

    def ask(self, flow: Flow, reason: str, offset: int | None, detail: dict[str, Any]) -> None:
        """Ask for a checkpoint on behalf of `flow`."""
        self.waiting[flow] = None
        self._tell(flow, reason, offset, detail)

    def repeat(self, now: float) -> None:
        """Repeat requests that nobody answered, the oldest first. Not all of them: one checkpoint answers every one."""
        late = [flow for flow in self.waiting if flow.wanted and now - flow.wanted >= REPEAT_AFTER]
        for flow in sorted(late, key=attrgetter("wanted"))[:MAX_REPEATED]:
            flow.wanted = now
            self._tell(flow, Reason.REPEATED, None, {})

    def _tell(self, flow: Flow, reason: str, offset: int | None, detail: dict[str, Any]) -> None:
        message = CheckpointWanted(reason, flow.describe(), offset, detail, self.epoch, self._source)
        self._outputs.append(Tell(message))
