"""What is observed of a lab that is up: its processes, what the capture on the LAN has seen, and the state file."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from colo_lab.children import Child
from colo_lab.config import GUEST4, GUEST6, GUEST_MAC
from colo_lab.launch import control
from colo_lab.namespaces import Namespaces
from colo_lab.observed import Process, Usage
from colo_lab.statuspoll import StatusPoll
from colo_lab.supervisor import Supervisor
from colo_proto.topology import SIDES, Wiring

CAPTURE_WITHIN: Final = 10.0
"""Seconds to wait until the capture on the LAN has written its file again."""


def processes(supervisor: Supervisor, statuses: StatusPoll) -> dict[str, Process]:
    """Every process as it is now, with its last report to its COLO frame."""
    statuses.poll()
    for child in supervisor.children.values():
        child.sample()
    return {name: _process(child, statuses) for name, child in supervisor.children.items()}


def _process(child: Child, statuses: StatusPoll) -> Process:
    last = statuses.last(child.id)
    return Process(
        role=child.role,
        id=child.id,
        host=child.host,
        pid=child.pid,
        usage=Usage(child.cpu_now(), child.usage.max_rss_bytes),
        restarts=child.restarts,
        complete=not child.restarts and (child.running or (child.retired and child.status == 0)),
        reported=bool(last),
        counters=statuses.counters(child.id),
        gauges=Counter(last.get("gauges")),
        detail=last.get("status") or {},
    )


def promotion(statuses: StatusPoll) -> dict[str, Any] | None:
    """What the secondary's COLO frame reports about its promotion; None when there was none."""
    found: dict[str, Any] | None = statuses.last("frame-s").get("status", {}).get("leadership", {}).get("promotion")
    return found


def capture(path: Path, step: Callable[[float], None]) -> dict[str, Any] | None:
    """What the capture on the LAN has seen up to now; None when its file is not written again in time."""
    now = time.monotonic()
    while time.monotonic() < now + CAPTURE_WITHIN:
        seen: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"at": 0.0}
        if seen["at"] >= now:
            return seen
        step(0.05)
    return None


def state(directory: str, wiring: Wiring, namespaces: Namespaces, supervisor: Supervisor) -> dict[str, Any]:
    """The state file: which process runs where, and how to reach it."""
    return {
        "pid": os.getpid(),
        "directory": directory,
        "wiring": wiring,
        "namespaces": {name: namespaces.path(name) for name in namespaces.fds},
        "frames": {side: control(directory, side) for side in SIDES},
        "guest": {"ipv4": GUEST4, "ipv6": GUEST6, "mac": GUEST_MAC},
        "processes": [
            {
                **{name: getattr(child, name) for name in ("role", "id", "host", "endpoints", "restarts", "log")},
                "pid": child.pid if child.running else 0,
                "argv": list(child.argv),
            }
            for child in supervisor.children.values()
        ],
    }
