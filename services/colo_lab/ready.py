"""Waiting until what was started is ready: interfaces are there, processes have reported, guests listen.

Each of these lets the crew go on meanwhile (`step`), so that a process which ends too early is noticed at once.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Final

from colo_lab.crew import Crew, LabError
from colo_lab.launch import IMPAIR
from colo_lab.spaces import GUEST_IF, Spaces
from colo_lab.watch import Watch

PAUSE: Final = 0.02
"""Seconds between two looks."""


def await_client_lan(spaces: Spaces, crew: Crew, timeout: float) -> None:
    """Until the client's interface on an impaired LAN is there; then it gets its addresses."""
    if not _until(lambda: spaces.has("client", spaces.client_if), timeout, crew.step):
        raise LabError("the impaired LAN did not come up")
    spaces.address_client()


def await_filters(spaces: Spaces, watch: Watch, crew: Crew, timeout: float) -> None:
    """Until every process has reported itself ready and the guests have their taps and addresses."""
    without_address = ["guest-p", "guest-s"]
    waiting: list[str] = []

    def ready() -> bool:
        nonlocal waiting
        for space in without_address[:]:
            if spaces.has(space, GUEST_IF):
                spaces.address_guest(space)
                without_address.remove(space)
        waiting = without_address or watch.not_ready(set(crew.children) - {IMPAIR})
        return not waiting

    if not _until(ready, timeout, crew.step):
        raise LabError(f"not ready after {timeout:g} s: {', '.join(sorted(waiting))}")


def await_guest_tap(guest: str, spaces: Spaces, crew: Crew, timeout: float) -> None:
    """Until the guest of a host that was started again has its tap; then it gets its addresses."""
    if not _until(lambda: spaces.has(guest, GUEST_IF), timeout, crew.step):
        raise LabError(f"host-{guest[-1]}: its guest's tap did not come back")
    spaces.address_guest(guest)


def await_guests(crew: Crew, timeout: float) -> None:
    """Until each guest listens on a port, has ended, or is taken not to be a server."""

    def ready() -> bool:
        guests = [child for child in crew.children.values() if child.role == "guest"]
        return all(not child.running or _listens(child.pid) for child in guests)

    _until(ready, timeout, crew.step)


def _until(ready: Callable[[], bool], timeout: float, step: Callable[[float], None]) -> bool:
    """Wait until it is ready; False when that took more than `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            return False
        step(PAUSE)
    return True


def _listens(pid: int) -> bool:
    """True when anything in the namespace of `pid` listens on TCP or has a UDP port bound."""
    for name, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
            next(file, None)
            for line in file:
                fields = line.split()
                if len(fields) > 3 and fields[3] == state:
                    return True
    return False
