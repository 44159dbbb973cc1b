"""The processes of a lab together: started, watched, restarted when they die, ended.

One thread, no signal handlers: `step` waits for the end of any child on its pidfd and does what is due.
"""

import selectors
import signal
import time
from collections.abc import Callable, Collection
from typing import Final

from colo_lab.children import Child

BACKOFF: Final = 0.1
"""Seconds before a process that died for the first time is started again. Each further death doubles it …"""
MAX_BACKOFF: Final = 5.0
"""… up to this."""
STABLE: Final = 10.0
"""Seconds a process must have lived for its earlier deaths to be forgotten."""
GRACE: Final = 2.0
"""Seconds between asking a process to end and ending it."""


class LabError(Exception):
    """The lab did not come up, or fell down. The message says which process, and what it said last."""


class Crew:
    """Children by id. A death before `settled` is an error. After it, filters are started again, and guests are not."""

    def __init__(self, *, restart: bool) -> None:
        self.children: dict[str, Child] = {}
        self.settled = False
        self.on_change: Callable[[], None] = lambda: None
        """Called when a process id has changed."""
        self.on_event: Callable[[str], None] = lambda _text: None
        """Called with a line for people: a process has died, was restarted, …"""
        self._restart = restart
        self._selector = selectors.DefaultSelector()
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._abandoned: set[str] = set()

    def abandon(self, names: Collection[str]) -> None:
        """End these at once and do not start them again, because their host has died."""
        self._abandoned.update(names)
        for name in names:
            self._due.pop(name, None)
            self.children[name].signal(signal.SIGKILL)

    def retire(self, name: str) -> None:
        """Ask one to end. It may take the time that it needs, and is not started again."""
        self._abandoned.add(name)
        self._due.pop(name, None)
        self.children[name].retired = True
        self.children[name].signal(signal.SIGTERM)

    def revive(self, name: str) -> None:
        """One that was retired is wanted again and may be started."""
        self._abandoned.discard(name)

    def resume(self, names: Collection[str]) -> None:
        """Start those that were abandoned, because their host is back."""
        for name in names:
            if name in self._abandoned and not self.children[name].running:
                self._abandoned.discard(name)
                self.start(self.children[name])
        self.on_change()

    def start(self, child: Child) -> None:
        """Start a child and watch it. `OSError` when its program cannot be run."""
        child.start()
        self.children[child.id] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def step(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for something to happen, and do what is due. `LabError` before `settled`."""
        now = time.monotonic()
        if self._due:
            timeout = max(0.0, min(timeout, min(self._due.values()) - now))
        for key, _ in self._selector.select(timeout):
            child: Child = key.data
            self._selector.unregister(key.fd)
            child.reap()
            self._ended(child)
        now = time.monotonic()
        for name, due in list(self._due.items()):
            if due <= now:
                del self._due[name]
                self.start(self.children[name])
                self.on_event(f"{name} restarted, process {self.children[name].pid}")
                self.on_change()

    def finish(self, child: Child) -> None:
        """End one child now."""
        if child.running:
            self._selector.unregister(child.pidfd)
            child.signal(signal.SIGKILL)
            child.reap()

    def stop(self) -> None:
        """End all. Guests and clients are killed at once; filters are asked first, so that they can drain."""
        self._due.clear()
        for child in self.children.values():
            child.sample()
            child.signal(signal.SIGKILL if child.role in ("guest", "client") else signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for child in self.children.values():
            if child.running:
                _wait(child.pidfd, deadline - time.monotonic())
                self.finish(child)

    def close(self) -> None:
        """Let go of what the crew needs itself, after `stop`."""
        self._selector.close()

    def _ended(self, child: Child) -> None:
        if child.role == "client":
            return
        status = child.status or 0
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        tail = child.tail()
        if not self.settled:
            if child.role == "guest" and status == 0:
                return
            raise LabError(f"{child.id} ended before the lab was up ({how})" + (f":\n{tail}" if tail else ""))
        self.on_event(f"{child.id} ended ({how})" + (f": {tail.splitlines()[-1]}" if tail and status > 0 else ""))
        if child.role == "guest" or child.id in self._abandoned or not self._restart:
            self.on_change()
            return
        now = time.monotonic()
        if now - child.started > STABLE:
            self._failures[child.id] = 0
        count = self._failures.get(child.id, 0)
        self._failures[child.id] = count + 1
        self._due[child.id] = now + min(MAX_BACKOFF, BACKOFF * 2**count)
        self.on_change()


def _wait(fd: int, timeout: float) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        selector.select(max(0.0, timeout))
