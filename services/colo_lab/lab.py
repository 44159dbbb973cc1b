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
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from colo_lab import elevate, guests, report
from colo_lab.children import Child, entering, kill_inhabitants
from colo_lab.config import GUEST4, GUEST6, GUEST_MAC, HOST_P, HOST_S, LabConfig
from colo_lab.crew import GRACE, Crew, LabError
from colo_lab.spaces import BRIDGE, GUEST_IF, Spaces
from colo_lab.watch import Watch
from colo_proto.errors import ConfigError
from colo_proto.messages import Query
from colo_proto.topology import SIDES, ProcessSpec, Side, Site, plan
from colo_runtime.client import ask
from colo_runtime.curve import write_pair
from colo_runtime.secretfile import write_secret

SETTLE: Final = 3.0
"""Seconds at most for counters to come to rest before they are reported."""

HOSTS: Final[dict[str, Side]] = {"host-p": "primary", "host-s": "secondary"}
LAN_WATCH: Final = "lan"
LAN_FILE: Final = "lan.json"
LAN_PATIENCE: Final = 10.0
"""Seconds for which the capture's next word is waited for."""

EXIT_TIMEOUT: Final = 124
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127


class Lab:
    """One lab. Not for several threads (namespaces and parents belong to a thread)."""

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
        self._sites: dict[Side, Site] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    # -- life ---------------------------------------------------------------------------------

    def up(self) -> None:
        """Bring everything up and wait until it is ready. If not: all down again, and `LabError` or `ConfigError`."""
        elevate_gaps = elevate.missing()
        if elevate_gaps or not elevate.privileged():
            raise ConfigError("colo lab needs " + ", and ".join(elevate_gaps or ["root"]))
        try:
            self.directory = _directory()
            self._spaces = Spaces()
            self._start_guard()
            self._spaces.furnish(impaired=self.config.impaired)
            self._start_impairment()
            self._start_filters()
            self._watch = Watch({side: _control(self.directory, side) for side in SIDES})
            self._await_filters()
            if self.config.failover is not None or self.config.kills or self.config.watch_lan:
                self.start_lan_watch()
            self._start_guests()
            self._await_guests()
            self.crew.settled = True
            self.crew.on_change()
        except BaseException:
            self.down()
            raise

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

    # -- what tests and the demo do -------------------------------------------------------------

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
        returns a signal number once somebody wants it to end: the signal is passed on, then SIGKILL follows. A client
        that needed the SIGKILL counts as ended by the signal (a shell that waits for its own child is deaf to SIGINT).
        `output`: a descriptor for its standard output.
        """
        client = self._child("client", "client", "client", argv, session=False)
        client.env = self.environment()
        client.output = output
        began = time.monotonic()
        plans = self._planned(began)
        try:
            self.crew.start(client)
        except OSError as error:
            self.crew.on_event(f"{argv[0]}: {error.strerror}")
            self.exit_status = EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_NOT_EXECUTABLE
            return self.exit_status
        self.crew.on_change()
        timed_out = False
        asked = kill_at = None
        try:
            while client.running:
                now = time.monotonic()
                if timeout is not None and not timed_out and now - began >= timeout:
                    timed_out = True
                    client.signal(signal.SIGTERM)
                    kill_at = now + GRACE
                number = interrupted()
                if number and number != asked:
                    # Ctrl-C has reached the client already: the terminal tells its whole process group.
                    if number != signal.SIGINT or not _foreground():
                        client.signal(number)
                    asked = number
                    kill_at = kill_at or now + 2 * GRACE
                if kill_at is not None and now >= kill_at:
                    client.signal(signal.SIGKILL)
                while plans and now >= plans[0][0]:
                    plans.pop(0)[1]()
                if on_tick is not None:
                    on_tick(now)
                pause = min(interval, 0.1) if timeout is not None or number else interval
                self.step(min(pause, max(0.0, plans[0][0] - time.monotonic())) if plans else pause)
        finally:
            self.seconds = time.monotonic() - began
            self.crew.finish(client)
        status = client.status or 0
        if asked and status == -signal.SIGKILL:
            status = -asked
        self.exit_status = EXIT_TIMEOUT if timed_out else status if status >= 0 else 128 - status
        return self.exit_status

    def popen(self, space: str, argv: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """A further process in a namespace (a test's own client); it ends with the lab."""
        child = self._child("extra", "extra", space, argv)
        return subprocess.Popen(argv, preexec_fn=entering(child.netns_fd), **options)  # noqa: PLW1509

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
        assert self._watch is not None
        self._watch.poll()
        victims = [one.id for one in self.crew.children.values() if one.host in (name, f"guest-{letter}")]
        self.crew.abandon(victims)
        self._watch.forget(side)
        if side == "primary":
            self.failed_at = now
        self.crew.on_event(f"{name} has died: {', '.join(victims)}")

    def scale(self, workers: int) -> None:
        """Have `workers` compares from now on: others are started, or the last ones asked to leave."""
        if self.config.wiring == "lean" and self.config.workers == 1:
            raise ConfigError("lean wiring with one compare shares nothing out: start with --compare 2 or more")
        running = [one for one in self.crew.children.values() if one.role == "compare" and not one.retired]
        for child in sorted(running, key=_number)[workers:]:
            self.crew.retire(child.id)
        for spec in plan("primary", self.config.wiring, workers, self._sites["primary"]):
            if spec.role == "compare" and all(one.id != spec.id for one in running):
                self.crew.revive(spec.id)
                self._start(spec, "host-p")
        self.crew.on_event(f"{workers} compare workers wanted")
        self.crew.on_change()

    def _planned(self, began: float) -> list[tuple[float, Callable[[], None]]]:
        """What is to happen, and when."""
        plans: list[tuple[float, Callable[[], None]]] = []
        for at, name in self._deaths(began):
            plans.append((at, functools.partial(self.fail, name)))
        for workers, after in self.config.scales:
            plans.append((began + after, functools.partial(self.scale, workers)))
        return sorted(plans, key=lambda one: one[0])

    def revive(self, name: str) -> None:
        """A host that died is started again, with a fresh guest; ready when its frame says so."""
        side, letter = HOSTS[name], name[-1]
        assert self._watch is not None
        assert self._spaces is not None
        self._watch.remember(side, _control(self.directory, side))
        of_host = [one.id for one in self.crew.children.values() if one.host == name]
        self.crew.resume(of_host)
        deadline = time.monotonic() + self.config.start_timeout
        while not self._spaces.has(f"guest-{letter}", GUEST_IF):
            if time.monotonic() > deadline:
                raise LabError(f"{name}: its guest's tap did not come back")
            self.step(0.02)
        self._spaces.address_guest(f"guest-{letter}")
        self.crew.resume([one.id for one in self.crew.children.values() if one.host == f"guest-{letter}"])

    def _deaths(self, began: float) -> list[tuple[float, str]]:
        planned = [(began + at, name) for name, at in self.config.kills]
        if self.config.failover is not None:
            planned.append((began + self.config.failover, "host-p"))
        for _, name in planned:
            if name not in HOSTS and name not in self.crew.children:
                known = ", ".join([*self.crew.children, *HOSTS])
                raise ConfigError(f"--kill {name}: there is no such process; {known}")
        return sorted(planned)

    def order(self, what: str, side: Side, **args: Any) -> dict[str, Any]:
        """Give a frame an order (`failover`, `resync`, …); its answer, or `LabError` when it refuses."""
        answer = ask(_control(self.directory, side), Query(what, args))
        if not answer.ok:
            raise LabError(f"{what}: {answer.error}")
        return answer.body

    def frame(self, side: Side) -> dict[str, Any]:
        """The status of a frame now."""
        return self.order("status", side)

    def lan(self) -> dict[str, Any] | None:
        """What the capture on the LAN has seen up to now; None when there is none."""
        path = Path(self.directory, LAN_FILE)
        if LAN_WATCH not in self.crew.children:
            return None
        now = time.monotonic()
        deadline = now + LAN_PATIENCE
        while time.monotonic() < deadline:
            seen: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"at": 0.0}
            if seen["at"] >= now:
                return seen
            self.step(0.05)
        return None

    def cut(self, *, cut: bool = True) -> None:
        """Pull (or plug in) the cable between the hosts."""
        assert self._spaces is not None
        self._spaces.cut(cut=cut)

    def step(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for something to happen, and do what is due."""
        self.crew.step(timeout)

    def processes(self) -> dict[str, report.Process]:
        """Every process as it is now, with what the frames know of it."""
        assert self._watch is not None
        self._watch.poll()
        for child in self.crew.children.values():
            child.sample()
        return {
            child.id: report.Process(
                role=child.role,
                id=child.id,
                host=child.host,
                pid=child.pid,
                cpu_seconds=child.cpu_now(),
                max_rss_bytes=child.usage.max_rss_bytes,
                restarts=child.restarts,
                status=self._watch.last(child.id),
                complete=not child.restarts and (child.running or (child.retired and child.status == 0)),
            )
            for child in self.crew.children.values()
        }

    def state(self) -> dict[str, Any]:
        """The state file: who runs where, and how to reach it."""
        assert self._spaces is not None
        return {
            "pid": os.getpid(),
            "directory": self.directory,
            "wiring": self.config.wiring,
            "namespaces": {name: self._spaces.path(name) for name in self._spaces.fds},
            "frames": {side: _control(self.directory, side) for side in SIDES},
            "guest": {"ipv4": GUEST4, "ipv6": GUEST6, "mac": GUEST_MAC},
            "processes": [
                {
                    "role": child.role,
                    "id": child.id,
                    "pid": child.pid if child.running else 0,
                    "host": child.host,
                    "endpoints": child.endpoints,
                    "argv": list(child.argv),
                    "restarts": child.restarts,
                    "log": child.log,
                }
                for child in self.crew.children.values()
            ],
        }

    def report(self, *, final: bool = False) -> dict[str, Any]:
        """The report, after the counters have settled. The processes still run.

        When it is `final` and something still talks (a secondary that diverged sends again and again), the
        client and the guests lose their addresses: then the counters come to rest and can be added up.
        """
        assert self._watch is not None
        assert self._spaces is not None
        settled = self._watch.settle(SETTLE, self.step)
        if final and not settled:
            self._spaces.hush()
            settled = self._watch.settle(SETTLE, self.step)
        return report.build(
            exit_status=self.exit_status if self.exit_status is not None else -1,
            seconds=self.seconds,
            wiring=self.config.wiring,
            mode=self.config.mode,
            same_guests=not self.config.secondary_guest,
            settled=settled,
            processes=list(self.processes().values()),
            lan=self.lan(),
            failed_at=self.failed_at,
            promotion=self.promotion(),
        )

    def promotion(self) -> dict[str, Any] | None:
        """What the secondary's frame says of its promotion."""
        assert self._watch is not None
        last = self._watch.last("frame-s")
        found: dict[str, Any] | None = last.detail.get("tenure", {}).get("promotion") if last is not None else None
        return found

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

    # -- inside ---------------------------------------------------------------------------------

    def _start_filters(self) -> None:
        spaces = self._spaces
        assert spaces is not None
        common = {"log-level": self.config.log_level}
        extra = {role: {**common, **self.config.extra.get(role, {})} for role in (*_ROLES, *self.config.extra)}
        if self.config.curve:
            for side in SIDES:
                write_pair(self.directory, side)
        for role in ("compare", "frame"):
            extra[role] = {"mode": self.config.mode, **extra[role]}
        # The real thing, as between real hosts.
        extra["frame"] = {"pair-secret": str(write_secret(self.directory, "lab")), **extra["frame"]}
        if self.config.failover is not None:
            extra["frame"] = {"failover": "auto", **extra["frame"]}
        for side in SIDES:
            letter = side[0]
            directory = f"{self.directory}/{letter}"
            Path(directory).mkdir(mode=0o700)
            links = self._links(side)
            site = Site(
                directory=directory,
                bind=HOST_P if side == "primary" else HOST_S,
                peer=HOST_S if side == "primary" else HOST_P,
                taps={
                    "lan": f"lan-{letter},netns={spaces.path('client')},bridge={BRIDGE}",
                    "guest": f"guest-{letter},netns={spaces.path(f'guest-{letter}')},ifname={GUEST_IF},mac={GUEST_MAC}",
                },
                extra={role: {**links, **options} for role, options in extra.items()},
            )
            self._sites[side] = site
            for spec in plan(side, self.config.wiring, self.config.workers, site):
                self._start(spec, f"host-{letter}")

    def _start(self, spec: ProcessSpec, host: str) -> None:
        child = self._child(spec.role, spec.id, host, [*_PYTHON, f"colo_{spec.role}", *spec.argv[1:]])
        child.endpoints = {
            key: value for key, value in spec.options.items() if isinstance(value, str) and "://" in value
        }
        child.log = self._log(spec.id)
        self.crew.start(child)

    def _links(self, side: Side) -> dict[str, str]:
        """What the links between the hosts need: keys of this lab alone, or the word that they do without."""
        if not self.config.curve:
            # They never leave this machine, and with keys both hosts' cipher runs on the same cores.
            return {"insecure": "on"}
        other = "secondary" if side == "primary" else "primary"
        return {
            "curve-secret": f"{self.directory}/{side}.key_secret",
            "curve-peers": f"{self.directory}/{other}.key",
        }

    def _child(self, role: str, name: str, space: str, argv: Sequence[str], *, session: bool = True) -> Child:
        assert self._spaces is not None
        return Child(role, name, space, list(argv), self._spaces.fds[space], session=session)

    def _log(self, name: str) -> str:
        if self.config.logs:
            Path(self.config.logs).mkdir(parents=True, exist_ok=True)
        return f"{self.config.logs or self.directory}/{name}.log"

    def environment(self) -> dict[str, str]:
        """The environment of a client: where the guest is."""
        return {**os.environ, "COLO_GUEST": GUEST4, "COLO_GUEST6": GUEST6}

    def _await_filters(self) -> None:
        """Until every process has reported itself ready and the guests have their taps and addresses."""
        spaces, watch = self._spaces, self._watch
        assert spaces is not None
        assert watch is not None
        deadline = time.monotonic() + self.config.start_timeout
        without_address = ["guest-p", "guest-s"]
        while True:
            for space in without_address[:]:
                if spaces.has(space, GUEST_IF):
                    spaces.address_guest(space)
                    without_address.remove(space)
            waiting = without_address or watch.not_ready(set(self.crew.children) - {"impair"})
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise LabError(f"not ready after {self.config.start_timeout:g} s: {', '.join(sorted(waiting))}")
            self.step(0.02)

    def _start_guests(self) -> None:
        if not self.config.guest:
            return
        own_processes = elevate.pid_namespaces()
        commands = {"primary": self.config.guest, "secondary": self.config.secondary_guest or self.config.guest}
        for side in SIDES:
            name = f"guest-{side[0]}"
            scratch = Path(self.directory, name)
            scratch.mkdir(mode=0o700)
            argv = guests.argv(commands[side], str(scratch), own_processes=own_processes)
            child = self._child("guest", name, name, argv)
            child.env = guests.environment(side, os.environ)
            child.log = self._log(child.id)
            self.crew.start(child)

    def _start_impairment(self) -> None:
        if not self.config.impaired:
            return
        assert self._spaces is not None
        words = [f"{number:g}" for number in (self.config.loss, self.config.reorder)]
        child = self._child("impair", "impair", "client", [*_PYTHON, "colo_lab.impair", *words, str(self.config.seed)])
        child.log = self._log("impair")
        self.crew.start(child)
        deadline = time.monotonic() + self.config.start_timeout
        while not self._spaces.has("client", self._spaces.client_if):
            if time.monotonic() > deadline:
                raise LabError("the impaired LAN did not come up")
            self.step(0.02)
        self._spaces.address_client()

    def start_lan_watch(self) -> None:
        """Capture on the client LAN from now on (`lan` says what was seen)."""
        argv = [*_PYTHON, "colo_lab.lanwatch", f"{self.directory}/{LAN_FILE}"]
        child = self._child("watch", LAN_WATCH, "client", argv)
        child.log = self._log(LAN_WATCH)
        self.crew.start(child)

    def _await_guests(self) -> None:
        deadline = time.monotonic() + self.config.guest_wait
        waiting = [child for child in self.crew.children.values() if child.role == "guest"]
        while waiting and time.monotonic() < deadline:
            waiting = [child for child in waiting if child.running and not _listens(child.pid)]
            if waiting:
                self.step(0.02)

    def _start_guard(self) -> None:
        assert self._spaces is not None
        inodes = [str(inode) for inode in self._spaces.inodes()]
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), self.directory, *inodes],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


_ROLES: Final = ("netdev", "frame", "mirror", "redirector", "compare", "rewriter")
_PYTHON: Final = (sys.executable, "-P", "-m")


def _number(child: Child) -> int:
    """Of a compare: comp10 comes after comp9."""
    return int(child.id.removeprefix("comp"))


def _directory() -> str:
    """A directory of our own, with a path short enough for Unix sockets (107 bytes)."""
    base = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="colo-lab-", dir=base if len(base) < 60 else "/tmp")  # noqa: S108 - mkdtemp


def _control(directory: str, side: Side) -> str:
    return f"ipc://{directory}/{side[0]}/control.sock"


def _foreground() -> bool:
    """True when this process group is the one that the terminal's Ctrl-C goes to."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


def _listens(pid: int) -> bool:
    """True when anything in the namespace of `pid` listens on TCP or has a UDP port bound."""
    for name, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
            next(file, None)
            for line in file:
                fields = line.split()
                if len(fields) > 3 and fields[3] == state:
                    return True
    return False
