"""A campaign: the demo pair, four kinds of load, one fault at a time, and what the checker says.

::

    client-download  --+
    client-upload    --+--> the pair <-- nemesis: kill, restart, pause, cut one container
    client-http      --+       |
    client-rr        --+       +--> counters of both hosts, before and after --> invariants
"""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from chaos.checker import TRANSFERS, Trial, Verdict, judge
from chaos.nemesis import FAULTS, Strike
from colo_lab.statuspoll import entries
from containers.engine import EngineError, Project, answer
from judging import Judge

FILTERS: Final = ("m0", "redire1", "compare", "redire0", "f1", "rew0", "f2")
SERVICES: Final = ("netdev", "frame", *FILTERS, "netdev-s", "frame-s")
"""All processes of the proxy. Guests are not among them, because killing a guest ends its connections."""
FILES: Final = ("demo.yaml", "chaos.yaml")
SECONDS: Final = 5.0
"""The shortest duration of a transfer, in seconds."""
RATE: Final = 12_000_000
"""Bytes per second of each transfer at most, so that on an idle machine it does not end before the fault."""
LIMIT: Final = 180.0
"""Seconds after which a transfer is abandoned."""


class Load:
    """A client program that runs in its container, and reports when it has begun."""

    def __init__(self, project: Project, job: str, *argv: str, service: str = "") -> None:
        self.job = job
        self.begun = threading.Event()
        self.over = threading.Event()
        self.out = ""
        program = ["python3", "-m", "colo_lab.programs.client", job, "--announce", "--timeout", "120", *argv]
        self._process = subprocess.Popen(
            ["docker", "exec", project.container(service or f"client-{job}").id, *program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.out += line
            self.begun.set()
        self._process.wait()
        self.begun.set()
        self.over.set()

    @property
    def running(self) -> bool:
        """True when it has begun and has not ended."""
        return self.begun.is_set() and not self.over.is_set()

    def result(self, timeout: float) -> dict[str, Any]:
        """Its last line; `no answer` when it has not ended in time."""
        if not self.over.wait(max(0.0, timeout)):
            return {"wrong": f"no answer within {LIMIT:g} s"}
        return answer(self.out)

    def close(self) -> None:
        """Stop waiting for it."""
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Campaign:
    """One pair, many trials."""

    def __init__(self, project: Project, say: Callable[[str], None] = lambda _: None) -> None:
        self.project = project
        self.say = say
        self._judge = Judge([])

    def start(self) -> None:
        """Bring the pair up, and check that it works before any fault."""
        self.project.up()
        self.project.await_healthy()
        self.project.await_ready()
        for load in list(self._loads(1.0)):
            try:
                found = load.result(LIMIT)
            finally:
                load.close()
            if found.get("wrong", 1):
                raise EngineError(f"{load.job} before any fault: {found}")
        self._judge = Judge(self._processes())

    def _loads(self, seconds: float) -> Iterator[Load]:
        """The four clients, the transfers last: on a busy machine a program takes seconds to start, and what lasts
        longest must not be over before all are under way.
        """
        transfer = (f"--size={int(RATE * seconds)}", f"--rate={RATE}")
        for pair in (("http", "rr"), ("upload", "download")):
            started = []
            for job in pair:
                options = transfer if job in TRANSFERS else (f"--seconds={seconds * 2}",)
                started.append(Load(self.project, job, *options))
                yield started[-1]
            for load in started:
                load.begun.wait(60)

    def trial(self, strike: Strike) -> tuple[Trial, Verdict]:
        """One fault under load, and its verdict."""
        loads: list[Load] = []
        note, overlapped = "", {}
        try:
            target = self.project.container(strike.service)
            loads.extend(self._loads(SECONDS))
            time.sleep(strike.delay)
            overlapped = {load.job: load.running for load in loads}
            before = time.monotonic()
            try:
                FAULTS[strike.fault](self.project, target)
            except EngineError as error:
                # The engine cannot do it now (a busy one cannot freeze a container), so the trial has no result.
                note = str(error)[-200:]
            took = time.monotonic() - before
            deadline = time.monotonic() + LIMIT
            clients = {load.job: load.result(deadline - time.monotonic()) for load in loads}
        finally:
            for load in loads:
                load.close()
        recovered, violated = True, {}
        try:
            self.project.await_ready(timeout=60)
            violated = self._judge.look(self._processes())
        except (EngineError, subprocess.TimeoutExpired) as error:
            recovered, note = False, f"{note} {str(error)[-300:]}".strip()
        trial = Trial(
            strike.service, strike.fault, strike.seed, clients, overlapped, violated, recovered=recovered, note=note
        )
        verdict = judge(trial)
        stalls = " ".join(f"{job} {seconds:.2f}" for job, seconds in verdict.stalls.items())
        self.say(
            f"{strike.service:<9} {strike.fault:<8} {verdict.verdict:<8} fault {took:.1f} s, stalls {stalls}, "
            f"{self._judge.uncompared} frames uncompared" + (f"   {verdict.why}" if verdict.why else "")
        )
        return trial, verdict

    # -- counters -------------------------------------------------------------------------------

    def _processes(self) -> list[dict[str, Any]]:
        found = []
        for frame, host in (("frame", "host-p"), ("frame-s", "host-s")):
            found += [{**one, "host": host} for one in entries(self.project.status(frame))]
        return found
