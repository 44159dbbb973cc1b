"""What is heard from the processes of this host: introductions, reports, requests for checkpoints, and claims.

A process introduces itself with Hello and is told all that it must know. A frame that was restarted learns from the
introductions and reports how far the one before it had counted, which table is in use, and which rules were given.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from colo_frame.bounds import TooMuchError, has_valid_names, is_text
from colo_frame.drivers import DRIVER_ID
from colo_frame.peer import PEER
from colo_frame.registry import MAX_PROCESSES, Process
from colo_frame.scaling import HandoverMessage, Scaling
from colo_frame.side import Side
from colo_frame.table import named_table
from colo_proto.core import Log
from colo_proto.errors import ConfigError
from colo_proto.messages import (
    MAX_ASK,
    CheckpointWanted,
    Flushed,
    Hello,
    LanAsk,
    LanHeard,
    LanSaid,
    Message,
    Reason,
    Report,
    SetMode,
    SetRules,
    Unprotected,
    Yielded,
)
from colo_proto.rules import parse_rules

_SPLITTERS = frozenset({"redirector", "rewriter"})
"""Roles that share frames out to compares."""


@dataclass
class Host:
    """See the module."""

    _side: Side
    _scaling: Scaling
    _logged: set[str] = field(default_factory=set)
    """What was logged once and is not logged again."""

    def hear(self, sender: str, process: Process | None, message: Message, now: float) -> None:
        """Take one message; unknown ones are counted and ignored. `process` is None if `sender` has not introduced
        itself.
        """
        side, ownership = self._side, self._side.ownership
        if not is_text(sender):
            # libzmq makes up such names for anonymous clients: these may ask, but their names cannot be written down.
            side.counters["ignored_messages"] += 1
        elif isinstance(message, Hello):
            self._hello(sender, message, now)
        elif isinstance(message, LanHeard):
            ownership.hear_lan(message.frame, now)
        elif isinstance(message, LanAsk) and process is not None and process.role == "rewriter" and not side.primary:
            if len(message.frame) <= MAX_ASK:
                side.out.tell(message, PEER)
        elif isinstance(message, LanSaid):
            ownership.leadership.claim_sent(message.count, now)
            ownership.grant(now)
        elif isinstance(message, Yielded) and process is not None:
            ownership.yielded(sender)
        elif sender == DRIVER_ID:
            side.out += side.checkpoints.driver_heard(message, side.compares(), now)
        elif isinstance(message, SetRules):
            self._learn_rules(process, message)
        elif isinstance(message, Report | CheckpointWanted | Flushed):
            self._work(sender, process, message, now)
        elif isinstance(message, Unprotected) and process is not None and side.primary:
            if not side.unprotected.from_compare(process, message, now):
                side.counters["ignored_messages"] += 1
        elif isinstance(message, HandoverMessage) and process is not None and side.primary:
            self._scaling.hear(sender, message, now)
        else:
            side.counters["ignored_messages"] += 1

    # -- introductions --------------------------------------------------------------------------

    def _hello(self, sender: str, hello: Hello, now: float) -> None:
        side = self._side
        if not has_valid_names(hello):
            side.counters["hellos_refused"] += 1
            self._once("hello.refused", why="its role, id or address is too long")
            return
        process, fresh, restarted = side.registry.hello(sender, hello, now)
        if process is None:
            side.counters["processes_refused"] += 1
            self._once("process.refused", why=f"there are {MAX_PROCESSES} processes")
            return
        if hello.fence:
            leadership = side.ownership.leadership
            leadership.restore(hello.fence, promoted=hello.promoted, leased=hello.leased, now=now)
            if process.role == "compare":
                side.modes.restore(hello.mode)
        self._greet(process, now, promoted=hello.promoted)
        if fresh or restarted:
            self._introduced(process, restarted=restarted)
        if process.role == "compare":
            if restarted:
                self._worker_restarted(sender, now)
            self._scaling.follow(now)
        self._mirrors_came(process, hello, now, restarted=restarted)

    def _greet(self, process: Process, now: float, *, promoted: bool) -> None:
        """Tell a process that has just come all that it must know."""
        side, role, table = self._side, process.role, self._side.table

        def tell(message: Message) -> None:
            side.out.tell(message, process.id)

        tell(side.welcome())
        side.ownership.welcome(process.id, role, now, promoted=promoted)
        if role == "rewriter":
            tell(SetMode(side.modes.for_rewriters))
        if table.version and role in _SPLITTERS:
            tell(table)
        if role == "compare" and side.modes.rules is not None:
            tell(side.modes.rules)
        if role == "compare" and table.version:
            # It has no flows yet, and nobody will hand over to it what was under way before it came.
            tell(replace(table, sources=[], moved=[]))

    def _introduced(self, process: Process, *, restarted: bool) -> None:
        """Count and log that a process has joined, was restarted, or has the same name as another one."""
        side, role, name, pid = self._side, process.role, process.id, process.pid
        side.counters["hellos"] += 1
        side.out.log("info", "process.restarted" if restarted else "process.joined", role=role, id=name, pid=pid)
        if restarted and process.twice:
            side.counters["ids_twice"] += 1
            lost, lost_pid = process.former[-1]
            side.out.log(
                "warning", "process.twice", role=role, id=name, pid=pid, incarnation=process.incarnation,
                lost_pid=lost_pid, lost_incarnation=lost,
            )  # fmt: skip

    def _worker_restarted(self, worker: str, now: float) -> None:
        """A compare was restarted: what the one before it held is gone."""
        side = self._side
        side.counters["workers_restarted"] += 1
        self._scaling.gone(worker)
        side.checkpoints.restarted(worker)
        if side.primary and side.checkpoints.driver.copies_state:
            # It does not know the positions of its flows; with equal guests it can begin anew.
            request = CheckpointWanted(Reason.WORKER_LOST, source=worker, epoch=side.checkpoints.epoch)
            side.requests.add(request, worker, now)

    def _mirrors_came(self, process: Process, hello: Hello, now: float, *, restarted: bool) -> None:
        """Request a checkpoint for each mirror that has replaced another one: what the other one had not delivered is
        lost. The receiver of the mirror link requests one too, unless it died together with the mirror.
        """
        side = self._side
        mirrors = side.registry.successors(hello, side.incarnation)
        if process.role == "mirror" and restarted and process not in mirrors:
            mirrors.append(process)
        for mirror in mirrors if side.primary else ():
            request = CheckpointWanted(Reason.MIRROR_GAP, detail={"restarted": mirror.id}, source=mirror.id)
            side.requests.add(request, mirror.id, now)

    # -- what processes say of their work -------------------------------------------------------

    def _work(
        self, sender: str, process: Process | None, message: Report | CheckpointWanted | Flushed, now: float
    ) -> None:
        side = self._side
        if process is None:
            # An earlier frame welcomed it. Another incarnation in Welcome makes it say Hello again.
            side.counters["unknown_senders"] += 1
            side.out.tell(side.welcome(), sender)
        elif process.lost:
            process.lost = False
            side.out.log("info", "process.returned", role=process.role, id=sender)
            self._scaling.follow(now)
        if isinstance(message, CheckpointWanted):
            by_epoch = message.reason != Reason.MIRROR_GAP and (process is None or process.role == "compare")
            side.requests.add(message, sender, now, by_epoch=by_epoch)
        elif isinstance(message, Flushed):
            side.checkpoints.flushed(sender, message)
        elif process is not None:
            self._report(process, message, now)

    def _report(self, process: Process, report: Report, now: float) -> None:
        side = self._side
        try:
            forgotten = side.registry.keep(process, report, now)
        except TooMuchError as error:
            side.counters[f"reports_refused.{error.reason}"] += 1
            self._once("report.refused", why=str(error), id=process.id, reason=error.reason)
            return
        if forgotten:
            side.counters["reports_forgotten"] += len(forgotten)
            self._once("reports.forgotten", process=forgotten[0].id, why="all reports together are too large")
        side.modes.hear_report(process, report)
        side.ownership.hear_report(process, report, now)
        if not side.primary:
            return
        # A frame that was restarted learns from the others how far it had counted.
        if process.role == "compare":
            side.checkpoints.learn(report.gauges.get("epoch", 0))
        version = report.gauges.get("table_version", 0)
        # Making a table takes milliseconds, so make it only if this frame knows an older one.
        newer = version > side.table.version
        table = named_table(version, report.status.get("workers")) if newer else None
        self._scaling.learn(now, version, table)
        if process.role == "compare":
            self._scaling.follow(now)

    def _learn_rules(self, process: Process | None, message: SetRules) -> None:
        """A compare tells a restarted frame which rules the one before had given."""
        if self._side.modes.rules is not None or process is None:
            return
        why = "" if process.role == "compare" else f"a {process.role} has no rules"
        try:
            parse_rules(message.rules)
        except ConfigError as error:
            why = str(error)[:200]
        if why:
            self._side.counters["rules_refused"] += 1
            self._once("rules.refused", why=why, id=process.id)
        else:
            self._side.modes.set_rules(message.rules, f"learnt from {process.id}")

    def _once(self, event: str, **fields: Any) -> None:
        """Log a warning the first time only, because it may repeat very often. The counters show how often."""
        key = event + str(fields.get("id", ""))
        if key not in self._logged and len(self._logged) < MAX_PROCESSES:
            self._logged.add(key)
            self._side.out.append(Log("warning", event, fields))
