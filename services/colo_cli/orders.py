"""Give a COLO frame an order, and wait until it is carried out."""

import time
from collections.abc import Callable
from typing import Any, Final

from colo_frame.transitions import WRITING
from colo_proto.claim import State
from colo_proto.errors import StartError
from colo_proto.messages import Mode, Query
from colo_runtime.client import request

POLL_INTERVAL: Final = 0.05
"""Seconds between two questions how far the order has come."""
ANSWER_TIMEOUT: Final = 2.0
"""Seconds that a frame has for an answer."""


def order_failover(endpoint: str, timeout: float, *, force: bool = False) -> str:
    """Make the frame of the secondary take the client LAN over.

    Returns a line for people. `StartError` when it has not happened within `timeout` seconds, or was refused.
    """
    began = request(endpoint, Query("failover", {"force": force}), min(timeout, ANSWER_TIMEOUT))

    def done(body: dict[str, Any]) -> str:
        state = body["leadership"]["state"]
        if state in WRITING:
            who = "this host" if "role" in body["leadership"] else "the secondary"
            return f"{who} has the client LAN, fence {began['fence']}"
        if state != State.TAKING:
            raise StartError(f"refused: the other side holds the client LAN ({state})")
        return ""

    return _wait(
        endpoint, timeout, done, "the other side has neither yielded nor fallen silent; this one keeps waiting"
    )


def order_resync(endpoint: str, timeout: float) -> str:
    """Make the frame of the primary take the secondary back.

    Returns a line for people. `StartError` when it has not happened within `timeout` seconds, or was refused.
    """
    before = _status(endpoint, timeout)["counters"].get("resyncs", 0)
    request(endpoint, Query("resync"), min(timeout, ANSWER_TIMEOUT))

    def done(body: dict[str, Any]) -> str:
        compares = body["counters"].get("resyncs", 0) > before and body["mode"] == Mode.ENFORCE
        return f"compared again since epoch {body['epoch']}" if compares else ""

    return _wait(endpoint, timeout, done, "the secondary has not been brought back; the primary keeps trying")


def _wait(endpoint: str, timeout: float, done: Callable[[dict[str, Any]], str], late: str) -> str:
    """Ask for the status until `done` returns a text. `StartError` with `late` after `timeout` seconds."""
    until = time.monotonic() + timeout
    while True:
        body = _status(endpoint, max(POLL_INTERVAL, until - time.monotonic()))
        text = done(body)
        if text:
            return text
        if time.monotonic() >= until:
            raise StartError(f"after {timeout:g} s {late}; the pair is {body['verdict']['text']}")
        time.sleep(POLL_INTERVAL)


def _status(endpoint: str, timeout: float) -> dict[str, Any]:
    return request(endpoint, Query("status"), min(timeout, ANSWER_TIMEOUT))
