"""A pair in the lab under load, with two faults at a time.

::

    downloads, uploads, requests, datagrams, IPv4 and IPv6 --> the pair <-- nemesis: two faults
                                                                 |
                         a probe connection that is compared  <--+--> counters of both hosts --> invariants

After each pair of faults the pair must be protected again: every process is ready, the primary is in `enforce` with its
secondary, and new connections are compared. Connections that were open during the faults must continue without a wrong
byte or a reset. With the driver `flush`, which copies nothing, those that missed something stay unprotected, which is
allowed and counted.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from colo_lab.config import LabConfig
from colo_lab.statuspoll import entries
from colo_proto.topology import Wiring
from faults.nemesis import Nemesis, sockets
from faults.plan import Fault, plan
from judging import Judge
from pairlab import Lab

PROGRAM = (sys.executable, "-P", "-m", "colo_lab.programs.")
RATE = 2_000_000
JOBS = (
    ("download", f"--size={RATE * 15}", f"--rate={RATE}"),
    ("download", f"--size={RATE * 15}", f"--rate={RATE}", "-6"),
    ("upload", f"--size={RATE * 15}", f"--rate={RATE}"),
    ("http", "--seconds=10"),
    ("rr", "--seconds=15"),
    ("udp", "--count=3000", "--window=2"),
)
"""Clients that run all the time; one that has ended is started again."""
BOUND = 5.0
"""Seconds after the last fault until the pair must be protected again."""
PROTECTED_WITHIN = 60.0
"""Seconds after which the campaign stops waiting for that."""


@dataclass
class Round:
    """The result of one pair of faults."""

    number: int
    faults: tuple[Fault, Fault]
    protected_after: float | None = None
    """Seconds from the end of the last fault until the pair was protected again."""
    waited_for: str = ""
    violated: dict[str, str] = field(default_factory=dict)
    uncompared: int = 0

    def __str__(self) -> str:
        after = "never" if self.protected_after is None else f"{self.protected_after:.1f} s"
        text = f"{self.number:4} {self.faults[0]} + {self.faults[1]}: protected after {after}"
        if self.waited_for:
            text += f" (waited longest for {self.waited_for})"
        return text + "".join(f"; {name} VIOLATED: {why}" for name, why in self.violated.items())


class Load:
    """One client program after another, each checked."""

    def __init__(self, campaign: "Campaign", job: Sequence[str]) -> None:
        self.campaign = campaign
        self.job = job
        self.process: subprocess.Popen[bytes] | None = None
        self.out: IO[bytes] | None = None
        self.done: list[dict[str, Any]] = []

    def step(self, *, again: bool = True) -> None:
        """If the program has ended, read its result and start the next one."""
        if self.process is not None and self.process.poll() is not None:
            assert self.out is not None
            self.out.seek(0)
            text = self.out.read().decode(errors="replace").strip()
            self.out.close()
            try:
                result = json.loads(text.rpartition("\n")[2])
            except json.JSONDecodeError:
                result = {"wrong": f"status {self.process.returncode}: {text[-300:]}"}
            self.done.append(result)
            if result.get("wrong", 1):
                self.campaign.say(f"WRONG {' '.join(self.job)}: {json.dumps(result)}")
            self.process = None
        if self.process is None and again:
            self.out = tempfile.TemporaryFile()  # noqa: SIM115 - closed once the program is over
            argv = [*PROGRAM[:-1], PROGRAM[-1] + "client", *self.job, "--timeout=120"]
            self.process = self.campaign.lab.popen(
                "client", argv, stdout=self.out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )


class Campaign:
    """`run` carries out everything; afterwards `rounds` and `loads` contain the results."""

    def __init__(
        self, seed: int, pairs: int, wiring: Wiring = "faithful", *, say: Callable[[str], None] = print, logs: str = ""
    ) -> None:
        self.seed = seed
        self.pairs = pairs
        self.say = say
        self.rounds: list[Round] = []
        extra = {"frame": {"resync": "auto"}}
        self.lab = Lab(
            LabConfig(
                guest=f"exec {' '.join(PROGRAM)}server", wiring=wiring, workers=2, curve=True, watch_lan=True,
                start_timeout=90, extra=extra, logs=logs,
            )
        )  # fmt: skip
        self.loads = [Load(self, job) for job in JOBS]

    def run(self) -> None:
        """Bring the pair up, carry out the faults, and take it down."""
        with self.lab:
            namespaces, watch = self.lab.namespaces, self.lab.statuses
            nemesis = Nemesis(self.lab, namespaces)
            names = [
                one.id for one in self.lab.supervisor.children.values() if one.role not in ("guest", "watch", "client")
            ]
            self.names = names
            ports = ["9003@host-p", "9004@host-s", "9005@host-p"]
            self._watch = watch
            self._await_protected("before any fault")
            self._judge = Judge(self._processes())
            for number, faults in enumerate(plan(self.seed, self.pairs, names, ports, sockets(self.lab)), 1):
                self._round(number, faults, nemesis)
            self._finish()
            self.lan = self.lab.lan()

    def verdict(self) -> list[str]:
        """What is wrong; empty when everything held."""
        found = []
        for one in self.rounds:
            if one.protected_after is None or one.protected_after > BOUND:
                found.append(str(one))
            found += [f"{one.number}: {name} violated: {why}" for name, why in one.violated.items()]
        for load in self.loads:
            found += [f"{' '.join(load.job)}: {one}" for one in load.done if one.get("wrong", 1)]
            if not load.done:
                found.append(f"{' '.join(load.job)}: never finished")
        if self.lan is not None and self.lan["late"]:
            found.append(f"S5 violated: {self.lan['late']} frames on the LAN from a port that had been left")
        return found

    def summary(self) -> str:
        """A summary in numbers."""
        times = sorted(one.protected_after for one in self.rounds if one.protected_after is not None)
        kinds = Counter(fault.kind for one in self.rounds for fault in one.faults)
        clients = sum(len(load.done) for load in self.loads)
        middle, most = (times[len(times) // 2], times[-1]) if times else (0.0, 0.0)
        stall = max((one.get("longest_stall", 0.0) for load in self.loads for one in load.done), default=0.0)
        return (
            f"{sum(kinds.values())} faults ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}), "
            f"{clients} client runs, protected again after {middle:.1f} s median, {most:.1f} s at most, "
            f"longest stall of a client {stall:.1f} s, {sum(one.uncompared for one in self.rounds)} frames uncompared"
        )

    # -- one round ------------------------------------------------------------------------------

    def _round(self, number: int, faults: tuple[Fault, Fault], nemesis: Nemesis) -> None:
        one = Round(number, faults)
        self.rounds.append(one)
        began = time.monotonic()
        todo: list[tuple[float, Callable[[], Any]]] = []
        for fault in faults:
            todo.append((began + fault.delay, lambda fault=fault: self._strike(fault, nemesis, todo)))
        while todo:
            todo.sort(key=lambda item: item[0])
            at, action = todo[0]
            if time.monotonic() >= at:
                todo.pop(0)
                action()
            else:
                self._step(min(0.05, at - time.monotonic()))
        ended = time.monotonic()
        waited = self._await_protected(f"round {number}")
        if waited is not None:
            one.waited_for = waited
            one.protected_after = time.monotonic() - ended
        self._await_reports(time.monotonic())
        one.violated = self._judge.look(self._processes())
        one.uncompared = self._judge.uncompared
        self.say(str(one))

    def _await_reports(self, moment: float) -> None:
        """Wait until every process has reported since `moment`, because counters of different times contradict each
        other.
        """
        deadline = time.monotonic() + BOUND
        while time.monotonic() < deadline:
            self._watch.poll()
            if all(one["report_age_ms"] / 1000 < time.monotonic() - moment for one in self._processes()):
                return
            self._step(0.05)

    def _strike(self, fault: Fault, nemesis: Nemesis, todo: list[tuple[float, Callable[[], Any]]]) -> None:
        undo = nemesis.strike(fault)
        if undo is not None:
            todo.append((time.monotonic() + fault.seconds, undo))

    def _step(self, seconds: float) -> None:
        for load in self.loads:
            load.step()
        self.lab.supervisor.step(max(0.0, seconds))

    def _finish(self) -> None:
        """Let the clients end by themselves."""
        deadline = time.monotonic() + 150
        while any(load.process for load in self.loads) and time.monotonic() < deadline:
            for load in self.loads:
                load.step(again=False)
            self.lab.supervisor.step(0.1)
        for load in self.loads:
            if load.process is not None:
                load.done.append({"wrong": "not over in time"})
                load.process.kill()
                load.process.wait()

    # -- protected? -----------------------------------------------------------------------------

    def _await_protected(self, when: str) -> str | None:
        """Wait until the pair is protected. Returns what it waited for last (empty if nothing), or None when it never
        was.
        """
        deadline = time.monotonic() + PROTECTED_WITHIN
        last = ""
        while True:
            missing = self._unprotected()
            if not missing:
                return last
            last = missing
            if time.monotonic() > deadline:
                self.say(f"{when}: never protected, waiting for {missing}")
                return None
            self._step(0.05)

    def _unprotected(self) -> str:
        """What keeps the pair from being protected now; empty when nothing does."""
        waiting = self._watch.not_ready(set(self.names)) or self._unheard()
        if waiting:
            return ", ".join(waiting)
        primary, secondary = (self._watch.bodies.get(side, {}) for side in ("primary", "secondary"))
        states = tuple(body.get("leadership", {}).get("state") for body in (primary, secondary))
        if states != ("holding", "standby") or primary.get("mode") != "enforce":
            return f"frames {states}, mode {primary.get('mode')}"
        return self._probe()

    def _unheard(self) -> list[str]:
        """Processes that do not run or have not reported since their start; only old reports of them are known."""
        ages = {one["id"]: one["report_age_ms"] / 1000 for one in self._processes()}
        now = time.monotonic()
        children = [self.lab.supervisor.children[name] for name in self.names]
        return [one.id for one in children if not one.running or ages.get(one.id, now) > now - one.started]

    def _probe(self) -> str:
        """New connections, enough for every compare worker to have some."""
        before = self._compared()
        argv = [*PROGRAM[:-1], PROGRAM[-1] + "client", "http", "--count=6", "--timeout=2"]
        probe = self.lab.popen(
            "client", argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        while probe.poll() is None:
            self._step(0.02)
        if probe.returncode:
            return "answers to new connections"
        # Other connections change the counters as well, so the probe cannot be told apart; but without a secondary
        # nothing at all is compared.
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            self._watch.poll()
            for name, size in self._compared().items():
                if size > before.get(name, 0):
                    return ""
                # A process that was restarted counts from zero.
                before[name] = size
            self._step(0.05)
        return "anything to be compared"

    def _compared(self) -> dict[str, int]:
        """Bytes found equal, by compare."""
        compares = [one for one in self._processes() if one["role"] == "compare"]
        return {one["id"]: one["counters"].get("bytes_compared", 0) for one in compares}

    def _processes(self) -> list[dict[str, Any]]:
        found = []
        for side in ("primary", "secondary"):
            found += [{**one, "host": f"host-{side[0]}"} for one in entries(self._watch.bodies.get(side, {}))]
        return [one for one in found if isinstance(one.get("counters"), dict) and one.get("report_age_ms") is not None]
