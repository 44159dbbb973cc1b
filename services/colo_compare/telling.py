"""Tells the secondary's rewriter which TCP connections are unprotected, so that it ends them after a failover.

The rewriter keeps what it was told, and forgets it with the connection. So only changes are told: at once, and before
the frames leave that make a connection unprotected. A connection that waits for a checkpoint is told as `doubtful` when
it asks, and the rewriter hears of the checkpoint before compare does; so nothing has to reach it in time afterwards.

Everything is told again whenever the COLO frame sends a `Welcome`: it does so when something was lost on the way.
"""

from collections.abc import Iterable
from typing import Final

from colo_proto.core import Output, Tell
from colo_proto.messages import JOINING, MAX_KEYS, Unprotected

TCP_KEY: Final = b"\x06"
"""How the keys of TCP flows begin."""
MAX_FRESH: Final = 65536
"""Connections that are told as `kept` after a resync and remembered, in case that everything has to be told again."""


class Telling:
    """See the module. `outputs` is the list that messages and log entries go to."""

    def __init__(self, source: str, outputs: list[Output]) -> None:
        self.version = 0
        self._source = source
        self._outputs = outputs
        self._changes: dict[bytes, str] = {}
        """By key, the newest of `lost`, `doubtful` and `kept`."""
        self._fresh: dict[bytes, None] = {}
        self._fresh_until = float("-inf")
        self._renewed: dict[bytes, None] = {}

    def lost(self, key: bytes) -> None:
        """A connection is unprotected."""
        self._note(key, "lost")

    def doubtful(self, key: bytes) -> None:
        """A connection waits for a checkpoint."""
        self._note(key, "doubtful")

    def kept(self, key: bytes) -> None:
        """A connection is compared, whatever was said of one with this key."""
        self._note(key, "kept")

    def _note(self, key: bytes, what: str) -> None:
        if key[:1] == TCP_KEY:
            self._fresh.pop(key, None)
            self._changes.pop(key, None)
            self._changes[key] = what

    def renewed(self, key: bytes) -> None:
        """The primary has begun another connection on the key of one that was unprotected."""
        if len(self._renewed) < MAX_FRESH:
            self._renewed[key] = None

    def begun(self, key: bytes, now: float) -> None:
        """Both guests have begun a connection. Only now is it sure that the rewriter knows it as well."""
        if key in self._renewed:
            del self._renewed[key]
            self.kept(key)
        if now < self._fresh_until:
            self.kept(key)
            if len(self._fresh) < MAX_FRESH:
                self._fresh[key] = None

    def joined(self, now: float) -> None:
        """There is another secondary from now on."""
        self._fresh_until = now + JOINING
        self._fresh.clear()

    def flush(self) -> None:
        """Tell what has changed."""
        if self._changes:
            changes, self._changes = self._changes, {}
            self._tell(list(changes.items()), again=False)

    def again(self, lost: Iterable[bytes], doubtful: Iterable[bytes], now: float) -> None:
        """Tell everything."""
        self._changes.clear()
        known = dict.fromkeys(self._fresh if now < self._fresh_until else (), "kept")
        known |= dict.fromkeys(doubtful, "doubtful") | dict.fromkeys(lost, "lost")
        self._tell([(key, what) for key, what in known.items() if key[:1] == TCP_KEY], again=True)

    def _tell(self, known: list[tuple[bytes, str]], *, again: bool) -> None:
        for at in range(0, max(len(known), 1), MAX_KEYS):
            part = known[at : at + MAX_KEYS]
            self.version += 1
            lost, doubtful, kept = ([key for key, one in part if one == what] for what in ("lost", "doubtful", "kept"))
            message = Unprotected(self._source, self.version, again and not at, lost, doubtful, kept)
            self._outputs.append(Tell(message))
