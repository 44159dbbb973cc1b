"""`Lab`: a whole pair on this machine, for the command line, for tests and for the demo.

::

    with Lab(LabConfig(guest="python3 server.py")) as lab:      brings everything up
        status = lab.run_client(["curl", ...], timeout=30)
        lab.fail("m0")                                          the supervisor restarts it
        print(lab.report()["compare"])
                                                                takes everything down; nothing is left behind
"""

import contextlib
import functools
import json
import operator
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self

from colo_lab import report
from colo_lab.children import Child
from colo_lab.circle import DIED, OTHER, PLANNED, Circle, leader
from colo_lab.cleanup import kill_inhabitants
from colo_lab.clientrun import ClientRun, Plan, cannot_run
from colo_lab.config import GUEST4, GUEST6, GUEST_MAC, LabConfig
from colo_lab.hosts import HOSTS, Hosts
from colo_lab.invariants import Facts
from colo_lab.launch import IMPAIR, LAN_FILE, LAN_WATCH, Launcher, client_environment, control, start_cleanup
from colo_lab.namespaces import GUEST_IF, Namespaces
from colo_lab.observed import Process, Usage
from colo_lab.statuspoll import StatusPoll
from colo_lab.supervisor import GRACE, LabError, Supervisor
from colo_proto.errors import ConfigError
from colo_proto.messages import Query
from colo_proto.topology import SIDES, Side
from colo_runtime.client import NoAnswerError, ask

CAPTURE_WITHIN: Final = 10.0
"""Seconds to wait until the capture on the LAN has written its file again."""
REST_WITHIN: Final = 3.0
"""Seconds to wait until counters stop changing before they are reported."""

OBSERVED_EVERY: Final = 0.1
"""Seconds between two looks at both COLO frames while a failover is under way."""


class Lab:
    """One lab. It must not be used by several threads, because namespaces and parents belong to a thread."""

    namespaces: Namespaces
    """From `up` on, as the next two."""
    statuses: StatusPoll
    launcher: Launcher
    hosts: Hosts

    def __init__(self, config: LabConfig) -> None:
        self.config = config
        self.directory = ""
        self.supervisor = Supervisor(restart=config.restart)
        self.exit_status: int | None = None
        self.seconds = 0.0
        self.failed_at: float | None = None
        """When the primary host died (monotonic seconds)."""
        self.circle = Circle()
        """The failovers of the symmetric wiring."""
        self._plans: list[Plan] = []
        self._cleanup: subprocess.Popen[bytes] | None = None
        self._undo = contextlib.ExitStack()

    # -- life ---------------------------------------------------------------------------------

    def up(self) -> None:
        """Bring everything up and wait until it is ready. If that fails, take everything down again and raise
        `LabError` or `ConfigError`. `colo_lab.privileges` says what this process must be permitted to do.
        """
        try:
            self._bring_up()
        except BaseException:
            self.down()
            raise

    def _bring_up(self) -> None:
        config, supervisor = self.config, self.supervisor
        # The cleanup process is dismissed last but one, so that a lab that is killed while it goes down leaves nothing.
        self._undo.callback(self._dismiss_cleanup)
        self.directory = _directory()
        self._undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
        namespaces = self.namespaces = Namespaces()
        self._undo.callback(namespaces.close)
        self._undo.callback(self._end_processes)
        self._cleanup = start_cleanup(self.directory, namespaces)
        namespaces.furnish(impaired=config.impaired)
        launcher = self.launcher = Launcher(config, self.directory, namespaces, supervisor)
        if config.impaired:
            launcher.impairment()
            client_up = functools.partial(namespaces.has, "client", namespaces.client_if)
            if not supervisor.until(client_up, config.start_timeout):
                raise LabError("the impaired LAN did not come up")
            namespaces.address_client()
        launcher.filters()
        self.statuses = StatusPoll({side: control(self.directory, side) for side in SIDES})
        self.hosts = Hosts(self.directory, namespaces, supervisor, self.statuses, self._namespace_renewed)
        self._await_filters()
        if config.failovers or config.kills or config.watch_lan:
            launcher.lan_watch()
        launcher.guests()
        guests = [child for child in supervisor.children.values() if child.role == "guest"]
        # A guest that does not listen on any port within this time is taken not to be a server.
        supervisor.until(lambda: all(not one.running or one.listens for one in guests), config.guest_wait)
        supervisor.up = True
        supervisor.on_change()

    def _await_filters(self) -> None:
        """Wait until every process has reported that it is ready and the guests have their taps and addresses."""
        without_address, waiting = ["guest-p", "guest-s"], [""]

        def ready() -> bool:
            for guest in without_address[:]:
                if self.namespaces.has(guest, GUEST_IF):
                    self.namespaces.address_guest(guest)
                    without_address.remove(guest)
            waiting[:] = without_address or self.statuses.not_ready(set(self.supervisor.children) - {IMPAIR})
            return not waiting

        timeout = self.config.start_timeout
        if not self.supervisor.until(ready, timeout):
            raise LabError(f"not ready after {timeout:g} s: {', '.join(sorted(waiting))}")

    def _end_processes(self) -> None:
        """End all children, and whatever the commands of guests and clients have left in the background."""
        self.supervisor.stop()
        deadline = time.monotonic() + GRACE
        while kill_inhabitants(self.namespaces.inodes(), {os.getpid()}) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _dismiss_cleanup(self) -> None:
        """Tell the cleanup process that nothing is left to do, and wait for its end."""
        if self._cleanup is not None:
            with contextlib.suppress(OSError):
                self._cleanup.communicate(b"done\n")

    def _namespace_renewed(self, old: int, new: int) -> None:
        if self._cleanup is not None and self._cleanup.stdin is not None:
            self._cleanup.stdin.write(f"{old} {new}\n".encode())
            self._cleanup.stdin.flush()

    def down(self) -> None:
        """Take everything down; may be called at any time, and twice."""
        self._undo.close()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_error: object) -> None:
        self.down()

    # -- the client -----------------------------------------------------------------------------

    def run_client(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        on_tick: Callable[[float], None] = lambda _now: None,
        interval: float = 0.25,
        interrupted: Callable[[], int] = lambda: 0,
        output: int | None = None,
    ) -> int:
        """Run a command in the client's namespace with the standard streams inherited. Returns its exit status as a
        shell would give it.

        `timeout`: seconds after which the command is ended (exit status 124). `on_tick(now)` is called every `interval`
        seconds. `interrupted()` returns the number of a signal once the lab was asked to end: the client gets that
        signal, and later SIGKILL. `output`: a descriptor for its standard output.
        """
        namespace = self.namespaces.fds["client"]
        client = Child("client", "client", "client", list(argv), namespace, env=client_environment(), output=output)
        began = time.monotonic()
        self._plans = self._planned(began)
        run = ClientRun(client, began, self._plans, timeout, interrupted)
        try:
            self.supervisor.start(client)
        except OSError as error:
            self.supervisor.on_event(f"{argv[0]}: {error.strerror}")
            self.exit_status = cannot_run(error)
            return self.exit_status
        self.supervisor.on_change()
        try:
            while client.running:
                now = time.monotonic()
                run.look(now)
                busy = self.attend()
                on_tick(now)
                self.supervisor.step(run.pause(min(interval, OBSERVED_EVERY) if busy else interval))
        finally:
            self.seconds = time.monotonic() - began
            self.supervisor.finish(client)
        self.exit_status = run.exit_status()
        return self.exit_status

    def _planned(self, began: float) -> list[Plan]:
        """What is to happen while the client runs, and when."""
        config = self.config
        for name, _ in config.kills:
            if name not in HOSTS and name not in self.supervisor.children:
                known = ", ".join([*self.supervisor.children, *HOSTS])
                raise ConfigError(f"--kill {name}: there is no such process; {known}")
        plans: list[Plan] = [(began + after, functools.partial(self.fail, name)) for name, after in config.kills]
        plans += [(began + after, functools.partial(self.failover, kind)) for kind, after in config.failovers]
        plans += [(began + after, functools.partial(self.scale, workers)) for workers, after in config.scales]
        return sorted(plans, key=operator.itemgetter(0))

    # -- what happens to the pair ---------------------------------------------------------------

    def fail(self, name: str) -> None:
        """Let `name` die: a process (which is started again, as by a restart policy), a guest, or all of a host with
        `host-p`, `host-s` (nothing of it is started again, and its port on the LAN disappears as well).
        """
        now = time.monotonic()
        if name not in HOSTS:
            self.supervisor.children[name].signal(signal.SIGKILL)
            return
        if self.config.wiring != "symmetric":
            self.failed_at = now if name == "host-p" else self.failed_at
        elif self.leader() == HOSTS[name]:
            self.circle.begin(now, HOSTS[name], DIED)
        self.hosts.fail(name)

    def leader(self) -> Side | None:
        """The host that leads now by what the COLO frames say; None: nobody says so."""
        self.statuses.poll()
        return leader(self.statuses.bodies)

    def failover(self, kind: str = DIED) -> None:
        """The host that leads dies, or the other one is ordered to take over (`planned`). In the symmetric wiring a
        host that died is repaired a while later. In the other ones it is the primary host.
        """
        if self.config.wiring != "symmetric":
            self.fail("host-p")
            return
        side = self.leader()
        if side is None:
            self.supervisor.on_event("no failover, because neither host leads at the moment")
        elif kind == PLANNED:
            self._order_failover(side)
        else:
            host = f"host-{side[0]}"
            self.fail(host)
            self._plans.append((time.monotonic() + self.config.repair_after, functools.partial(self.repair, host)))
            self._plans.sort(key=operator.itemgetter(0))

    def _order_failover(self, side: Side) -> None:
        began, refused = time.monotonic(), ""
        try:
            answer = ask(control(self.directory, OTHER[side]), Query("failover"))
            refused = "" if answer.ok else answer.error
        except NoAnswerError as error:
            refused = str(error)
        self.circle.begin(began, side, PLANNED, refused)
        done = f" was ordered to take over{f': {refused}' if refused else ''}"
        self.supervisor.on_event(f"host-{OTHER[side][0]}{done}")

    def repair(self, name: str) -> None:
        """Start all of a host again that has died, with a fresh guest. It goes on in `attend`."""
        self.circle.repair(time.monotonic(), HOSTS[name])
        self.hosts.repair(name)

    def attend(self) -> bool:
        """Do what is due for hosts that are being repaired, and observe what becomes of failovers. True if there is
        anything to do soon; `run_client` calls this by itself.
        """
        returning = self.hosts.attend()
        if self.circle.pending:
            self.statuses.poll()
            self.circle.observe(time.monotonic(), self.statuses.bodies)
        return bool(returning) or self.circle.pending

    def scale(self, workers: int) -> None:
        """Have this number of compare workers from now on: more are started, or the last ones are asked to leave."""
        if self.config.wiring == "lean" and self.config.workers == 1:
            raise ConfigError("lean wiring with one compare shares nothing out: start with --compare 2 or more")
        for child in [one for one in self.supervisor.children.values() if one.role == "compare" and not one.retired]:
            # In the symmetric wiring the other host's are called comp0-s, …
            if int(child.id.removeprefix("comp").removesuffix("-s")) >= workers:
                child.retired = True
                self.supervisor.end(child, signal.SIGTERM)
        self.launcher.compares(workers)
        self.supervisor.on_event(f"{workers} compare workers wanted")
        self.supervisor.on_change()

    # -- what is observed of it -----------------------------------------------------------------

    def lan(self) -> dict[str, Any] | None:
        """What the capture on the LAN has seen up to now; None when there is no capture, or when it does not write its
        file again in time.
        """
        path, now = Path(self.directory, LAN_FILE), time.monotonic()
        while LAN_WATCH in self.supervisor.children and time.monotonic() < now + CAPTURE_WITHIN:
            seen: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"at": 0.0}
            if seen["at"] >= now:
                return seen
            self.supervisor.step(0.05)
        return None

    def processes(self) -> dict[str, Process]:
        """Every process as it is now, with its last report to its COLO frame."""
        self.statuses.poll()
        return {name: self._process(child) for name, child in self.supervisor.children.items()}

    def _process(self, child: Child) -> Process:
        child.sample()
        last = self.statuses.last(child.id)
        return Process(
            role=child.role,
            id=child.id,
            host=child.host,
            pid=child.pid,
            usage=Usage(child.cpu_now(), child.usage.max_rss_bytes),
            restarts=child.restarts,
            complete=not child.restarts and (child.running or (child.retired and child.status == 0)),
            reported=bool(last),
            counters=self.statuses.counters(child.id),
            gauges=Counter(last.get("gauges")),
            detail=last.get("status") or {},
        )

    def state(self) -> dict[str, Any]:
        """The state file: which process runs where, and how to reach it."""
        return {
            "pid": os.getpid(),
            "directory": self.directory,
            "wiring": self.config.wiring,
            "namespaces": {name: self.namespaces.path(name) for name in self.namespaces.fds},
            "frames": {side: control(self.directory, side) for side in SIDES},
            "guest": {"ipv4": GUEST4, "ipv6": GUEST6, "mac": GUEST_MAC},
            "processes": [
                {
                    **{name: getattr(child, name) for name in ("role", "id", "host", "endpoints", "restarts", "log")},
                    "pid": child.pid if child.running else 0,
                    "argv": list(child.argv),
                }
                for child in self.supervisor.children.values()
            ],
        }

    def report(self, *, final: bool = False) -> dict[str, Any]:
        """The report, once the counters have stopped changing. The processes still run.

        If some program still sends after a few seconds (a secondary that diverged retransmits again and again) and the
        report is `final`, the client and the guests lose their addresses. Then the counters stop and can be added up.
        """
        settled = self.statuses.await_rest(REST_WITHIN, self.supervisor.step)
        if final and not settled:
            self.namespaces.remove_addresses()
            settled = self.statuses.await_rest(REST_WITHIN, self.supervisor.step)
        symmetric = self.config.wiring == "symmetric"
        facts = Facts(
            mode=self.config.mode,
            same_guests=not self.config.secondary_guest,
            settled=settled,
            processes=list(self.processes().values()),
            wiring=self.config.wiring,
            lan=self.lan(),
            failovers=sum(not one.refused for one in self.circle.records) if symmetric else None,
        )
        status = self.exit_status if self.exit_status is not None else -1
        promotion = None if symmetric else self.statuses.promotion()
        return report.build(facts, status, self.seconds, self.failed_at, promotion, self.circle.records)


def _directory() -> str:
    """A directory of the lab's own, with a path that is short enough for Unix sockets (107 bytes)."""
    base = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="colo-lab-", dir=base if len(base) < 60 else "/tmp")  # noqa: S108 - mkdtemp
