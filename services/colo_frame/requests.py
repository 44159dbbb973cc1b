"""How a request for a checkpoint reaches the primary, where checkpoints are made.

On the primary it goes to `checkpoints`. The secondary passes it on to the other host, and repeats it until a checkpoint
has answered it, because the link between the hosts may lose messages.
"""

from dataclasses import replace

from colo_frame.bounds import is_text, trim_request
from colo_frame.checkpoints import Checkpoints
from colo_frame.outbox import Outbox
from colo_frame.peer import PEER, Peer
from colo_proto.messages import CheckpointWanted

MAX_OUTSTANDING = 64
REPEAT_AFTER = 2.0
"""Seconds after which a request that no checkpoint has answered is made again."""


class Requests:
    """See the module."""

    def __init__(self, checkpoints: Checkpoints, peer: Peer, out: Outbox, *, primary: bool) -> None:
        self._checkpoints = checkpoints
        self._out = out
        self._peer = peer
        self._primary = primary
        self._outstanding: dict[tuple[str, str], tuple[CheckpointWanted, float]] = {}
        """Secondary: requests to the primary by reason and source, and when each was last sent."""

    def add(self, request: CheckpointWanted, sender: str, now: float, *, by_epoch: bool = False) -> None:
        """Somebody requests a checkpoint. `by_epoch`: its epoch tells whether a checkpoint covers it already."""
        trimmed = trim_request(request)
        if trimmed != request:
            self._out.counters["details_refused"] += 1
        if self._primary:
            self._out += self._checkpoints.want(trimmed, sender if is_text(sender) else "anonymous", by_epoch, now)
            return
        self._out.counters["checkpoints_forwarded"] += 1
        trimmed = replace(trimmed, source=trimmed.source or sender)
        key = (trimmed.reason, trimmed.source)
        if len(self._outstanding) < MAX_OUTSTANDING or key in self._outstanding:
            self._outstanding[key] = (trimmed, now)
        if self._peer.alive:
            self._out.tell(trimmed, PEER)

    def repeat(self, now: float, *, appeared: bool) -> None:
        """The primary was heard: repeat what it has not answered. Repeat all of it if it has just `appeared`."""
        for key, (request, sent) in list(self._outstanding.items()):
            if appeared or now - sent >= REPEAT_AFTER:
                self._outstanding[key] = (request, now)
                self._out.tell(request, PEER)

    def take_role(self, *, primary: bool) -> None:
        """Another host leads from now on: what was requested before is over."""
        self._primary = primary
        self._outstanding.clear()
        self._checkpoints.reset()

    def answered(self) -> None:
        """A checkpoint of the primary is over. It covers everything that was requested before."""
        self._outstanding.clear()
