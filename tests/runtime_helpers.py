"""Shells, cores and peers for tests of the runtime, all in one thread, which run until a condition holds.

Nothing here sleeps to synchronise: `until` runs the loops, with a deadline that only a failure reaches.
"""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import zmq

from colo_proto.core import Output, Port, Send, Way
from colo_proto.endpoint import parse_endpoint
from colo_proto.frame import NO_OFFLOAD
from colo_runtime.filtershell import FilterShell
from colo_runtime.options import CommonConfig
from colo_runtime.shell import Shell
from where import PYTHONPATH

PATIENCE = 60.0


def frame(number: int, size: int = 60) -> bytes:
    """A frame that can be distinguished from others."""
    return NO_OFFLOAD + b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xb5" + number.to_bytes(8, "big") + bytes(size - 22)


def frames(first: int, count: int, size: int = 60) -> list[bytes]:
    return [frame(n, size) for n in range(first, first + count)]


def number(one: bytes) -> int:
    """The number that `frame` was given."""
    return int.from_bytes(one[24:32], "big")


def free_port() -> int:
    """A TCP port that is free now, and very probably also a moment later."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


class Log:
    """Collects log events."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __call__(self, level: str, event: str, /, **fields: Any) -> None:
        self.lines.append((level, event, fields))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [fields for _, event, fields in self.lines if event == name]


class Probe:
    """A core with any ports. It keeps what it receives and does what `react` says."""

    def __init__(self, **ways: Way) -> None:
        self.ports = tuple(Port(name, way, required=True, doc=name) for name, way in ways.items())
        self.counters: Counter[str] = Counter()
        self.got: dict[str, list[bytes]] = {name: [] for name in ways}
        self.batches: list[tuple[str, int]] = []
        self.told: list[Any] = []
        self.react: Callable[[str, list[bytes]], list[Output]] = lambda _port, _frames: []
        self.on_drain: list[Output] = []
        self.due: float | None = None
        self.timers: list[float] = []

    def receive(self, port, frames, now):
        self.got[port] += frames
        self.batches.append((port, len(frames)))
        return self.react(port, frames)

    def tell(self, message, now):
        self.told.append(message)
        return []

    def deadline(self):
        return self.due

    def on_timer(self, now):
        self.timers.append(now)
        self.due = None
        return []

    def drain(self, now):
        return self.on_drain

    def gauges(self):
        return {"held": 0}

    def status(self):
        return {"mode": "probe"}


def source(**ways: Way) -> Probe:
    return Probe(**(ways or {"out": Way.OUT}))


def send(shell, some, to=None):
    """Send out, or to the worker `to`, whichever flows these frames are of."""
    if to is None:
        shell._do([Send("out", some)])
    else:
        link = shell.links["out"]
        link.count_sent(some)
        link._send(to, some)


def sink(**ways: Way) -> Probe:
    return Probe(**(ways or {"in": Way.IN}))


def relay() -> Probe:
    core = Probe(indev=Way.IN, outdev=Way.OUT)
    core.react = lambda _port, batch: [Send("outdev", batch)]
    return core


def step(shell: Shell, limit: float = 0.0) -> None:
    """One turn of the loop of a shell, which takes at most `limit` seconds."""
    deadline = shell.core_deadline()
    until = time.monotonic() + limit
    shell._turn(min(until, deadline) if deadline is not None else until)


class Bench:
    """Opens shells and closes them all at the end, in one ZeroMQ context."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.context = zmq.Context()
        self.shells: list[Shell] = []
        self.sockets: list[Any] = []
        self.children: list[subprocess.Popen[bytes]] = []
        self.started = 0

    def ipc(self, name: str) -> str:
        return f"ipc://{self.directory}/{name}.sock"

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def shell(
        self,
        core: Probe,
        name: str = "x",
        notify_dev: str = "",
        role: str = "probe",
        alone: bool = False,
        **options: Any,
    ) -> FilterShell:
        """Open a shell; keyword arguments that are ports of the core are endpoints, the others common options.

        `alone`: in a ZeroMQ context of its own, as a process has (one context has one ZAP handler).
        """
        ports = {port.name for port in core.ports}
        endpoints = {n.rstrip("_"): parse_endpoint(v) for n, v in options.items() if n.rstrip("_") in ports}
        common = CommonConfig(id=name, **{n: v for n, v in options.items() if n.rstrip("_") not in ports})
        notify = parse_endpoint(notify_dev) if notify_dev else None
        context = None if alone else self.context
        one = FilterShell(role, core, endpoints, common, Log(), zmq_context=context, notify_dev=notify)
        one.open()
        self.shells.append(one)
        return one

    def add(self, one: Shell) -> Shell:
        one.open()
        self.shells.append(one)
        return one

    def drop(self, one: Shell) -> None:
        """Close a shell now. To its peers this looks like a kill."""
        self.shells.remove(one)
        one.close()

    def until(
        self, condition: Callable[[], Any], shells: Iterable[Shell] | None = None, patience: float = PATIENCE
    ) -> Any:
        """Run the loops until `condition()` is true. Returns its value."""
        end = time.monotonic() + patience
        while not (value := condition()):
            for one in list(self.shells if shells is None else shells):
                step(one, 0.002)
            assert time.monotonic() < end, "it never happened"
        return value

    def turn(self, seconds: float) -> None:
        """Run the loops for a while. Only for showing that something does *not* happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for one in self.shells:
                step(one, 0.002)

    def zmq(self, kind: int, endpoint: str, *, bind: bool = False, identity: bytes = b"", hwm: int = 1000) -> Any:
        """A plain ZeroMQ socket, to take the part of a peer."""
        one = self.context.socket(kind)
        one.linger = 0
        one.rcvhwm = hwm
        if identity:
            one.routing_id = identity
        if bind:
            one.bind(endpoint)
        else:
            one.connect(endpoint)
        self.sockets.append(one)
        return one

    def unix(self, path: str) -> socket.socket:
        """A connected stream socket. The process that listens may still be starting."""
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(PATIENCE)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                one.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                dead = [child.args for child in self.children if child.poll() is not None]
                if dead or time.monotonic() > end:
                    one.close()
                    raise AssertionError(f"nobody listens on {path}; dead: {dead}; {self.logs()}") from None
                time.sleep(0.01)
            else:
                self.sockets.append(one)
                return one

    def colo(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        """Start a real `colo` process."""
        self.started += 1
        with (self.directory / f"log-{self.started:03}").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "colo_cli", *arguments],
                env={**os.environ, "PYTHONPATH": PYTHONPATH, **environ},
                stderr=log,
            )
        self.children.append(child)
        return child

    def logs(self) -> str:
        """The logs of the real processes."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("log-*")))

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
        for one in reversed(self.shells):
            one.close()
        for other in self.sockets:
            other.close()
        self.context.destroy(0)
