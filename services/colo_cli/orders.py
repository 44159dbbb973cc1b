"""`colo failover` and `colo resync`: give a frame an order, and wait until it is carried out."""

import time
from typing import Any, Final

from colo_proto.claim import State
from colo_proto.errors import StartError
from colo_proto.messages import Mode, Query
from colo_runtime.client import NoAnswerError, ask

LOOK: Final = 0.05
"""Seconds between looks at how far it is."""
ANSWER: Final = 2.0
"""Seconds that a frame has for an answer."""


def order_failover(endpoint: str, timeout: float, *, force: bool = False) -> str:
    """The secondary's frame takes the client LAN over. A line for people; `StartError` when it did not happen."""
    until = time.monotonic() + timeout
    began = _ask(endpoint, Query("failover", {"force": force}), timeout)
    while True:
        tenure = _ask(endpoint, Query("status"), max(LOOK, until - time.monotonic()))["tenure"]
        if tenure["state"] == State.PROMOTED:
            return f"the secondary has the client LAN, fence {began['fence']}"
        if tenure["state"] != State.TAKING:
            raise StartError(f"refused: the primary holds the client LAN ({tenure['state']})")
        if time.monotonic() >= until:
            raise StartError(
                f"after {timeout:g} s the primary has neither yielded nor fallen silent; it goes on waiting"
            )
        time.sleep(LOOK)


def order_resync(endpoint: str, timeout: float) -> str:
    """The primary's frame brings the secondary back in. A line for people; `StartError` when it did not happen."""
    until = time.monotonic() + timeout
    before = _ask(endpoint, Query("status"), timeout)["counters"].get("resyncs", 0)
    _ask(endpoint, Query("resync"), timeout)
    while True:
        body = _ask(endpoint, Query("status"), max(LOOK, until - time.monotonic()))
        if body["counters"].get("resyncs", 0) > before and body["mode"] == Mode.ENFORCE:
            return f"compared again since epoch {body['epoch']}"
        if time.monotonic() >= until:
            raise StartError(f"after {timeout:g} s no checkpoint has brought the secondary back; it goes on trying")
        time.sleep(LOOK)


def _ask(endpoint: str, query: Query, timeout: float) -> dict[str, Any]:
    try:
        answer = ask(endpoint, query, min(timeout, ANSWER))
    except NoAnswerError as error:
        raise StartError(str(error)) from None
    if not answer.ok:
        raise StartError(answer.error)
    return answer.body
