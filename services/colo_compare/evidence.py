"""The frames around a difference, as pcapng files for Wireshark."""

from collections import Counter
from typing import Any, Final

from colo_compare.config import CompareConfig
from colo_compare.flow import Flow
from colo_proto.core import Save
from colo_proto.frame import Buffer
from colo_proto.pcapng import Capture

SHOWN_FRAMES: Final = 16
"""Frames of each side in a file."""

CONTEXT_BYTES: Final = 16
"""Bytes that are shown on both sides of a difference."""

FILE_BYTES: Final = 1 << 19
"""Bound on the frames of each side in a file."""

FILE_INTERVAL: Final = 1.0
"""Seconds between two files: when everything differs at once, the first differences tell most."""


class Evidence:
    """Which file is written next, and when."""

    def __init__(self, config: CompareConfig, counters: Counter[str]) -> None:
        self._counters = counters
        self._prefix = f"{config.evidence_dir}/{config.id}"
        self._files = config.evidence_files if config.evidence_dir else 0
        self._next_at = 0.0

    def save(self, flow: Flow, seen: dict[str, Any], now: float) -> Save | None:
        """The frames around the difference `seen` in `flow`; the path is added to `seen`. None when no file is due."""
        if not self._files:
            return None
        if now < self._next_at:
            self._counters["evidence_skipped"] += 1
            return None
        self._next_at = now + FILE_INTERVAL
        path = f"{self._prefix}-{self._counters['evidence_files'] % self._files:04}.pcapng"
        self._counters["evidence_files"] += 1
        verdict = ", ".join(f"{name} {value}" for name, value in seen.items())
        seen["evidence"] = path
        left = [FILE_BYTES, FILE_BYTES]
        shown = []
        for one in flow.evidence(verdict):
            left[one.interface] -= len(one.frame)
            if left[one.interface] >= 0:
                shown.append(one)
        shown.sort(key=lambda one: one.when)
        return Save(path, Capture(("primary", "secondary"), tuple(shown), verdict))


def first_difference(a: Buffer, b: Buffer) -> int:
    """Index of the first byte in which two unequal buffers differ: the shorter one's length when it is a prefix."""
    lo, hi = 0, min(len(a), len(b))
    while lo < hi:
        mid = (lo + hi) // 2
        if a[lo : mid + 1] == b[lo : mid + 1]:
            lo = mid + 1
        else:
            hi = mid
    return lo
