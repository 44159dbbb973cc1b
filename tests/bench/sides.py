"""The same frames into different proxies: QEMU's filters and our processes behind QEMU's byte streams, and our compare
behind its own links.

Every side is driven through Unix sockets by this process, which only writes what was made beforehand and counts what
comes back. The CPU time is that of the side: the run time of all its threads (`/proc/PID/task/*/schedstat`,
nanoseconds).
"""

import contextlib
import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import zmq
from tests.craft import udp
from tests.where import PYTHONPATH

from colo_proto.codec import encode_batch

QEMU = shutil.which("qemu-system-x86_64")
PATIENCE = 60.0


def framed(frames: Sequence[bytes]) -> bytes:
    """Frames (virtio_net_hdr in front) as QEMU has them on a byte stream without headers."""
    return b"".join(struct.pack("!I", len(one) - 10) + one[10:] for one in frames)


def cpu(pid: int) -> float:
    """CPU seconds of all threads of a process."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def connect(path: str, process: "subprocess.Popen[bytes]") -> socket.socket:
    """A connection to a process that will soon listen there."""
    end = time.monotonic() + PATIENCE
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return sock


def unread(sock: socket.socket) -> bool:
    """True if the other end of a Unix socket has not read everything that was written (SIOCOUTQ, unix(7))."""
    return fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)) != bytes(4)


class Step(NamedTuple):
    """Write `data` to `port` once `after` bytes have come out, and once all that was written to `behind` is read."""

    port: str
    data: Any
    after: int = 0
    behind: str = ""


class Side:
    """A running proxy and the sockets to it."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", sockets: dict[str, socket.socket]) -> None:
        self.name = name
        self.process = process
        self.pid = process.pid
        self.sockets = sockets
        self.notified = b""
        for sock in sockets.values():
            sock.setblocking(False)

    def greet(self) -> None:
        """QEMU's hello on notify_dev, then pairs until one comes out: QEMU takes its sockets one by one, and what it
        releases before the last is there is lost.
        """
        sock = self.sockets["ntf"]
        sock.setblocking(True)
        sock.settimeout(PATIENCE)
        sock.sendall(struct.pack("!I", 25) + b"COLO_USERSPACE_PROXY_INIT")
        sock.recv(29, socket.MSG_WAITALL)
        sock.setblocking(False)
        out = self.sockets["out"]
        for number in range(100):
            pair = framed([udp("10.0.0.2", "10.0.0.9", 1, 1000 + number, b"probe")])
            for port in ("sec", "pri"):
                self.sockets[port].send(pair)
            if select.select([out], [], [], 0.3)[0]:
                break
        while select.select([out], [], [], 0.3)[0]:
            out.recv(65536)

    def probe(self, port: str, out: str) -> None:
        """Frames until one passes from `port` to `out`."""
        for number in range(100):
            self.sockets[port].send(framed([udp("10.0.0.9", "10.0.0.2", 1, 1000 + number, b"probe")]))
            if select.select([self.sockets[out]], [], [], 0.3)[0]:
                break
        while select.select([self.sockets[out]], [], [], 0.3)[0]:
            self.sockets[out].recv(65536)

    def pump(self, plan: Sequence[Step], out: str, expected: int) -> float:
        """Carry out the steps in order and read `expected` bytes from `out`; the seconds it took."""
        reader, notify = self.sockets[out], self.sockets.get("ntf")
        room = bytearray(1 << 20)
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        if notify is not None:
            poller.register(notify, select.POLLIN)
        waiting = [one._replace(data=memoryview(one.data)) for one in reversed(plan)]
        writer: socket.socket | None = None
        got, began = 0, time.monotonic()
        while got < expected or waiting:
            blocked: socket.socket | None = None
            early = False
            while waiting and waiting[-1].after <= got and blocked is None:
                step = waiting[-1]
                early = bool(step.behind) and unread(self.sockets[step.behind])
                if early:
                    break
                waiting.pop()
                try:
                    sent = self.sockets[step.port].send(step.data)
                except BlockingIOError:
                    sent = 0
                if sent < len(step.data):
                    waiting.append(step._replace(data=step.data[sent:]))
                    blocked = self.sockets[step.port]
            if writer is not blocked:
                if writer is not None:
                    poller.unregister(writer)
                if blocked is not None:
                    poller.register(blocked, select.POLLOUT)
                writer = blocked
            # There is no event for the fact that something was read.
            for fd, events in poller.poll(0 if early else 1000):
                if notify is not None and fd == notify.fileno():
                    self.notified += notify.recv(65536)
                elif fd == reader.fileno() and events & select.POLLIN:
                    got += reader.recv_into(room)
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"{self.name}: {got} of {expected} bytes came out, {len(waiting)} steps are left")
        return time.monotonic() - began


@contextlib.contextmanager
def started(name: str, argv: Sequence[str], paths: dict[str, str]) -> Iterator[Side]:
    """Start a process and connect to all its sockets; it ends with the block."""
    env = {**os.environ, "PYTHONPATH": PYTHONPATH}
    process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sockets: dict[str, socket.socket] = {}
    try:
        for port, path in paths.items():
            sockets[port] = connect(path, process)
        yield Side(name, process, sockets)
    finally:
        process.kill()
        process.wait()
        for sock in sockets.values():
            sock.close()


BARE = ("-M", "none", "-nodefaults", "-display", "none", "-monitor", "none", "-serial", "none")


@contextlib.contextmanager
def qemu_compare() -> Iterator[Side]:
    """QEMU's colo-compare by itself."""
    assert QEMU is not None
    with tempfile.TemporaryDirectory(prefix="colo-") as folder:
        paths = {port: f"{folder}/{port}" for port in ("pri", "sec", "out", "ntf")}
        argv = [QEMU, *BARE]
        for port, path in paths.items():
            argv += ["-chardev", f"socket,id={port},path={path},server=on,wait=off"]
        argv += ["-object", "iothread,id=io1", "-object"]
        argv += ["colo-compare,id=c0,primary_in=pri,secondary_in=sec,outdev=out,notify_dev=ntf,iothread=io1"]
        with started("QEMU colo-compare", argv, paths) as side:
            side.greet()
            yield side


@contextlib.contextmanager
def our_compare(*more: str) -> Iterator[Side]:
    """`colo compare`, one worker, over the same byte streams."""
    with tempfile.TemporaryDirectory(prefix="colo-") as folder:
        paths = {port: f"{folder}/{port}" for port in ("pri", "sec", "out", "ntf")}
        argv = [sys.executable, "-P", "-m", "colo_cli", "compare", "--id", "c0"]
        for port, option in (("pri", "primary-in"), ("sec", "secondary-in"), ("out", "outdev"), ("ntf", "notify-dev")):
            argv += [f"--{option}", f"chardev+unix://{paths[port]}?server=on"]
        with started("colo compare", [*argv, *more], paths) as side:
            side.greet()
            yield side


class Batches:
    """The frames of a sender as messages of our wire format, with this number of frames in each."""

    def __init__(self, port: str, size: int) -> None:
        self.port, self.size, self.sequence = port, size, 0

    def __call__(self, frames: Sequence[bytes]) -> list[bytes]:
        made = []
        for at in range(0, len(frames), self.size):
            some = frames[at : at + self.size]
            made.append(encode_batch(f"bench.{self.port}", 1, self.sequence, 0, 1.0, some))
            self.sequence += len(some)
        return made


def frames_in(message: memoryview) -> int:
    """The number of frames in a batch, read from its head only, because measuring should cost little."""
    head = msgpack.Unpacker()
    head.feed(message[:128])
    assert head.read_array_header() == 8
    for _ in range(7):
        head.skip()
    count: int = head.read_array_header()
    return count


class LinkedSide:
    """A running compare and the ZeroMQ sockets to it; `Step.data` are messages, and frames are counted, not bytes."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", sockets: "dict[str, zmq.Socket[bytes]]") -> None:
        self.name = name
        self.pid = process.pid
        self.sockets = sockets
        self.batches = {port: Batches(port, 64) for port in ("pri", "sec")}

    def greet(self) -> None:
        """Pairs until one comes out."""
        out = self.sockets["out"]
        for number in range(100):
            pair = [udp("10.0.0.2", "10.0.0.9", 1, 1000 + number, b"probe")]
            for port in ("sec", "pri"):
                self.sockets[port].send(self.batches[port](pair)[0])
            if out.poll(300):
                break
        while out.poll(300):
            out.recv()

    def pump(self, plan: Sequence[Any], out: str, expected: int) -> float:
        """As `Side.pump`."""
        reader = self.sockets[out]
        poller = zmq.Poller()
        poller.register(reader, zmq.POLLIN)
        waiting = [one._replace(data=list(reversed(one.data))) for one in reversed(plan)]
        got, began = 0, time.monotonic()
        while got < expected or waiting:
            blocked = None
            while waiting and waiting[-1].after <= got and blocked is None:
                port, messages = waiting[-1][:2]
                try:
                    self.sockets[port].send(messages[-1], zmq.NOBLOCK)
                except zmq.Again:
                    blocked = self.sockets[port]
                    poller.register(blocked, zmq.POLLOUT)
                else:
                    messages.pop()
                    if not messages:
                        waiting.pop()
            poller.poll(1000)
            if blocked is not None:
                poller.unregister(blocked)
            with contextlib.suppress(zmq.Again):
                while True:
                    got += frames_in(reader.recv(zmq.NOBLOCK, copy=False).buffer)
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"{self.name}: {got} of {expected} frames came out, {len(waiting)} steps are left")
        return time.monotonic() - began


@contextlib.contextmanager
def our_linked_compare() -> Iterator[LinkedSide]:
    """`colo compare`, one worker, over ZeroMQ, as compose wires it."""
    with tempfile.TemporaryDirectory(prefix="colo-") as folder, zmq.Context() as context:
        argv = [sys.executable, "-P", "-m", "colo_cli", "compare", "--id", "c0"]
        sockets = {}
        for port, option in (("pri", "primary-in"), ("sec", "secondary-in"), ("out", "outdev")):
            sockets[port] = context.socket(zmq.DEALER)
            sockets[port].linger = 0
            sockets[port].bind(f"ipc://{folder}/{port}")
            argv += [f"--{option}", f"ipc://{folder}/{port}"]
        with started("colo compare on links", argv, {}) as side:
            linked = LinkedSide(side.name, side.process, sockets)
            linked.greet()
            yield linked
        for one in sockets.values():
            one.close()


@contextlib.contextmanager
def qemu_rewriter() -> Iterator[Side]:
    """QEMU's filter-rewriter between two stream netdevs: `net` is the client's end, `guest` the guest's."""
    assert QEMU is not None
    with tempfile.TemporaryDirectory(prefix="colo-") as folder:
        paths = {"net": f"{folder}/net", "guest": f"{folder}/guest"}
        argv = [QEMU, *BARE]
        for number, path in enumerate(paths.values()):
            argv += ["-netdev", f"stream,id=n{number},server=on,addr.type=unix,addr.path={path}"]
            argv += ["-netdev", f"hubport,id=h{number},hubid=0,netdev=n{number}"]
        argv += ["-object", "filter-rewriter,id=rw,netdev=n0,queue=all"]
        with started("QEMU filter-rewriter", argv, paths) as side:
            yield side


@contextlib.contextmanager
def our_rewriter() -> Iterator[Side]:
    """`colo rewriter` over the same byte streams: `net` carries both ways outside, `guest` the guest's."""
    with tempfile.TemporaryDirectory(prefix="colo-") as folder:
        paths = {port: f"{folder}/{port}" for port in ("net", "guest", "out")}
        argv = [sys.executable, "-P", "-m", "colo_cli", "rewriter", "--id", "rw"]
        for port, option in (("net", "indev"), ("guest", "netdev"), ("out", "outdev")):
            argv += [f"--{option}", f"chardev+unix://{paths[port]}?server=on"]
        with started("colo rewriter", argv, paths) as side:
            yield side
