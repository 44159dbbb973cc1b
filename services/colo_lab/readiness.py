"""Waiting until what was started is ready: interfaces exist, processes have reported, guests listen.

Each function lets the supervisor work meanwhile (`step`), so that a process that ends too early is noticed at once.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Final

from colo_lab.launch import IMPAIR
from colo_lab.namespaces import GUEST_IF, Namespaces
from colo_lab.statuspoll import StatusPoll
from colo_lab.supervisor import LabError, Supervisor

POLL_INTERVAL: Final = 0.02
"""Seconds between two checks."""
_TCP_LISTEN, _UDP_BOUND = "0A", "07"
"""States of a socket in `/proc/net/tcp` and `/proc/net/udp`."""


def until(ready: Callable[[], bool], supervisor: Supervisor, timeout: float) -> bool:
    """Wait until `ready()`; False when that took more than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            return False
        supervisor.step(POLL_INTERVAL)
    return True


def await_filters(namespaces: Namespaces, statuses: StatusPoll, supervisor: Supervisor, timeout: float) -> None:
    """Wait until every process has reported that it is ready and the guests have their taps and addresses."""
    without_address = ["guest-p", "guest-s"]
    waiting: list[str] = []

    def ready() -> bool:
        nonlocal waiting
        for guest in without_address[:]:
            if namespaces.has(guest, GUEST_IF):
                namespaces.address_guest(guest)
                without_address.remove(guest)
        waiting = without_address or statuses.not_ready(set(supervisor.children) - {IMPAIR})
        return not waiting

    if not until(ready, supervisor, timeout):
        raise LabError(f"not ready after {timeout:g} s: {', '.join(sorted(waiting))}")


def await_guests(supervisor: Supervisor, timeout: float) -> None:
    """Wait until each guest listens on a port or has ended. After `timeout` seconds it is taken not to be a server."""

    def ready() -> bool:
        guests = [child for child in supervisor.children.values() if child.role == "guest"]
        return all(not child.running or _listens(child.pid) for child in guests)

    until(ready, supervisor, timeout)


def _listens(pid: int) -> bool:
    """True when any process in the namespace of `pid` listens on TCP or has a UDP port bound."""
    for name, state in (("tcp", _TCP_LISTEN), ("tcp6", _TCP_LISTEN), ("udp", _UDP_BOUND), ("udp6", _UDP_BOUND)):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
            if any(line.split()[3] == state for line in file):
                return True
    return False
