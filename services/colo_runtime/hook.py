"""A command of the operator that is run when something has changed, as Keepalived runs its notify scripts.

::

    change --> waiting (one place: the newest) --> thread: one command at a time --> done --> wake the loop

The command runs in a process of its own that a thread starts and waits for, so nothing that it does, and no slow disk
that it lies on, stops the loop. While it runs, the newest change waits, and takes the place of one that waited before.
What it writes is kept up to the last `MAX_OUTPUT` bytes. After `timeout` seconds it is killed with all that it started
in its session. When our process ends, a command that runs is left alone.
"""

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from colo_proto.errors import ConfigError

MAX_OUTPUT: Final = 2048
LOOK: Final = 0.05
"""Seconds between two looks whether the command has ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a command."""

    variables: Mapping[str, str]
    status: int | None
    """Its exit status, negative: the number of a signal; None: it could not be started, and `output` says why."""
    output: str
    seconds: float
    timed_out: bool = False


def parse(option: str, command: str) -> list[str]:
    """The words of a command line. `ConfigError` when it is none, or when there is no such program."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{option} {command[:80]}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise ConfigError(f"{option} {command[:80]}: there is no such program")
    return words


class Hook:
    """See the module. `wake` is called from the thread; after it, `take` has something."""

    def __init__(self, argv: list[str], timeout: float, wake: Callable[[], None]) -> None:
        self._argv = argv
        self._timeout = timeout
        self._wake = wake
        self._changed = threading.Condition()
        self._waiting: Mapping[str, str] | None = None
        self._closed = False
        self._ended: deque[Ended] = deque()
        self.skipped = 0
        """Changes that a newer one has replaced before the command was run for them."""
        threading.Thread(target=self._work, name="hook", daemon=True).start()

    def change(self, variables: Mapping[str, str]) -> None:
        """Run the command with these environment variables, as soon as the one that runs has ended."""
        with self._changed:
            self.skipped += self._waiting is not None
            self._waiting = variables
            self._changed.notify()

    def take(self) -> list[Ended]:
        """What has ended since the last call."""
        taken = []
        while self._ended:
            taken.append(self._ended.popleft())
        return taken

    def close(self) -> None:
        """Start nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting is not None)
                variables, self._waiting = self._waiting, None
                if self._closed or variables is None:
                    return
            self._ended.append(self._run(variables))
            with self._changed:
                if not self._closed:
                    self._wake()

    def _run(self, variables: Mapping[str, str]) -> Ended:
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env={**os.environ, **variables}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return Ended(variables, None, str(error), time.monotonic() - began)
        assert process.stdout is not None
        out, output, timed_out = process.stdout.fileno(), b"", False
        os.set_blocking(out, False)
        open_ = True
        while True:
            ended = process.poll() is not None
            while open_ and (chunk := _read(out)) is not None:
                open_ = bool(chunk)
                output = (output + chunk)[-MAX_OUTPUT:]
            if ended:
                break
            if not timed_out and time.monotonic() > began + self._timeout:
                timed_out = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            if open_:
                select.select([out], [], [], LOOK)
            else:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK)
        process.stdout.close()
        text = output.decode(errors="replace").strip()
        return Ended(variables, process.returncode, text, time.monotonic() - began, timed_out)


def _read(fd: int) -> bytes | None:
    """What there is to read; empty at the end, None when there is nothing now."""
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return None
