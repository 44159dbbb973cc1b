"""The processes of this host, as they introduced themselves and reported."""

from dataclasses import dataclass, field
from typing import Any, Final

from colo_frame.bounds import MAX_DEPTH, MAX_KEPT, MAX_REPORT, weigh
from colo_proto.messages import Hello, Report

EVERYBODY: Final = "*"
"""The name under which every process of this host is told something."""
MAX_PROCESSES = 1024
MAX_FORMER = 8
FORGET_AFTER = 600.0
"""Seconds of silence after which a lost process leaves the status too."""


@dataclass(slots=True)
class Process:
    """One process, named by its routing id."""

    id: str
    role: str
    incarnation: int
    seen: float
    pid: int = 0
    http: str = ""
    lost: bool = False
    restarts: int = 0
    report: Report | None = None
    reported: float = 0.0
    weight: int = 0
    """The weight of the report that is kept."""
    linked: bool = False
    """A compare whose last report says that the processes which share frames out can reach it."""
    leased: bool = False
    """Its last report says that it can write to the client LAN, with a lease."""
    former: list[tuple[int, int]] = field(default_factory=list)
    """Incarnation and process id of the processes that had this name before, the latest one last."""
    unknown: bool = False
    """No frame had welcomed it before it came here, and it has not been checked yet whether it replaced another one."""
    twice: bool = False
    """A process that another one had replaced is back, so two processes have this name."""
    gone: float | None = None
    """When its connection was found to have ended; None while there is one, as far as is known."""
    cut: dict[str, float] = field(default_factory=dict)
    """Ports with nobody at the other end, or without their tap, by its last report; since when each was reported so."""

    def replace(self, incarnation: int) -> None:
        """Another process has this name from now on."""
        self.twice = any(one == incarnation for one, _ in self.former)
        self.former = [*self.former[1 - MAX_FORMER :], (self.incarnation, self.pid)]
        self.restarts += 1
        self.linked = self.leased = False
        self.cut = {}

    def endpoint(self, port: str) -> str:
        """What its last report says is configured for a port; empty when it has no such port."""
        endpoints = self.report.status.get("endpoints") if self.report else None
        found = endpoints.get(port) if isinstance(endpoints, dict) else None
        return found if isinstance(found, str) else ""

    def note_links(self, report: Report, now: float) -> None:
        """Learn from a report which of its ports have nobody at the other end."""
        ends = [name.split(".") for name, n in report.gauges.items() if n == 0 and name.startswith("link.")]
        self.cut = {
            one[1]: self.cut.get(one[1], now) for one in ends if len(one) == 3 and one[2] in ("peers", "attached")
        }

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of it. Ages are milliseconds."""
        report = self.report
        return {
            **{name: getattr(self, name) for name in ("role", "id", "pid", "http", "incarnation")},
            "state": "lost" if self.lost else "gone" if self.gone is not None else "live",
            "restarts": self.restarts,
            "age_ms": int((now - self.seen) * 1000),
            "report_age_ms": int((now - self.reported) * 1000) if report else None,
            "counters": report.counters if report else {},
            "gauges": report.gauges if report else {},
            "status": report.status if report else {},
        }


@dataclass(slots=True)
class Registry:
    """All processes by routing id. A process is lost after `timeout` seconds of silence."""

    timeout: float
    processes: dict[str, Process] = field(default_factory=dict)
    weight: int = 0
    """The weight of all reports that are kept."""
    renewed: bool = False
    """There was a frame here before this one."""

    def seen(self, sender: str, now: float) -> Process | None:
        """`sender` said something. Returns its process, or None when it has not introduced itself."""
        process = self.processes.get(sender)
        if process is not None:
            process.seen, process.gone = now, None
        return process

    def unreachable(self, name: str, now: float) -> Process | None:
        """Nothing can be sent to a process: its connection has ended. Returns the process if that is news."""
        process = self.processes.get(name)
        if process is None or process.lost or process.gone is not None:
            return None
        process.gone = now
        return process

    def hello(self, sender: str, hello: Hello, now: float) -> tuple[Process | None, bool, bool]:
        """Note an introduction. Returns the process (None when there are too many), whether it is new or back, and
        whether it was restarted.
        """
        process = self.processes.get(sender)
        if process is None:
            if len(self.processes) >= MAX_PROCESSES and not self._forget_lost():
                return None, False, False
            process = self.processes[sender] = Process(sender, hello.role, hello.incarnation, now)
            process.unknown = not hello.frame
            fresh, restarted = True, False
        else:
            fresh, restarted = process.lost, process.incarnation != hello.incarnation
        if restarted:
            process.replace(hello.incarnation)
            self.forget(process)
        process.role, process.incarnation = hello.role, hello.incarnation
        process.pid, process.http = hello.pid, hello.http
        process.seen, process.lost, process.gone = now, False, None
        return process, fresh, restarted

    def successors(self, hello: Hello, incarnation: int) -> list[Process]:
        """Mirrors that may have replaced others while there was no frame. Each of them is returned once.

        This frame was restarted if an earlier start of it, not the one with `incarnation`, has welcomed somebody.
        """
        self.renewed |= hello.frame not in {0, incarnation}
        found = [p for p in self.processes.values() if self.renewed and p.unknown and p.role == "mirror"]
        for process in found:
            process.unknown = False
        return found

    def _forget_lost(self) -> bool:
        """Forget the process that has been lost for the longest time. False when none is lost."""
        lost = min((p for p in self.processes.values() if p.lost), key=lambda p: p.seen, default=None)
        if lost is not None:
            self._remove(lost)
        return lost is not None

    def _remove(self, process: Process) -> None:
        self.forget(process)
        del self.processes[process.id]

    def keep(self, process: Process, report: Report, now: float) -> list[Process]:
        """Keep a report in place of the one before; `TooMuchError` when it is too large or too deep. Returns the
        processes whose reports were forgotten to make room, the heaviest first. This process may be one of them.
        """
        weight = sum(
            weigh(part, depth, MAX_REPORT)
            for part, depth in ((report.counters, 1), (report.gauges, 1), (report.status, MAX_DEPTH))
        )
        process.linked, process.leased = bool(report.gauges.get("linked")), "leased" in report.gauges
        process.note_links(report, now)
        self.forget(process)
        process.report, process.reported, process.weight = report, now, weight
        self.weight += weight
        forgotten = []
        while self.weight > MAX_KEPT:
            heaviest = max(self.processes.values(), key=lambda p: p.weight)
            self.forget(heaviest)
            forgotten.append(heaviest)
        return forgotten

    def forget(self, process: Process) -> None:
        """Do not keep its report any longer."""
        self.weight -= process.weight
        process.report, process.weight = None, 0

    def excuse(self, now: float) -> None:
        """Measure silence from `now` on, because before that nobody could be heard."""
        for process in self.processes.values():
            if not process.lost:
                process.seen = max(process.seen, now)

    def live(self, *roles: str) -> list[str]:
        """Ids of the processes of these roles that are not lost, in the order of the roles."""
        return [p.id for role in roles for p in self.processes.values() if p.role == role and not p.lost]

    def of(self, role: str) -> list[str]:
        """Ids of all processes of a role that are remembered."""
        return [p.id for p in self.processes.values() if p.role == role]

    def linked(self) -> set[str]:
        """Compares that have reported that the processes which share frames out can reach them."""
        return {p.id for p in self.processes.values() if p.role == "compare" and p.linked}

    def sweep(self, now: float) -> list[Process]:
        """The processes that have just become lost. Those that have been silent for very long are forgotten."""
        lost = []
        for process in list(self.processes.values()):
            # The same sum as in `deadline`: a difference may be rounded the other way, and the timer would never rest.
            if now < process.seen + (FORGET_AFTER if process.lost else self.timeout):
                continue
            if process.lost:
                self._remove(process)
            else:
                process.lost = True
                lost.append(process)
        return lost

    def deadline(self) -> float | None:
        """When `sweep` has something to do."""
        due = [p.seen + (FORGET_AFTER if p.lost else self.timeout) for p in self.processes.values()]
        return min(due, default=None)
