"""`Lab`: a whole pair on this machine, for the command line, for tests and for the demo.

::

    with Lab(LabConfig(guest="python3 server.py")) as lab:      up
        status = lab.run_client(["curl", ...], timeout=30)      step, step, step …
        lab.kill("m0")                                          … which restarts what dies
        print(lab.report()["compare"])
                                                                down: nothing is left
"""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from colo_lab import elevate, look, ready, report
from colo_lab.children import Child, entering
from colo_lab.config import LabConfig
from colo_lab.crew import GRACE, Crew, LabError
from colo_lab.guard import kill_inhabitants
from colo_lab.invariants import Facts
from colo_lab.launch import LAN_FILE, LAN_WATCH, Launcher, client_environment, control, start_guard
from colo_lab.observed import Process
from colo_lab.running import ClientRun, Plan, cannot_run
from colo_lab.spaces import Spaces
from colo_lab.watch import Watch
from colo_proto.errors import ConfigError
from colo_proto.messages import Query
from colo_proto.topology import SIDES, Side
from colo_runtime.client import ask

SETTLE: Final = 3.0
"""Seconds at most for counters to come to rest before they are reported."""

HOSTS: Final[dict[str, Side]] = {"host-p": "primary", "host-s": "secondary"}


class Lab:
    """One lab. It must not be used by several threads, because namespaces and parents belong to a thread."""

    def __init__(self, config: LabConfig) -> None:
        self.config = config
        self.directory = ""
        self.crew = Crew(restart=config.restart)
        self.exit_status: int | None = None
        self.seconds = 0.0
        self.failed_at: float | None = None
        """When the primary host died (monotonic seconds)."""
        self._spaces: Spaces | None = None
        self._watch: Watch | None = None
        self._launcher: Launcher | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def spaces(self) -> Spaces:
        """The namespaces, while the lab is up."""
        assert self._spaces is not None
        return self._spaces

    @property
    def watch(self) -> Watch:
        """What both frames say, while the lab is up."""
        assert self._watch is not None
        return self._watch

    @property
    def launcher(self) -> Launcher:
        """What starts processes, while the lab is up."""
        assert self._launcher is not None
        return self._launcher

    # -- life ---------------------------------------------------------------------------------

    def up(self) -> None:
        """Bring everything up and wait until it is ready. If not: all down again, and `LabError` or `ConfigError`."""
        gaps = elevate.missing()
        if gaps or not elevate.privileged():
            raise ConfigError("colo lab needs " + ", and ".join(gaps or ["root"]))
        try:
            self._bring_up()
        except BaseException:
            self.down()
            raise

    def _bring_up(self) -> None:
        config, crew, patience = self.config, self.crew, self.config.start_timeout
        self.directory = _directory()
        spaces = self._spaces = Spaces()
        self._guard = start_guard(self.directory, spaces)
        spaces.furnish(impaired=config.impaired)
        launcher = self._launcher = Launcher(config, self.directory, spaces, crew)
        if config.impaired:
            launcher.impairment()
            ready.await_client_lan(spaces, crew, patience)
        launcher.filters()
        self._watch = Watch({side: control(self.directory, side) for side in SIDES})
        ready.await_filters(spaces, self._watch, crew, patience)
        if config.failover is not None or config.kills or config.watch_lan:
            self.start_lan_watch()
        launcher.guests()
        ready.await_guests(crew, config.guest_wait)
        crew.settled = True
        crew.on_change()

    def down(self) -> None:
        """Take everything down; may be called at any time, and twice."""
        if self._spaces is not None and self._spaces.fds:
            self.crew.stop()
            deadline = time.monotonic() + GRACE
            while kill_inhabitants(self._spaces.inodes(), {os.getpid()}) and time.monotonic() < deadline:
                time.sleep(0.01)
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._spaces is not None:
            self._spaces.close()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
        if self._guard is not None:
            assert self._guard.stdin is not None
            with contextlib.suppress(OSError):
                self._guard.stdin.write(b"1")
                self._guard.stdin.close()
            self._guard.wait()
            self._guard = None
        self.crew.close()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def step(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for something to happen, and do what is due."""
        self.crew.step(timeout)

    # -- the client -----------------------------------------------------------------------------

    def run_client(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        on_tick: Callable[[float], None] | None = None,
        interval: float = 0.25,
        interrupted: Callable[[], int] = lambda: 0,
        output: int | None = None,
    ) -> int:
        """Run a command in the client's namespace, standard streams inherited; its exit status as a shell's.

        124 when `timeout` (seconds) ended it. `on_tick(now)` is called every `interval` seconds. `interrupted`
        returns a signal number once somebody wants it to end: the signal is passed on, then SIGKILL follows.
        `output`: a descriptor for its standard output.
        """
        space = self.spaces.fds["client"]
        client = Child("client", "client", "client", list(argv), space, env=client_environment(), output=output)
        began = time.monotonic()
        run = ClientRun(client, began, self._planned(began), timeout, interrupted)
        try:
            self.crew.start(client)
        except OSError as error:
            self.crew.on_event(f"{argv[0]}: {error.strerror}")
            self.exit_status = cannot_run(error)
            return self.exit_status
        self.crew.on_change()
        try:
            while client.running:
                now = time.monotonic()
                run.look(now)
                if on_tick is not None:
                    on_tick(now)
                self.step(run.pause(interval))
        finally:
            self.seconds = time.monotonic() - began
            self.crew.finish(client)
        self.exit_status = run.exit_status()
        return self.exit_status

    def _planned(self, began: float) -> list[Plan]:
        """What is to happen while the client runs, and when."""
        plans: list[Plan] = [(at, functools.partial(self.fail, name)) for at, name in self._deaths(began)]
        for workers, after in self.config.scales:
            plans.append((began + after, functools.partial(self.scale, workers)))
        return sorted(plans, key=lambda one: one[0])

    def _deaths(self, began: float) -> list[tuple[float, str]]:
        planned = [(began + at, name) for name, at in self.config.kills]
        if self.config.failover is not None:
            planned.append((began + self.config.failover, "host-p"))
        for _, name in planned:
            if name not in HOSTS and name not in self.crew.children:
                known = ", ".join([*self.crew.children, *HOSTS])
                raise ConfigError(f"--kill {name}: there is no such process; {known}")
        return sorted(planned)

    def popen(self, space: str, argv: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """A further process in a namespace, with a client's environment (a test's own client); it ends with the lab."""
        entered = entering(self.spaces.fds[space])
        return subprocess.Popen(argv, env=client_environment(), preexec_fn=entered, **options)  # noqa: PLW1509

    # -- what happens to the pair ---------------------------------------------------------------

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal (SIGKILL) to a process by its id; `guest-p` and `guest-s` are guests."""
        if name not in self.crew.children:
            raise ConfigError(f"there is no process {name}; {', '.join(self.crew.children)}")
        self.crew.children[name].signal(number)

    def fail(self, name: str) -> None:
        """`name` dies: a process (that is started again, like one with a restart policy), a guest, or all of a host
        with `host-p`, `host-s` (nothing of it comes back, and its port on the LAN goes with it).
        """
        now = time.monotonic()
        if name not in HOSTS:
            self.kill(name)
            return
        side, letter = HOSTS[name], name[-1]
        self.watch.poll()
        victims = [one.id for one in self.crew.children.values() if one.host in (name, f"guest-{letter}")]
        self.crew.abandon(victims)
        self.watch.forget(side)
        if side == "primary":
            self.failed_at = now
        self.crew.on_event(f"{name} has died: {', '.join(victims)}")

    def revive(self, name: str) -> None:
        """A host that died is started again, with a fresh guest; ready when its frame says so."""
        side, guest = HOSTS[name], f"guest-{name[-1]}"
        self.watch.remember(side, control(self.directory, side))
        self.crew.resume([one.id for one in self.crew.children.values() if one.host == name])
        ready.await_guest_tap(guest, self.spaces, self.crew, self.config.start_timeout)
        self.crew.resume([one.id for one in self.crew.children.values() if one.host == guest])

    def scale(self, workers: int) -> None:
        """Have `workers` compares from now on: others are started, or the last ones asked to leave."""
        if self.config.wiring == "lean" and self.config.workers == 1:
            raise ConfigError("lean wiring with one compare shares nothing out: start with --compare 2 or more")
        running = [one for one in self.crew.children.values() if one.role == "compare" and not one.retired]
        for child in sorted(running, key=_number)[workers:]:
            self.crew.retire(child.id)
        self.launcher.compares(workers)
        self.crew.on_event(f"{workers} compare workers wanted")
        self.crew.on_change()

    def cut(self, *, cut: bool = True) -> None:
        """Pull (or plug in) the cable between the hosts."""
        self.spaces.cut(cut=cut)

    def order(self, what: str, side: Side, **args: Any) -> dict[str, Any]:
        """Give a frame an order (`failover`, `resync`, …); its answer, or `LabError` when it refuses."""
        answer = ask(control(self.directory, side), Query(what, args))
        if not answer.ok:
            raise LabError(f"{what}: {answer.error}")
        return answer.body

    # -- what is seen of it ---------------------------------------------------------------------

    def frame(self, side: Side) -> dict[str, Any]:
        """The status of a frame now."""
        return self.order("status", side)

    def start_lan_watch(self) -> None:
        """Capture on the client LAN from now on (`lan` says what was seen)."""
        self.launcher.lan_watch()

    def lan(self) -> dict[str, Any] | None:
        """What the capture on the LAN has seen up to now; None when there is none."""
        running = LAN_WATCH in self.crew.children
        return look.capture(Path(self.directory, LAN_FILE), self.step) if running else None

    def processes(self) -> dict[str, Process]:
        """Every process as it is now, with what the frames know of it."""
        return look.processes(self.crew, self.watch)

    def promotion(self) -> dict[str, Any] | None:
        """What the secondary's frame says of its promotion."""
        return look.promotion(self.watch)

    def state(self) -> dict[str, Any]:
        """The state file: who runs where, and how to reach it."""
        return look.state(self.directory, self.config.wiring, self.spaces, self.crew)

    def report(self, *, final: bool = False) -> dict[str, Any]:
        """The report, after the counters have settled. The processes still run.

        When it is `final` and something still talks (a secondary that diverged sends again and again), the
        client and the guests lose their addresses: then the counters come to rest and can be added up.
        """
        settled = self.watch.settle(SETTLE, self.step)
        if final and not settled:
            self.spaces.hush()
            settled = self.watch.settle(SETTLE, self.step)
        facts = Facts(
            mode=self.config.mode,
            same_guests=not self.config.secondary_guest,
            settled=settled,
            processes=list(self.processes().values()),
            wiring=self.config.wiring,
            lan=self.lan(),
        )
        status = self.exit_status if self.exit_status is not None else -1
        return report.build(report.Run(status, self.seconds, self.failed_at, self.promotion()), facts)


def _number(child: Child) -> int:
    """Of a compare: comp10 comes after comp9."""
    return int(child.id.removeprefix("comp"))


def _directory() -> str:
    """A directory of our own, with a path short enough for Unix sockets (107 bytes)."""
    base = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="colo-lab-", dir=base if len(base) < 60 else "/tmp")  # noqa: S108 - mkdtemp
