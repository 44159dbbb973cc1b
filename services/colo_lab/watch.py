"""What the two frames say of the processes of their hosts: are they ready, what did they count, is all at rest?"""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import zmq

from colo_lab.observed import Status
from colo_proto import codec
from colo_proto.errors import WireError
from colo_proto.messages import Answer, Query

ANSWER = 0.3
"""Seconds to wait for the answer of a frame. A frame that is just being restarted is asked again the next time."""


class Watch:
    """A DEALER to each frame. The counters in the last reports of all incarnations that were heard of are added up."""

    def __init__(self, frames: dict[str, str]) -> None:
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        for side, endpoint in frames.items():
            self.remember(side, endpoint)
        self.bodies: dict[str, dict[str, Any]] = {}
        """What the frame of each side has answered last."""
        self._reports: dict[str, dict[int, dict[str, Any]]] = {}

    def remember(self, side: str, endpoint: str) -> None:
        """Ask the frame of a host from now on."""
        socket = self._sockets[side] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        socket.connect(endpoint)

    def forget(self, side: str) -> None:
        """A host has died: its frame is not asked any more, and the last reports of its processes are kept."""
        socket = self._sockets.pop(side, None)
        if socket is not None:
            socket.close()
        self.bodies.pop(side, None)

    def poll(self) -> None:
        """Ask both frames, and note what they answer within a moment."""
        query = codec.encode(Query("status"))
        waiting = {}
        for side, socket in self._sockets.items():
            while socket.poll(0):
                socket.recv()  # an answer that came too late
            try:
                socket.send(query, zmq.NOBLOCK)
            except zmq.Again:
                continue
            waiting[socket] = side
        deadline = time.monotonic() + ANSWER
        poller = zmq.Poller()
        for socket in waiting:
            poller.register(socket, zmq.POLLIN)
        while waiting:
            ready = dict(poller.poll(max(0, int((deadline - time.monotonic()) * 1000))))
            if not ready:
                return
            for socket in ready:
                try:
                    answer = codec.decode(socket.recv())
                except WireError:
                    continue
                if isinstance(answer, Answer) and answer.ok:
                    self._take(waiting[socket], answer.body)
                    poller.unregister(socket)
                    del waiting[socket]

    def _take(self, side: str, body: dict[str, Any]) -> None:
        self.bodies[side] = body
        for entry in entries(body):
            if isinstance(entry.get("incarnation"), int) and isinstance(entry.get("counters"), dict):
                self._reports.setdefault(str(entry["id"]), {})[entry["incarnation"]] = entry

    def not_ready(self, wanted: set[str]) -> list[str]:
        """Ask both frames, and name those of `wanted` that have not reported themselves ready."""
        self.poll()
        ready = set()
        for body in self.bodies.values():
            for entry in entries(body):
                if entry.get("state") == "live" and entry.get("report_age_ms") is not None:
                    status = entry.get("status") or {}
                    if status.get("ready", True):
                        ready.add(str(entry["id"]))
        return sorted(wanted - ready)

    def last(self, name: str) -> Status | None:
        """The last status of a process. Its counters include those of its former incarnations."""
        reports = self._reports.get(name)
        if not reports:
            return None
        counters: Counter[str] = Counter()
        for entry in reports.values():
            counters.update({k: n for k, n in entry["counters"].items() if isinstance(n, int)})
        newest = list(reports.values())[-1]
        return Status(
            counters=dict(counters),
            gauges=dict(newest.get("gauges") or {}),
            detail=dict(newest.get("status") or {}),
        )

    def settle(self, timeout: float, step: Callable[[float], None]) -> bool:
        """Wait until nothing moves any more: every process has reported twice, with the same counts of frames."""
        deadline = time.monotonic() + timeout
        began = time.monotonic()
        before: dict[str, Any] = {}
        same_since = began
        while True:
            self.poll()
            now = time.monotonic()
            counts = self._moving()
            if counts != before:
                before, same_since = counts, now
            # Every process must have reported since the last change was seen.
            if self._all_reported_since(same_since, now):
                return True
            if now >= deadline:
                return False
            step(0.1)

    def _moving(self) -> dict[str, Any]:
        """The counters that frames change. Others change with time alone, by heartbeats and reports."""
        return {
            name: {k: n for k, n in newest["counters"].items() if not k.startswith(_IDLE + _CLAIMS.get(role, ()))}
            for name, reports in self._reports.items()
            for newest in list(reports.values())[-1:]
            if (role := str(newest.get("role"))) != "frame"
        }

    def _all_reported_since(self, moment: float, now: float) -> bool:
        ages = [
            entry.get("report_age_ms")
            for body in self.bodies.values()
            for entry in entries(body)
            if entry.get("state") == "live" and entry.get("role") != "frame" and not _left(entry)
        ]
        return bool(ages) and all(age is not None and now - age / 1000 > moment for age in ages)

    def close(self) -> None:
        """Close the sockets."""
        for socket in self._sockets.values():
            socket.close()
        self._context.term()


_SHOWN = ("epoch", "mode", "fence", "table", "tenure", "peer", "checkpoint")
_IDLE = ("control.", "reports", "claims_")
_LAN = ("tap.lan", "link.claims.", "link.standby.", "frames.standby", "dropped.standby")
_CLAIMS = {
    "mirror": (*_LAN, "link.netdev."),
    "redirector": _LAN,
    "rewriter": (*_LAN, "dropped.claim", "frames_in"),
}
"""Counters that change a few times a second because the two frames put claims on the LAN."""


def _left(entry: dict[str, Any]) -> bool:
    """True for a process that has said its last words, because it was about to end."""
    return "draining" in ((entry.get("status") or {}).get("waiting_for") or ())


def entries(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The processes in a frame's answer, the frame itself among them."""
    frame = {
        "role": "frame",
        "state": "live",
        "report_age_ms": 0,
        "status": {key: body[key] for key in _SHOWN if key in body},
        **{key: body.get(key) for key in ("id", "incarnation", "counters", "gauges")},
    }
    found = [frame, *body.get("processes", [])]
    return [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
