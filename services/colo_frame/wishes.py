"""How a wish for a checkpoint reaches the primary, where checkpoints are made.

On the primary a wish goes to the machine for checkpoints. The secondary passes it on to the other host, and repeats it
until a checkpoint has answered it, because the link between the hosts may lose messages.
"""

from dataclasses import replace

from colo_frame.bounds import is_text, modest
from colo_frame.peer import PEER
from colo_frame.standing import Standing
from colo_proto.core import Output, Tell
from colo_proto.messages import CheckpointWanted

MAX_OUTSTANDING = 64
ASK_AGAIN = 2.0
"""Seconds after which the secondary repeats a wish that no checkpoint has answered."""


class Wishes:
    """See the module."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._outstanding: dict[tuple[str, str], tuple[CheckpointWanted, float]] = {}
        """Secondary: wishes for the primary by reason and source, and when each was last sent."""

    def want(self, wish: CheckpointWanted, sender: str, now: float, *, by_epoch: bool = False) -> list[Output]:
        """Somebody wants a checkpoint. `by_epoch`: its epoch tells whether a checkpoint covers it already."""
        standing = self._standing
        less = modest(wish)
        if less is not None:
            standing.counters["details_refused"] += 1
            wish = less
        if standing.primary:
            return standing.checkpoints.want(wish, sender if is_text(sender) else "anonymous", by_epoch, now)
        reason = wish.reason
        standing.counters["checkpoints_forwarded"] += 1
        wish = replace(wish, source=wish.source or sender)
        if len(self._outstanding) < MAX_OUTSTANDING or (reason, wish.source) in self._outstanding:
            self._outstanding[reason, wish.source] = (wish, now)
        return [Tell(wish, PEER)] if standing.peer.alive else []

    def repeat(self, now: float, *, appeared: bool) -> list[Output]:
        """The primary was heard: tell it again what it has not answered. All of it when it has just `appeared`."""
        outputs: list[Output] = []
        for key, (wish, sent) in list(self._outstanding.items()):
            if appeared or now - sent >= ASK_AGAIN:
                self._outstanding[key] = (wish, now)
                outputs.append(Tell(wish, PEER))
        return outputs

    def answered(self) -> None:
        """A checkpoint of the primary is over. It covers everything that was wished for before."""
        self._outstanding.clear()
