"""Supervision of all processes of a lab: they are started, watched, restarted when they die, and ended.

There is one thread and no signal handler: `step` waits for the end of any child on its pidfd and does what is due.
"""

import select
import selectors
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from colo_lab.children import Child

BACKOFF: Final = 0.1
"""Seconds before a process that died for the first time is started again. Each further death doubles it …"""
MAX_BACKOFF: Final = 5.0
"""… up to this."""
STABLE: Final = 10.0
"""Seconds that a process must have run for its earlier deaths to be forgotten."""
POLL_INTERVAL: Final = 0.02
"""Seconds between two looks whether something is ready."""
GRACE: Final = 2.0
"""Seconds between asking a process to end and killing it."""


class LabError(Exception):
    """The lab did not come up, or failed later. The message says which process ended, and the last lines of its log."""


class Supervisor:
    """Children by id. A death before `up` is an error. After that, filters are started again, and guests are not."""

    def __init__(self, *, restart: bool) -> None:
        self.children: dict[str, Child] = {}
        self.up = False
        """True once all processes of the lab have started and are ready."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a process id has changed."""
        self.on_event: Callable[[str], None] = lambda _text: None
        """Called with a line for people, for instance when a process has died or was restarted."""
        self._restart = restart
        self._selector = selectors.DefaultSelector()
        self._due: dict[str, float] = {}
        """By id: when a process that died is started again (monotonic seconds)."""
        self._failures: Counter[str] = Counter()

    def end(self, child: Child, number: int) -> None:
        """End a child with this signal. It may take as long as it needs, and is not started again."""
        child.abandoned = True
        self._due.pop(child.id, None)
        child.signal(number)

    def start(self, child: Child) -> None:
        """Start a child and watch it. `OSError` when its program cannot be run."""
        child.start()
        self.children[child.id] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def step(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for something to happen, and do what is due. `LabError` when a process ends
        before the lab is up.
        """
        if self._due:
            timeout = max(0.0, min(timeout, min(self._due.values()) - time.monotonic()))
        for key, _ in self._selector.select(timeout):
            child: Child = key.data
            self._selector.unregister(key.fd)
            child.reap()
            self._ended(child)
        now = time.monotonic()
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            self.start(self.children[name])
            self.on_event(f"{name} restarted, process {self.children[name].pid}")
            self.on_change()

    def until(self, ready: Callable[[], bool], timeout: float) -> bool:
        """Wait until `ready()`; False when that took more than `timeout` seconds. Meanwhile `step` does what is due, so
        that a process that ends too early is noticed at once.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > deadline:
                return False
            self.step(POLL_INTERVAL)
        return True

    def finish(self, child: Child) -> None:
        """Kill one child now, if it still runs."""
        if child.running:
            self._selector.unregister(child.pidfd)
            child.signal(signal.SIGKILL)
            child.reap()

    def stop(self) -> None:
        """End all; this is the last call. Guests and clients are killed at once. Filters are asked to end first, so
        that they can drain.
        """
        self._due.clear()
        for child in self.children.values():
            child.sample()
            child.signal(signal.SIGKILL if child.role in ("guest", "client") else signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for child in self.children.values():
            if child.running:
                select.select([child.pidfd], [], [], max(0.0, deadline - time.monotonic()))
                self.finish(child)
        self._selector.close()

    def _ended(self, child: Child) -> None:
        if child.role == "client":
            return
        status = child.status or 0
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        tail = child.tail()
        if not self.up:
            if child.role == "guest" and status == 0:
                return
            raise LabError(f"{child.id} ended before the lab was up ({how})" + (f":\n{tail}" if tail else ""))
        self.on_event(f"{child.id} ended ({how})" + (f": {tail.splitlines()[-1]}" if tail and status > 0 else ""))
        if self._restart and child.role != "guest" and not child.abandoned:
            now = time.monotonic()
            if now - child.started > STABLE:
                self._failures[child.id] = 0
            self._due[child.id] = now + min(MAX_BACKOFF, BACKOFF * 2 ** self._failures[child.id])
            self._failures[child.id] += 1
        self.on_change()
