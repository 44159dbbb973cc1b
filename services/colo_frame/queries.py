"""Questions and orders of people: `colo status`, `checkpoint`, `mode`, `failover`, `resync`."""

from typing import TYPE_CHECKING

from colo_proto.claim import State
from colo_proto.core import Log, Output, Tell
from colo_proto.errors import ConfigError
from colo_proto.messages import Answer, CheckpointWanted, Mode, Query, Reason, SetMode
from colo_proto.rules import parse_rules

if TYPE_CHECKING:
    from colo_frame.frame import Frame

KNOWN = "status, checkpoint, mode, rules, failover, resync"


def is_text(sender: str) -> bool:
    """False for a routing id that is not UTF-8 (its other bytes are surrogates in `sender`)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in sender)


def answer(frame: "Frame", sender: str, query: Query, now: float) -> list[Output]:
    """What a query brings, the `Answer` last."""
    frame.counters["queries"] += 1
    outputs: list[Output] = []
    if query.what == "status":
        reply = Answer(ok=True, body=frame.status(now))
    elif query.what == "checkpoint":
        reply = _checkpoint(frame, sender, now, outputs)
    elif query.what == "mode":
        reply = _mode(frame, query.args.get("mode"), now, outputs)
    elif query.what == "rules":
        reply = _rules(frame, query.args.get("rules"), outputs)
    elif query.what == "failover":
        reply = _failover(frame, query.args.get("force") is True, now, outputs)
    elif query.what == "resync":
        reply = _resync(frame, now, outputs)
    else:
        reply = Answer(ok=False, error=f"unknown query {query.what[:40]!r}; known: {KNOWN}")
    return [*outputs, Tell(reply, sender)]


def _checkpoint(frame: "Frame", sender: str, now: float, outputs: list[Output]) -> Answer:
    if not frame.primary and not frame.peer.alive:
        return Answer(ok=False, error="the primary's frame does not answer")
    wish = CheckpointWanted(Reason.REQUEST, source=sender if is_text(sender) else "", epoch=frame.checkpoints.epoch)
    outputs += frame.want(wish, sender, now)
    return Answer(ok=True, body={"epoch": frame.checkpoints.epoch, "driver": frame.checkpoints.driver.name})


def _mode(frame: "Frame", wanted: object, now: float, outputs: list[Output]) -> Answer:
    if wanted is None:
        return Answer(ok=True, body={"mode": frame.mode})
    if not frame.primary:
        return Answer(ok=False, error="the mode is set at the primary's frame")
    if wanted not in Mode.ALL:
        return Answer(ok=False, error=f"mode: one of {', '.join(Mode.ALL)}, not {str(wanted)[:40]!r}")
    outputs += frame.set_mode(str(wanted), now)
    return Answer(ok=True, body={"mode": frame.mode})


def _rules(frame: "Frame", wanted: object, outputs: list[Output]) -> Answer:
    if isinstance(wanted, str):
        if not frame.primary:
            return Answer(ok=False, error="rules are set at the primary's frame")
        try:
            parse_rules(wanted)
        except ConfigError as error:
            return Answer(ok=False, error=str(error))
        outputs += frame.set_rules(wanted, "a question")
    return Answer(ok=True, body={"rules": None if frame.rules is None else frame.rules.rules})


def _failover(frame: "Frame", force: bool, now: float, outputs: list[Output]) -> Answer:
    """The secondary takes the client LAN over. It waits until the primary yields, or must have stopped."""
    if frame.primary:
        return Answer(ok=False, error="a failover is ordered at the secondary's frame")
    tenure = frame.ownership.tenure
    if tenure.state != State.PROMOTED and (force or tenure.state != State.TAKING):
        if not tenure.fit and not force:
            why = "no primary was ever heard" if tenure.other is None else f"the primary goes on in mode {frame.mode}"
            return Answer(ok=False, error=f"this guest is no replica ({why}): connections would break; --force does it")
        tenure.take(now, force=force)
        outputs.append(Log("warning", "failover.ordered", {"fence": tenure.fence, "fit": tenure.fit}))
        outputs += frame.ownership.settle(now)
    return Answer(ok=True, body={"state": tenure.state, "fence": tenure.fence, "fit": tenure.fit})


def _resync(frame: "Frame", now: float, outputs: list[Output]) -> Answer:
    """A new secondary, or one that has missed something, becomes the replica again."""
    if not frame.primary:
        return Answer(ok=False, error="a resync is ordered at the primary's frame")
    if not frame.peer.alive:
        return Answer(ok=False, error="there is no secondary: its frame does not answer")
    outputs += frame.resync(now)
    return Answer(ok=True, body={"epoch": frame.checkpoints.epoch, "mode": frame.mode})


def set_mode(mode: str, compares: list[str], *, resync: bool = False) -> list[Output]:
    """`SetMode` for every compare."""
    return [Tell(SetMode(mode, resync), compare) for compare in compares]
