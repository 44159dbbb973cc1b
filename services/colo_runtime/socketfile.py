"""Notices when the file of a bound Unix socket is gone, and has it bound again.

A socket whose file was deleted (by somebody who tidies up, or with its directory) goes on with those who are connected,
but nobody finds it any more, and nothing tells its owner. So its file is looked at once a second::

    as it was bound               nothing to do
    gone                          bound again
    another socket, served        somebody took the place: said once a minute, and left alone
    another socket, not served    left behind by somebody who died: bound again
    no socket                     said once a minute, and left alone
"""

import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any, Final

import zmq

from colo_proto.errors import ConfigError, StartError
from colo_runtime.context import COMPLAIN_EVERY
from colo_runtime.reactor import Reactor, Timer

EVERY: Final = 1.0
"""Seconds between two looks."""

Mark = tuple[int, int]


class SocketFile:
    """Watches `path`, which was bound just now, until `close`. `again` binds it; it may fail, and is called again."""

    def __init__(
        self,
        path: str,
        reactor: Reactor,
        again: Callable[[], None],
        log: Callable[..., None],
        kind: int = socket.SOCK_STREAM,
    ) -> None:
        self._path = path
        self._reactor = reactor
        self._again = again
        self._log = log
        self._kind = kind
        self._mark = self._look_at()
        self._said: dict[str, float] = {}
        self._timer: Timer | None = reactor.call_later(EVERY, self._look)

    def _look_at(self) -> Mark | None:
        try:
            about = os.lstat(self._path)
        except OSError:
            return None
        return about.st_dev, about.st_ino

    def _look(self) -> None:
        self._timer = self._reactor.call_later(EVERY, self._look)
        found = self._look_at()
        if found is not None and found == self._mark:
            return
        why = self._taken() if found is not None else ""
        if not why:
            try:
                self._again()
            except (OSError, zmq.ZMQError, ConfigError, StartError) as error:
                why = str(error)
        if why:
            self._complain("socket.lost", path=self._path, error=why)
            return
        self._mark = self._look_at()
        self._log("warning", "socket.bound_again", path=self._path)

    def _taken(self) -> str:
        """Why what stands there must be left alone; empty when nobody serves it."""
        try:
            if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
                return "something that is no socket has its place"
            with socket.socket(socket.AF_UNIX, self._kind) as probe:
                probe.setblocking(False)
                probe.connect(self._path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return "" if error.errno == errno.ECONNREFUSED else f"somebody else has its place ({error.strerror})"
        return "somebody else listens in its place"

    def _complain(self, event: str, **fields: Any) -> None:
        now = self._reactor.turned
        if now - self._said.get(event, float("-inf")) >= COMPLAIN_EVERY:
            self._said[event] = now
            self._log("error", event, **fields)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
