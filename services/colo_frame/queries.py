"""Questions and orders of people: `colo status`, `checkpoint`, `mode`, `rules`, `failover`, `resync`.

Each is a `Query`, and the frame answers it with an `Answer`. An order is carried out by the part of the frame that does
the same by itself. The messages that this causes are sent before the answer.
"""

from collections.abc import Callable
from typing import Any

from colo_frame.bounds import is_text
from colo_frame.side import Side
from colo_frame.transitions import WRITING
from colo_proto.claim import State
from colo_proto.errors import ConfigError
from colo_proto.messages import Answer, CheckpointWanted, Mode, Query, Reason
from colo_proto.rules import parse_rules


class RefusedError(Exception):
    """The order is not carried out; the text says why."""


class Queries:
    """See the module."""

    def __init__(self, side: Side, resync: Callable[[float], None]) -> None:
        self._side = side
        self._order_resync = resync
        self._verbs = {
            "status": self._status,
            "checkpoint": self._checkpoint,
            "mode": self._mode,
            "rules": self._rules,
            "failover": self._failover,
            "resync": self._resync,
        }

    def answer(self, sender: str, query: Query, now: float) -> None:
        """Do what a query orders, and send the `Answer`."""
        self._side.counters["queries"] += 1
        verb = self._verbs.get(query.what, self._unknown)
        try:
            answer = Answer(ok=True, body=verb(sender, query, now))
        except RefusedError as error:
            answer = Answer(ok=False, error=str(error))
        self._side.out.tell(answer, sender)

    def _at_primary(self, error: str) -> None:
        """Refuse an order that is for the host that leads."""
        if not self._side.primary:
            raise RefusedError(error.replace("primary", "leader") if self._side.config.changing else error)

    def _unknown(self, _sender: str, query: Query, _now: float) -> dict[str, Any]:
        raise RefusedError(f"unknown query {query.what[:40]!r}; known: {', '.join(self._verbs)}")

    def _status(self, _sender: str, _query: Query, now: float) -> dict[str, Any]:
        return self._side.status(now)

    def _checkpoint(self, sender: str, _query: Query, now: float) -> dict[str, Any]:
        side, checkpoints = self._side, self._side.checkpoints
        if not side.primary and not side.peer.alive:
            raise RefusedError("the primary's frame does not answer")
        request = CheckpointWanted(Reason.REQUEST, source=sender if is_text(sender) else "", epoch=checkpoints.epoch)
        side.requests.add(request, sender, now)
        return {"epoch": checkpoints.epoch, "driver": checkpoints.driver.name}

    def _mode(self, _sender: str, query: Query, now: float) -> dict[str, Any]:
        modes, wanted = self._side.modes, query.args.get("mode")
        if wanted is not None:
            self._at_primary("the mode is set at the primary's frame")
            if wanted not in Mode.ALL:
                raise RefusedError(f"mode: one of {', '.join(Mode.ALL)}, not {str(wanted)[:40]!r}")
            modes.set(wanted)
            self._side.beat(now)
        return {"mode": modes.mode}

    def _rules(self, _sender: str, query: Query, _now: float) -> dict[str, Any]:
        modes, wanted = self._side.modes, query.args.get("rules")
        if isinstance(wanted, str):
            self._at_primary("rules are set at the primary's frame")
            try:
                parse_rules(wanted)
            except ConfigError as error:
                raise RefusedError(str(error)) from None
            modes.set_rules(wanted, "a query")
        return {"rules": None if modes.rules is None else modes.rules.rules}

    def _failover(self, _sender: str, query: Query, now: float) -> dict[str, Any]:
        """The secondary takes over the client LAN, as soon as the primary yields or must have stopped writing."""
        leadership, force = self._side.ownership.leadership, query.args.get("force") is True
        if self._side.config.changing:
            if leadership.state in WRITING or leadership.state in (State.ASKING, State.YIELDING):
                raise RefusedError(
                    f"a failover is ordered at the standby's frame; this host leads ({leadership.state})"
                )
        elif self._side.primary:
            raise RefusedError("a failover is ordered at the secondary's frame")
        if leadership.state not in WRITING and (force or leadership.state != State.TAKING):
            why = self._side.judging.refusal(now)
            if why and not force:
                raise RefusedError(f"this guest is no replica ({why}): connections would break; --force does it")
            leadership.take_over(now, force=force)
            self._side.out.log("warning", "failover.ordered", fence=leadership.fence, promotable=not why)
            self._side.ownership.advance(now)
        return {"state": leadership.state, "fence": leadership.fence, "promotable": self._side.promotable(now)}

    def _resync(self, _sender: str, _query: Query, now: float) -> dict[str, Any]:
        """A secondary that is new, or that has missed something, becomes the replica again."""
        self._at_primary("a resync is ordered at the primary's frame")
        other = "other host" if self._side.config.changing else "secondary"
        if not self._side.peer.alive:
            raise RefusedError(f"there is no {other}: its frame does not answer")
        if self._side.ownership.leadership.state in (State.YIELDING, State.FENCED):
            raise RefusedError(f"this side is fenced: the {other} has the client LAN")
        self._order_resync(now)
        return {"epoch": self._side.checkpoints.epoch, "mode": self._side.modes.mode}
