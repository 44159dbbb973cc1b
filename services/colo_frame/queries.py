"""Questions and orders of people: `colo status`, `checkpoint`, `mode`, `rules`, `failover`, `resync`.

Each is a `Query`, and the frame answers it with an `Answer`. An order is carried out by the part of the frame that
does the same by itself, and what that part wants to be sent goes out before the answer.
"""

from colo_frame.bounds import is_text
from colo_frame.modes import Modes
from colo_frame.progress import Progress
from colo_frame.standing import Standing
from colo_frame.wishes import Wishes
from colo_proto.claim import State
from colo_proto.core import Log, Output, Tell
from colo_proto.errors import ConfigError
from colo_proto.messages import Answer, CheckpointWanted, Mode, Query, Reason
from colo_proto.rules import parse_rules

KNOWN = "status, checkpoint, mode, rules, failover, resync"


class Questions:
    """See the module."""

    def __init__(self, standing: Standing, wishes: Wishes, modes: Modes, progress: Progress) -> None:
        self._standing = standing
        self._wishes = wishes
        self._modes = modes
        self._progress = progress

    def answer(self, sender: str, query: Query, now: float) -> list[Output]:
        """What a query brings, the `Answer` last."""
        self._standing.counters["queries"] += 1
        outputs: list[Output] = []
        if query.what == "status":
            reply = Answer(ok=True, body=self._standing.status(now))
        elif query.what == "checkpoint":
            reply = self._checkpoint(sender, now, outputs)
        elif query.what == "mode":
            reply = self._mode(query.args.get("mode"), now, outputs)
        elif query.what == "rules":
            reply = self._rules(query.args.get("rules"), outputs)
        elif query.what == "failover":
            reply = self._failover(query.args.get("force") is True, now, outputs)
        elif query.what == "resync":
            reply = self._resync(now, outputs)
        else:
            reply = Answer(ok=False, error=f"unknown query {query.what[:40]!r}; known: {KNOWN}")
        return [*outputs, Tell(reply, sender)]

    def _checkpoint(self, sender: str, now: float, outputs: list[Output]) -> Answer:
        standing, checkpoints = self._standing, self._standing.checkpoints
        if not standing.primary and not standing.peer.alive:
            return Answer(ok=False, error="the primary's frame does not answer")
        wish = CheckpointWanted(Reason.REQUEST, source=sender if is_text(sender) else "", epoch=checkpoints.epoch)
        outputs += self._wishes.want(wish, sender, now)
        return Answer(ok=True, body={"epoch": checkpoints.epoch, "driver": checkpoints.driver.name})

    def _mode(self, wanted: object, now: float, outputs: list[Output]) -> Answer:
        standing = self._standing
        if wanted is None:
            return Answer(ok=True, body={"mode": standing.mode})
        if not standing.primary:
            return Answer(ok=False, error="the mode is set at the primary's frame")
        if wanted not in Mode.ALL:
            return Answer(ok=False, error=f"mode: one of {', '.join(Mode.ALL)}, not {str(wanted)[:40]!r}")
        outputs += self._modes.set(str(wanted), now)
        return Answer(ok=True, body={"mode": standing.mode})

    def _rules(self, wanted: object, outputs: list[Output]) -> Answer:
        standing = self._standing
        if isinstance(wanted, str):
            if not standing.primary:
                return Answer(ok=False, error="rules are set at the primary's frame")
            try:
                parse_rules(wanted)
            except ConfigError as error:
                return Answer(ok=False, error=str(error))
            outputs += self._modes.set_rules(wanted, "a question")
        return Answer(ok=True, body={"rules": None if standing.rules is None else standing.rules.rules})

    def _failover(self, force: bool, now: float, outputs: list[Output]) -> Answer:
        """The secondary takes the client LAN over. It waits until the primary yields, or must have stopped."""
        standing = self._standing
        if standing.primary:
            return Answer(ok=False, error="a failover is ordered at the secondary's frame")
        tenure = standing.ownership.tenure
        if tenure.state != State.PROMOTED and (force or tenure.state != State.TAKING):
            if not tenure.fit and not force:
                never = tenure.other is None
                why = "no primary was ever heard" if never else f"the primary goes on in mode {standing.mode}"
                error = f"this guest is no replica ({why}): connections would break; --force does it"
                return Answer(ok=False, error=error)
            tenure.take(now, force=force)
            outputs.append(Log("warning", "failover.ordered", {"fence": tenure.fence, "fit": tenure.fit}))
            outputs += standing.ownership.settle(now)
        return Answer(ok=True, body={"state": tenure.state, "fence": tenure.fence, "fit": tenure.fit})

    def _resync(self, now: float, outputs: list[Output]) -> Answer:
        """A new secondary, or one that has missed something, becomes the replica again."""
        standing = self._standing
        if not standing.primary:
            return Answer(ok=False, error="a resync is ordered at the primary's frame")
        if not standing.peer.alive:
            return Answer(ok=False, error="there is no secondary: its frame does not answer")
        outputs += self._progress.resync(now)
        return Answer(ok=True, body={"epoch": standing.checkpoints.epoch, "mode": standing.mode})
