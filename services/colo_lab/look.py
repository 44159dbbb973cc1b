"""Looking at a lab that is up: its processes, what the capture on the LAN has seen, and the state file."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from colo_lab.config import GUEST4, GUEST6, GUEST_MAC
from colo_lab.crew import Crew
from colo_lab.launch import control
from colo_lab.observed import Process, Usage
from colo_lab.spaces import Spaces
from colo_lab.watch import Watch
from colo_proto.topology import SIDES, Wiring

LAN_PATIENCE: Final = 10.0
"""Seconds for which the capture's next word is waited for."""


def processes(crew: Crew, watch: Watch) -> dict[str, Process]:
    """Every process as it is now, with what the frames know of it."""
    watch.poll()
    for child in crew.children.values():
        child.sample()
    return {
        child.id: Process(
            role=child.role,
            id=child.id,
            host=child.host,
            pid=child.pid,
            usage=Usage(child.cpu_now(), child.usage.max_rss_bytes),
            restarts=child.restarts,
            status=watch.last(child.id),
            complete=not child.restarts and (child.running or (child.retired and child.status == 0)),
        )
        for child in crew.children.values()
    }


def promotion(watch: Watch) -> dict[str, Any] | None:
    """What the secondary's frame says of its promotion."""
    last = watch.last("frame-s")
    found: dict[str, Any] | None = last.detail.get("tenure", {}).get("promotion") if last is not None else None
    return found


def capture(path: Path, step: Callable[[float], None]) -> dict[str, Any] | None:
    """What the capture on the LAN has seen up to now; None when it says nothing in time."""
    now = time.monotonic()
    deadline = now + LAN_PATIENCE
    while time.monotonic() < deadline:
        seen: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"at": 0.0}
        if seen["at"] >= now:
            return seen
        step(0.05)
    return None


def state(directory: str, wiring: Wiring, spaces: Spaces, crew: Crew) -> dict[str, Any]:
    """The state file: who runs where, and how to reach it."""
    return {
        "pid": os.getpid(),
        "directory": directory,
        "wiring": wiring,
        "namespaces": {name: spaces.path(name) for name in spaces.fds},
        "frames": {side: control(directory, side) for side in SIDES},
        "guest": {"ipv4": GUEST4, "ipv6": GUEST6, "mac": GUEST_MAC},
        "processes": [
            {
                "role": child.role,
                "id": child.id,
                "pid": child.pid if child.running else 0,
                "host": child.host,
                "endpoints": child.endpoints,
                "argv": list(child.argv),
                "restarts": child.restarts,
                "log": child.log,
            }
            for child in crew.children.values()
        ],
    }
