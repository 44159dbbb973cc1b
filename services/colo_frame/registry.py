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
    pid: int = field(init=False, default=0)
    http: str = field(init=False, default="")
    lost: bool = field(init=False, default=False)
    restarts: int = field(init=False, default=0)
    report: Report | None = field(init=False, default=None)
    reported: float = field(init=False, default=0.0)
    weight: int = field(init=False, default=0)
    """The weight of the report that is kept."""
    linked: bool = field(init=False, default=False)
    """A compare whose last report says that the processes which share frames out can reach it."""
    leased: bool = field(init=False, default=False)
    """Its last report says that it can write to the client LAN, with a permission."""
    former: list[tuple[int, int]] = field(init=False, default_factory=list)
    """Incarnation and process id of the processes that had this name before, the latest one last."""
    unknown: bool = field(init=False, default=False)
    """No frame had welcomed it before it came here, and nobody has looked yet whether it came in the place of another.
    """
    twice: bool = field(init=False, default=False)
    """A process that another one had replaced is back, so two processes have this name."""

    def replace(self, incarnation: int) -> None:
        """Another process has this name from now on."""
        self.twice = any(one == incarnation for one, _ in self.former)
        self.former = [*self.former[1 - MAX_FORMER :], (self.incarnation, self.pid)]

    def status(self, now: float) -> dict[str, Any]:
        """What `colo status` shows of it. Ages are milliseconds."""
        report = self.report
        return {
            "role": self.role,
            "id": self.id,
            "pid": self.pid,
            "http": self.http,
            "incarnation": self.incarnation,
            "state": "lost" if self.lost else "live",
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
            process.seen = now
        return process

    def hello(self, sender: str, hello: Hello, now: float) -> tuple[Process | None, bool, bool]:
        """Note an introduction. Returns the process (None when there are too many), whether it is new or back, and
        whether it was restarted.
        """
        process = self.processes.get(sender)
        if process is None:
            if len(self.processes) >= MAX_PROCESSES and not self._make_room():
                return None, False, False
            process = self.processes[sender] = Process(sender, hello.role, hello.incarnation, now)
            process.unknown = not hello.frame
            fresh, restarted = True, False
        else:
            restarted = process.incarnation != hello.incarnation
            fresh = process.lost
        if restarted:
            process.replace(hello.incarnation)
            process.restarts += 1
            process.linked = process.leased = False
            self.forget(process)
        process.role, process.incarnation = hello.role, hello.incarnation
        process.pid, process.http = hello.pid, hello.http
        process.seen, process.lost = now, False
        return process, fresh, restarted

    def successors(self, hello: Hello, incarnation: int) -> list[Process]:
        """Mirrors that may have come in the place of others while there was no frame. Each of them is named once.

        This frame was restarted if another start of it, not the one with `incarnation`, has welcomed somebody.
        """
        self.renewed |= hello.frame not in {0, incarnation}
        found = [p for p in self.processes.values() if self.renewed and p.unknown and p.role == "mirror"]
        for process in found:
            process.unknown = False
        return found

    def _make_room(self) -> bool:
        lost = min((p for p in self.processes.values() if p.lost), key=lambda p: p.seen, default=None)
        if lost is not None:
            self.forget(lost)
            del self.processes[lost.id]
        return lost is not None

    def keep(self, process: Process, report: Report, now: float) -> list[Process]:
        """Keep a report in place of the one before; `TooMuchError` when it is too large or too deep. Returns the
        processes whose reports had to go to make room, the heaviest first. This process may be one of them.
        """
        weight = sum(
            weigh(part, depth, MAX_REPORT)
            for part, depth in ((report.counters, 1), (report.gauges, 1), (report.status, MAX_DEPTH))
        )
        process.linked, process.leased = bool(report.gauges.get("linked")), "leased" in report.gauges
        self.forget(process)
        process.report, process.reported, process.weight = report, now, weight
        self.weight += weight
        gone = []
        while self.weight > MAX_KEPT:
            heaviest = max(self.processes.values(), key=lambda p: p.weight)
            self.forget(heaviest)
            gone.append(heaviest)
        return gone

    def forget(self, process: Process) -> None:
        """Do not keep its report any longer."""
        self.weight -= process.weight
        process.report, process.weight = None, 0

    def excuse(self, now: float) -> None:
        """Count silence from now on: for a while nobody could be heard."""
        for process in self.processes.values():
            if not process.lost:
                process.seen = max(process.seen, now)

    def live(self, role: str) -> list[str]:
        """Ids of the processes of `role` that are not lost."""
        return [p.id for p in self.processes.values() if p.role == role and not p.lost]

    def linked(self) -> set[str]:
        """Compares that have reported that the processes which share frames out can reach them."""
        return {p.id for p in self.processes.values() if p.role == "compare" and p.linked}

    def sweep(self, now: float) -> list[Process]:
        """The processes that have just become lost. Those that have been silent for very long are forgotten."""
        lost = []
        for process in list(self.processes.values()):
            # The same sum as in `deadline`: a difference may round the other way, and then it would be due for ever.
            if not process.lost and now >= process.seen + self.timeout:
                process.lost = True
                lost.append(process)
            elif process.lost and now >= process.seen + FORGET_AFTER:
                self.forget(process)
                del self.processes[process.id]
        return lost

    def deadline(self) -> float | None:
        """When `sweep` has something to do."""
        due = [p.seen + (FORGET_AFTER if p.lost else self.timeout) for p in self.processes.values()]
        return min(due, default=None)
