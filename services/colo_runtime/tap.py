"""A tap, by the descriptor that netdev passes (`colo_proto.netdev`).

::

    away --connect--> asking --get: descriptor--> held --EOF--> away, frames still flow
      ^ backoff         |                          ^              |
      +-----------------+ refused for now          +--return: fd--+   (a restarted netdev has its tap back)

The tap continues to work while netdev is away. A descriptor that does not work any more (EBADFD: the interface was
deleted) is closed, and a new one is requested. Processes may start in any order; a tap that netdev does not know is an
error.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Sequence
from time import monotonic
from typing import Final, cast

from colo_proto.errors import ConfigError, WireError
from colo_proto.frame import MAX_FRAME, MIN_FRAME, NO_OFFLOAD, Buffer
from colo_proto.net.coalesce import coalesce
from colo_proto.net.offload import to_plain
from colo_proto.netdev import RefusedError, Request, decode_reply, encode_request
from colo_proto.replay import cut
from colo_runtime.descriptors import close_all, receive
from colo_runtime.link import Link
from colo_runtime.reactor import IDLE, READ

RETRY: Final = 0.05
RETRY_MAX: Final = 1.0
"""Seconds between attempts to reach netdev: the first pause and the longest one."""
ANSWER: Final = 2.0
"""Seconds that netdev has for an answer."""

READ_FRAMES: Final = 256
READ_BYTES: Final = 1 << 20
"""The most that is read in one turn. It is more than a batch, so that the waiting segments of many connections can be
joined: each joined frame saves work in all processes after this one.
"""

_READ_SIZE: Final = MAX_FRAME + 1
_DEAD: Final = frozenset({errno.EBADFD, errno.EBADF, errno.EFAULT, errno.ENODEV, errno.ENXIO})
_REASONS: Final = {
    errno.EAGAIN: "tap_full", errno.ENOBUFS: "tap_full", errno.ENOMEM: "tap_full",
    errno.EIO: "tap_down", errno.ENETDOWN: "tap_down", errno.EINVAL: "tap_refused",
}  # fmt: skip


class TapLink(Link):
    """See the module."""

    def open(self) -> None:
        """Start to ask netdev for the descriptor."""
        self.name = self.endpoint.address
        self._path = self.endpoint.netdev or self.context.common.netdev_socket
        self._fd = -1
        self._vnet_hdr = True
        self._socket: socket.socket | None = None
        self._verb = "get"
        self._pause = RETRY
        self._timer = IDLE
        self._why = f"tap {self.name}: waiting for netdev at {self._path}"
        self._connect()

    @property
    def waiting_for(self) -> str:
        """Not empty until the tap is attached."""
        return "" if self._fd >= 0 else self._why

    @property
    def stalled(self) -> str:
        """Not empty until the tap is attached."""
        return self.waiting_for

    def gauges(self) -> dict[str, int]:
        """The queue, and whether the tap is attached."""
        return super().gauges() | {"attached": int(self._fd >= 0)}

    # -- frames ---------------------------------------------------------------------------------

    def _ready(self, _events: int) -> None:
        frames: list[bytes] = []
        append, read, fd = frames.append, os.read, self._fd
        size = 0
        try:
            while size < READ_BYTES and len(frames) < READ_FRAMES:
                frame = read(fd, _READ_SIZE)
                append(frame)
                size += len(frame)
        except BlockingIOError:
            pass
        except OSError as error:
            self._died(error)
        if not frames:
            return
        if not self._vnet_hdr:
            frames = [NO_OFFLOAD + frame for frame in frames]
        if min(map(len, frames)) < MIN_FRAME or max(map(len, frames)) > MAX_FRAME:
            count = len(frames)
            frames = [frame for frame in frames if MIN_FRAME <= len(frame) <= MAX_FRAME]
            self.drop("size", count - len(frames))
        before = len(frames)
        if before > 1 and self._vnet_hdr:
            frames = cast("list[bytes]", coalesce(frames))
            self.counters["joined"] += before - len(frames)
        for batch in cut(frames):
            if batch:
                self.pass_on(batch)

    def send(self, frames: Sequence[Buffer]) -> None:
        """Write each frame. Those that the kernel does not accept are dropped, and counted by reason."""
        self.count_sent(frames)
        fd = self._fd
        if fd < 0:
            self.drop("tap_absent", len(frames))
            return
        write = os.write
        if not self._vnet_hdr:
            frames = self._plain(frames)
        elif len(frames) > 1:
            before, frames = len(frames), coalesce(frames)
            self.counters["coalesced"] += before - len(frames)
        written = 0
        leased, context = self.endpoint.lease, self.context
        for at, frame in enumerate(frames):
            # Checked before each frame: the process may have been stopped since the last one.
            if leased and monotonic() >= context.lease:
                self.drop("no_lease", len(frames) - at)
                break
            try:
                write(fd, frame)
                written += 1
            except OSError as error:
                number = error.errno or 0
                self.drop(_REASONS.get(number, "tap_error"))
                if number in _DEAD:
                    self._died(error)
                    self.drop("tap_absent", len(frames) - at - 1)
                    break
        self.counters["written"] += written

    def _plain(self, frames: Sequence[Buffer]) -> list[bytes]:
        out = []
        for frame in frames:
            plain = to_plain(frame)
            if not plain:
                self.drop("offload")
            out += plain
        return out

    # -- netdev ---------------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            with contextlib.ExitStack() as opened:
                sock = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                sock.setblocking(False)
                sock.connect(self._path)
                request = encode_request(Request(self._verb, self.name, self.context.id, self.endpoint.lease))
                if self._verb == "get":
                    sock.send(request)
                else:
                    socket.send_fds(sock, [request], [self._fd])
                # It was asked; the socket stays open for the answer.
                opened.pop_all()
        except OSError as error:
            self._again(error.strerror or str(error))
            return
        self._socket = sock
        self.context.reactor.watch(sock.fileno(), READ, self._answer)
        self._timer = self.context.reactor.call_later(ANSWER, lambda: self._try_later("no answer"))

    def _answer(self, _events: int) -> None:
        assert self._socket is not None
        fds: list[int] = []
        try:
            data, fds = receive(self._socket)
            info = decode_reply(data)
        except BlockingIOError:
            return
        except RefusedError as error:
            if self._verb == "get" and not error.retry and self._fd < 0:
                raise ConfigError(f"{self.option} {self.endpoint}: {error}") from None
            self.context.complain("tap.refused", self.name, tap=self.name, error=str(error))
            # A netdev that refuses to take our descriptor back may have another one for us.
            self._verb = "get"
            self._try_later(str(error))
            return
        except (WireError, OSError) as error:
            close_all(fds)
            self._try_later(str(error))
            return
        if self._verb == "get" and not fds:
            self._try_later("netdev sent no descriptor")
            return
        self._timer.cancel()
        self._pause = RETRY
        if self._verb == "get":
            self._attach(fds.pop(0), vnet_hdr=info.vnet_hdr)
            self.context.log(
                "info", "tap.attached", port=self.port, tap=self.name, mac=info.mac, vnet_hdr=info.vnet_hdr
            )
        else:
            self.context.log("info", "tap.returned", port=self.port, tap=self.name)
        close_all(fds)
        self._verb = "return"

    def _attach(self, fd: int, *, vnet_hdr: bool) -> None:
        self._detach()
        os.set_blocking(fd, False)
        self._fd, self._vnet_hdr = fd, vnet_hdr
        if self.reads:
            self.context.reactor.watch(fd, READ if self._reading else 0, self._ready)
        self.context.on_ready()

    def _detach(self) -> None:
        if self._fd >= 0:
            self.context.reactor.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _died(self, error: OSError) -> None:
        if error.errno not in _DEAD:
            self.counters["read_errors"] += 1
            self.context.complain("tap.unreadable", self.name, tap=self.name, error=error.strerror)
            return
        self.context.log("warning", "tap.died", port=self.port, tap=self.name, error=error.strerror)
        self._why = f"tap {self.name}: its interface is gone"
        self._detach()
        self.context.on_ready()
        self._verb = "get"
        self._try_later("gone")

    def _disconnect(self) -> None:
        self._timer.cancel()
        if self._socket is not None:
            self.context.reactor.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _try_later(self, why: str) -> None:
        self._disconnect()
        self._again(why)

    def _again(self, why: str) -> None:
        if self._fd < 0:
            self._why = f"tap {self.name}: netdev at {self._path}: {why}"
        self._timer = self.context.reactor.call_later(self._pause, self._connect)
        self._pause = min(self._pause * 2, RETRY_MAX)

    # -- end ------------------------------------------------------------------------------------

    def _interest(self) -> None:
        """Frames that are not read stay in the kernel, whose queue is the longest, and which counts what it drops. When
        we drain they are for the next reader.
        """
        if self.reads and self._fd >= 0:
            self.context.reactor.interest(self._fd, READ if self._reading else 0)

    def close(self) -> None:
        """Close the descriptor. netdev has its own copy, so the interface stays up."""
        with contextlib.suppress(OSError):
            self._disconnect()
        self._detach()
