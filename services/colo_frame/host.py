"""What is heard from the processes of this host: introductions, reports, wishes for checkpoints, and claims.

A process introduces itself with Hello and is told all that it must know. A frame that was restarted learns from the
introductions and reports how far the one before it had counted, which table is in use, and which rules were given.
"""

from dataclasses import replace
from typing import Any

from colo_frame.bounds import TooMuchError, is_text, proper
from colo_frame.drivers import DRIVER_ID
from colo_frame.modes import Modes
from colo_frame.registry import MAX_PROCESSES, Process
from colo_frame.scaling import Moving, Scaling
from colo_frame.standing import Standing
from colo_frame.table import named_table
from colo_frame.wishes import Wishes
from colo_proto.core import Log, Output, Tell
from colo_proto.errors import ConfigError
from colo_proto.messages import (
    CheckpointWanted,
    Flushed,
    Hello,
    LanHeard,
    LanSaid,
    Message,
    Reason,
    Report,
    SetMode,
    SetRules,
    Yielded,
)
from colo_proto.rules import parse_rules

_SPLITTERS = frozenset({"redirector", "rewriter"})


class Host:
    """See the module."""

    def __init__(self, standing: Standing, wishes: Wishes, scaling: Scaling, modes: Modes) -> None:
        self._standing = standing
        self._wishes = wishes
        self._scaling = scaling
        self._modes = modes
        self._said: set[str] = set()
        """What was logged once and is not logged again."""

    def hear(self, sender: str, process: Process | None, message: Message, now: float) -> list[Output]:
        """One message; unknown ones are counted and ignored. `process`: `sender`, if it has introduced itself."""
        standing = self._standing
        ownership = standing.ownership
        if not is_text(sender):
            # libzmq's own names for anonymous clients: they may ask, but cannot be written down.
            standing.counters["ignored_messages"] += 1
        elif isinstance(message, Hello):
            return self._hello(sender, message, now)
        elif isinstance(message, LanHeard):
            ownership.hear_lan(message.frame, now)
        elif isinstance(message, LanSaid):
            ownership.tenure.on_lan(message.count, now)
            return ownership.grant(now)
        elif isinstance(message, Yielded) and process is not None:
            ownership.yielded(sender)
        elif sender == DRIVER_ID:
            return standing.checkpoints.driver_heard(message, standing.compares(), now)
        elif isinstance(message, SetRules):
            return self._learn_rules(process, message)
        elif isinstance(message, Report | CheckpointWanted | Flushed):
            return self._work(sender, process, message, now)
        elif isinstance(message, Moving) and process is not None and standing.primary:
            return self._scaling.hear(sender, message, now)
        else:
            standing.counters["ignored_messages"] += 1
        return []

    # -- introductions --------------------------------------------------------------------------

    def _hello(self, sender: str, hello: Hello, now: float) -> list[Output]:
        standing = self._standing
        if not proper(hello):
            standing.counters["hellos_refused"] += 1
            return self._once("hello.refused", why="a role, an id or an address of that length is none")
        process, fresh, restarted = standing.registry.hello(sender, hello, now)
        if process is None:
            standing.counters["processes_refused"] += 1
            return self._once("process.refused", why=f"there are {MAX_PROCESSES} processes")
        if hello.fence:
            tenure = standing.ownership.tenure
            tenure.learn(hello.fence, promoted=hello.promoted, leased=hello.leased, now=now)
            if process.role == "compare":
                self._modes.learn(hello.mode)
        outputs = self._greet(process, now, promoted=hello.promoted)
        outputs += self._noted(process, fresh=fresh, restarted=restarted)
        if process.role == "compare":
            outputs += self._worker_came(sender, now) if restarted else []
            outputs += self._scaling.follow(now)
        return outputs + self._mirrors_came(process, hello, now, restarted=restarted)

    def _greet(self, process: Process, now: float, *, promoted: bool) -> list[Output]:
        """Tell a process that has just come all that it must know."""
        standing, sender, role = self._standing, process.id, process.role
        table = standing.table
        outputs: list[Output] = [Tell(standing.welcome(), sender)]
        outputs += standing.ownership.welcome(sender, role, now, promoted=promoted)
        if role == "rewriter":
            outputs.append(Tell(SetMode(standing.hasty.mode(standing.mode)), sender))
        if table.version and role in _SPLITTERS:
            outputs.append(Tell(table, sender))
        if role == "compare" and standing.rules is not None:
            outputs.append(Tell(standing.rules, sender))
        if role == "compare" and table.version:
            # It has nothing yet, and nobody will hand it what was on its way before it came.
            outputs.append(Tell(replace(table, givers=[], moved=[]), sender))
        return outputs

    def _noted(self, process: Process, *, fresh: bool, restarted: bool) -> list[Output]:
        """Count and log that a process has joined, was restarted, or has the same name as another one."""
        counters = self._standing.counters
        named = {"role": process.role, "id": process.id}
        outputs: list[Output] = []
        if fresh or restarted:
            counters["hellos"] += 1
            event = "process.restarted" if restarted else "process.joined"
            outputs.append(Log("info", event, {**named, "pid": process.pid}))
        if restarted and process.twice:
            counters["ids_twice"] += 1
            other, pid = process.former[-1]
            both = {"pid": process.pid, "incarnation": process.incarnation, "lost_pid": pid, "lost_incarnation": other}
            outputs.append(Log("warning", "process.twice", {**named, **both}))
        return outputs

    def _worker_came(self, worker: str, now: float) -> list[Output]:
        """A compare was restarted: what the one before it held is gone."""
        standing = self._standing
        standing.counters["workers_restarted"] += 1
        outputs = self._scaling.gone(worker)
        standing.checkpoints.restarted(worker)
        if standing.primary and standing.checkpoints.driver.copies_state:
            # Its positions are gone; equal guests give it a sure start.
            wish = CheckpointWanted(Reason.WORKER_LOST, source=worker, epoch=standing.checkpoints.epoch)
            outputs += self._wishes.want(wish, worker, now)
        return outputs

    def _mirrors_came(self, process: Process, hello: Hello, now: float, *, restarted: bool) -> list[Output]:
        """Mirrors that came in the place of others. What the one before had not delivered is lost, so a checkpoint is
        wanted. The receiver of the mirror link says so too, unless it died together with the mirror.
        """
        standing = self._standing
        mirrors = standing.registry.successors(hello, standing.incarnation)
        if process.role == "mirror" and restarted and process not in mirrors:
            mirrors.append(process)
        outputs: list[Output] = []
        for mirror in mirrors if standing.primary else ():
            wish = CheckpointWanted(Reason.MIRROR_GAP, detail={"restarted": mirror.id}, source=mirror.id)
            outputs += self._wishes.want(wish, mirror.id, now)
        return outputs

    # -- what processes say of their work -------------------------------------------------------

    def _work(
        self, sender: str, process: Process | None, message: Report | CheckpointWanted | Flushed, now: float
    ) -> list[Output]:
        standing = self._standing
        outputs: list[Output] = []
        if process is None:
            # An earlier frame welcomed it; another incarnation in Welcome makes it say Hello again.
            standing.counters["unknown_senders"] += 1
            outputs.append(Tell(standing.welcome(), sender))
        elif process.lost:
            process.lost = False
            outputs.append(Log("info", "process.returned", {"role": process.role, "id": sender}))
            outputs += self._scaling.follow(now)
        if isinstance(message, Report):
            return outputs + (self._report(process, message, now) if process is not None else [])
        if isinstance(message, CheckpointWanted):
            by_epoch = message.reason != Reason.MIRROR_GAP and (process is None or process.role == "compare")
            return outputs + self._wishes.want(message, sender, now, by_epoch=by_epoch)
        standing.checkpoints.flushed(sender, message)
        return outputs

    def _report(self, process: Process, report: Report, now: float) -> list[Output]:
        standing = self._standing
        outputs: list[Output] = []
        try:
            gone = standing.registry.keep(process, report, now)
        except TooMuchError as error:
            standing.counters[f"reports_refused.{error.reason}"] += 1
            return self._once("report.refused", why=str(error), id=process.id, reason=error.reason)
        if gone:
            standing.counters["reports_forgotten"] += len(gone)
            outputs += self._once("reports.forgotten", process=gone[0].id, why="all reports together are too large")
        standing.hasty.learn(process, report)
        outputs += standing.hasty.correct(process, report, standing.mode)
        if not standing.primary:
            return outputs
        # A frame that was restarted learns from the others how far it had counted.
        if process.role == "compare":
            standing.checkpoints.learn(report.gauges.get("epoch", 0))
        version = report.gauges.get("table_version", 0)
        # A table takes milliseconds to make; it is needed only by a frame that knows less than others.
        newer = version > standing.table.version
        table = named_table(version, report.status.get("workers")) if newer else None
        outputs += self._scaling.learn(now, version, table)
        return outputs + (self._scaling.follow(now) if process.role == "compare" else [])

    def _learn_rules(self, process: Process | None, message: SetRules) -> list[Output]:
        """A compare tells a restarted frame what the one before had said."""
        if self._standing.rules is not None or process is None:
            return []
        why = "" if process.role == "compare" else f"a {process.role} has no rules"
        try:
            parse_rules(message.rules)
        except ConfigError as error:
            why = str(error)[:200]
        if why:
            self._standing.counters["rules_refused"] += 1
            return self._once("rules.refused", why=why, id=process.id)
        return self._modes.set_rules(message.rules, f"learnt from {process.id}")

    def _once(self, event: str, **fields: Any) -> list[Output]:
        """A warning about something that may repeat very often: the counters know how often."""
        key = event + str(fields.get("id", ""))
        if key in self._said or len(self._said) >= MAX_PROCESSES:
            return []
        self._said.add(key)
        return [Log("warning", event, fields)]
