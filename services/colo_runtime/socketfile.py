"""The file of a bound Unix socket: removing an old one, and binding again when ours was deleted.

A socket whose file was deleted, alone or with its directory, still serves the connections that it has, but new clients
cannot find it, and nothing tells its owner. Therefore its file is looked at once a second::

    as it was bound               nothing to do
    gone                          bound again
    another socket, served        another process has taken the path: logged once a minute, and left alone
    another socket, not served    left over from a process that has died: bound again
    not a socket                  logged once a minute, and left alone
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zmq

from colo_proto.errors import ConfigError, StartError
from colo_runtime.context import COMPLAIN_EVERY
from colo_runtime.reactor import Reactor

EVERY: Final = 1.0
"""Seconds between two looks."""

FileId = tuple[int, int]
"""Device and inode."""


def is_socket(path: str, what: str) -> bool:
    """False when there is no file at `path`. `ConfigError`, beginning with `what`, when it is not a socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{what}: {path} exists and is not a socket")
    return True


def clear_stale(path: str, what: str, kind: int = socket.SOCK_STREAM) -> None:
    """Remove a socket file that no process serves. `ConfigError` or `StartError` when it must be left alone."""
    if not is_socket(path, what):
        return
    with socket.socket(socket.AF_UNIX, kind) as probe:
        # If the backlog of the listener is full, a blocking connect would wait.
        probe.setblocking(False)
        number = probe.connect_ex(path)
    if number == errno.ECONNREFUSED:
        Path(path).unlink()
    elif number in (0, errno.EAGAIN):
        raise StartError(f"{what}: somebody listens on {path} already")
    elif number != errno.ENOENT:
        raise StartError(f"{what}: {path}: {os.strerror(number)}")


class SocketFile:
    """Watches `path`, which was bound just now, until `close`.

    `again` binds it once more. It may fail with an exception; it is then called again later.
    """

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
        self._ours = self._found()
        self._complained = float("-inf")
        self._timer = reactor.call_later(EVERY, self._look)

    def _found(self) -> FileId | None:
        try:
            about = os.lstat(self._path)
        except OSError:
            return None
        return about.st_dev, about.st_ino

    def _look(self) -> None:
        self._timer = self._reactor.call_later(EVERY, self._look)
        found = self._found()
        if found is not None and found == self._ours:
            return
        try:
            clear_stale(self._path, "its place is taken", self._kind)
            self._again()
        except (OSError, zmq.ZMQError, ConfigError, StartError) as error:
            if self._reactor.turned - self._complained >= COMPLAIN_EVERY:
                self._complained = self._reactor.turned
                self._log("error", "socket.lost", path=self._path, error=str(error))
            return
        self._ours = self._found()
        self._log("warning", "socket.bound_again", path=self._path)

    def close(self, *, remove: bool = False) -> None:
        """Stop looking. With `remove`, delete the file if it is still ours."""
        self._timer.cancel()
        if remove and self._ours is not None and self._found() == self._ours:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()
