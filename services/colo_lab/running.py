"""One run of the client's command: what happens while it runs, when it is ended, and the exit status that comes of it.

::

    --timeout is over      --> SIGTERM, and SIGKILL two seconds later; the exit status is 124
    somebody wants an end  --> the same signal for the client, and SIGKILL four seconds later
    a plan is due          --> it is carried out (a process dies, compares are started)
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Final

from colo_lab.children import Child
from colo_lab.crew import GRACE

EXIT_TIMEOUT: Final = 124
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127
QUICK: Final = 0.1
"""Seconds at most between two looks where something has to happen in time."""

Plan = tuple[float, Callable[[], None]]
"""When something is to happen (monotonic seconds), and what."""


class ClientRun:
    """See the module. `began` is when the client is started; `interrupted` returns the number of a signal once somebody
    wants the client to end. The terminal tells its whole process group of Ctrl-C, so that signal is not passed on then.
    """

    def __init__(
        self, client: Child, began: float, plans: list[Plan], timeout: float | None, interrupted: Callable[[], int]
    ) -> None:
        self._client = client
        self._plans = plans
        self._timeout_at = None if timeout is None else began + timeout
        self._timed_out = False
        self._interrupted = interrupted
        self._asked = 0
        """The signal that somebody wanted it to end with; 0: nobody has wanted it."""
        self._kill_at: float | None = None

    def look(self, now: float) -> None:
        """Do what is due at this moment."""
        if self._timeout_at is not None and not self._timed_out and now >= self._timeout_at:
            self._timed_out = True
            self._client.signal(signal.SIGTERM)
            self._kill_at = now + GRACE
        number = self._interrupted()
        if number and number != self._asked:
            if number != signal.SIGINT or not _foreground():
                self._client.signal(number)
            self._asked = number
            self._kill_at = self._kill_at or now + 2 * GRACE
        if self._kill_at is not None and now >= self._kill_at:
            self._client.signal(signal.SIGKILL)
        while self._plans and now >= self._plans[0][0]:
            self._plans.pop(0)[1]()

    def pause(self, interval: float) -> float:
        """How long to wait until the next look: `interval` seconds, or less."""
        hurry = self._timeout_at is not None or self._asked
        pause = min(interval, QUICK) if hurry else interval
        return min(pause, max(0.0, self._plans[0][0] - time.monotonic())) if self._plans else pause

    def exit_status(self) -> int:
        """As a shell's, once the client has ended. A client that needed the SIGKILL counts as ended by the signal that
        was passed on (a shell that waits for its own child is deaf to SIGINT).
        """
        if self._timed_out:
            return EXIT_TIMEOUT
        status = self._client.status or 0
        if self._asked and status == -signal.SIGKILL:
            status = -self._asked
        return status if status >= 0 else 128 - status


def cannot_run(error: OSError) -> int:
    """The exit status when the command could not be started."""
    return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE


def _foreground() -> bool:
    """True when this process group is the one that the terminal's Ctrl-C goes to."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
