"""One run of the client's command: what happens while it runs, when it is ended, and its exit status.

::

    --timeout has passed   --> SIGTERM, and SIGKILL two seconds later; the exit status is 124
    the lab gets a signal  --> the client gets the same signal, and SIGKILL four seconds later
    a plan is due          --> it is carried out (a process is killed, compare workers are started)
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Final

from colo_lab.children import Child
from colo_lab.supervisor import GRACE

EXIT_TIMEOUT: Final = 124
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
SHORT_PAUSE: Final = 0.1
"""Seconds at most between two looks while a timeout or a signal is pending."""

Plan = tuple[float, Callable[[], None]]
"""When something is to happen (monotonic seconds), and what."""


class ClientRun:
    """See the module. The client is started at `began` (monotonic seconds). `interrupted` returns the number of the
    signal that has asked the lab to end, or 0. The terminal sends SIGINT to its whole process group on Ctrl-C, so that
    signal is not passed on then.
    """

    def __init__(
        self, client: Child, began: float, plans: list[Plan], timeout: float | None, interrupted: Callable[[], int]
    ) -> None:
        self._client = client
        self._plans = plans
        self._timeout_at = None if timeout is None else began + timeout
        self._timed_out = False
        self._interrupted = interrupted
        self._passed_on = 0
        """The last signal that the client was asked to end with; 0: none."""
        self._kill_at: float | None = None

    def look(self, now: float) -> None:
        """Do what is due at this moment."""
        if self._timeout_at is not None and not self._timed_out and now >= self._timeout_at:
            self._timed_out = True
            self._client.signal(signal.SIGTERM)
            self._kill_at = now + GRACE
        number = self._interrupted()
        if number and number != self._passed_on:
            if number != signal.SIGINT or not _foreground():
                self._client.signal(number)
            self._passed_on = number
            self._kill_at = self._kill_at or now + 2 * GRACE
        if self._kill_at is not None and now >= self._kill_at:
            self._client.signal(signal.SIGKILL)
        while self._plans and now >= self._plans[0][0]:
            self._plans.pop(0)[1]()

    def pause(self, interval: float) -> float:
        """How long to wait until the next look: `interval` seconds, or less."""
        pause = min(interval, SHORT_PAUSE) if self._timeout_at is not None or self._passed_on else interval
        return min(pause, max(0.0, self._plans[0][0] - time.monotonic())) if self._plans else pause

    def exit_status(self) -> int:
        """The exit status as a shell would give it, once the client has ended. A client that needed the SIGKILL counts
        as ended by the signal that was passed on (a shell that waits for its own child does not react to SIGINT).
        """
        if self._timed_out:
            return EXIT_TIMEOUT
        status = self._client.status or 0
        if self._passed_on and status == -signal.SIGKILL:
            status = -self._passed_on
        return status if status >= 0 else 128 - status


def cannot_run(error: OSError) -> int:
    """The exit status when the command could not be started."""
    return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE


def _foreground() -> bool:
    """True when this process group is the one that the terminal sends SIGINT to on Ctrl-C."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
