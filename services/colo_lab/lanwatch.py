"""A capture on the client LAN that looks at one thing: which host's port the guest's frames come from.

`python -m colo_lab.lanwatch FILE` in the client's namespace writes what it has seen, as JSON, to FILE a few
times a second and at its end::

    {"frames": {"lan-p": n, "lan-s": n}, "switches": [[seconds, "lan-s"], …], "late": n, "lost": n, …}

`switches` says when the port changed from which the guest was heard; more than one change means that there were two
writers. For each connection that goes on after a change, two things are checked (S3). The byte must come that the
client expected next, whatever else is sent before it, because frames are lost at a failover. And the ACK must not go
back. A packet filter makes the kernel hand over only the first bytes of those frames, in the order in which they came.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any, Final

from colo_lab.config import GUEST_MAC
from colo_lab.spaces import BRIDGE

SNAP: Final = 128
"""Bytes of each frame that are looked at: Ethernet, IPv6, TCP with its options."""
WRITE: Final = 0.2
"""Seconds between writes of the file."""
RCVBUF: Final = 256 << 20
"""Bytes of the socket's buffer. The kernel counts and keeps whole frames in it, though it hands over their beginnings
alone, and on a busy machine it may take a second until we run.
"""
LAST_LOOK: Final = 2.0
"""So many seconds after SIGTERM all that had been captured by then must have been read."""
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_IGNORE_OUTGOING = 23

_TCP = struct.Struct("!HHIIBB")


def packet_filter(mac: bytes, ifindex: int) -> list[tuple[int, int, int, int]]:
    """Classic BPF that passes frames from `mac`, except for those of interface `ifindex` (the bridge, which repeats
    them).
    """
    high, low = struct.unpack("!HI", mac)
    ifidx = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX
    return [
        (0x20, 0, 0, ifidx),  # ld ifidx
        (0x15, 5, 0, ifindex),  # jeq: drop
        (0x28, 0, 0, 6),  # ldh [6]
        (0x15, 0, 3, high),
        (0x20, 0, 0, 8),  # ld [8]
        (0x15, 0, 1, low),
        (0x06, 0, 0, SNAP),  # ret
        (0x06, 0, 0, 0),
    ]


class Flows:
    """For each connection of the guest: how far it got on the port from which it was last heard."""

    def __init__(self) -> None:
        self._flows: dict[bytes, list[Any]] = {}
        self.continued = 0
        self.expected: dict[bytes, int] = {}
        """Connections that went on behind the byte that the client expects next. This byte must still come."""
        self._broken: list[str] = []
        self.resets: dict[str, int] = {}

    def see(self, port: str, data: memoryview, size: int) -> bool:
        """A frame of `size` bytes came from `port`. True when it moves a connection on: payload, or a higher ACK."""
        if size < 54:
            return False
        kind = data[12] << 8 | data[13]
        if kind == 0x0800 and data[23] == 6:
            l4 = 14 + (data[14] & 15) * 4
            end = 14 + (data[16] << 8 | data[17])
            key = bytes(data[26:34]) + bytes(data[l4 : l4 + 4])
        elif kind == 0x86DD and data[20] == 6:
            l4 = 54
            end = 54 + (data[18] << 8 | data[19])
            key = bytes(data[22:54]) + bytes(data[l4 : l4 + 4])
        else:
            return False
        if len(data) < l4 + 14:
            return False
        _, _, seq, ack, off, flags = _TCP.unpack_from(data, l4)
        if flags & 4:
            self.resets[port] = self.resets.get(port, 0) + 1
            return False
        length = end - l4 - (off >> 4) * 4
        stop = (seq + length + (flags & 1) + (flags >> 1 & 1)) & 0xFFFFFFFF
        flow = self._flows.get(key)
        if flow is None or flags & 2:
            self._flows[key] = [port, ack, stop]
            return bool(length)
        moved: bool = length > 0 or 0 < (ack - flow[1]) & 0xFFFFFFFF < 0x80000000
        if flow[0] != port:
            self.continued += 1
            if (ack - flow[1]) & 0x80000000:
                self._broken.append(f"{_name(key)}: ACK {flow[1]} on {flow[0]}, then {ack} on {port}")
            if (flow[2] - seq) & 0x80000000:
                self.expected[key] = flow[2]
            flow[0] = port
        elif self.expected:
            wanted = self.expected.get(key)
            if wanted is not None and not (wanted - seq) & 0x80000000 and (wanted - stop) & 0x80000000:
                del self.expected[key]
        if not (ack - flow[1]) & 0x80000000:
            flow[1] = ack
        if not (stop - flow[2]) & 0x80000000:
            flow[2] = stop
        return moved

    def broken(self) -> list[str]:
        """What contradicts S3, in words."""
        late = [f"{_name(key)}: byte {wanted} never came" for key, wanted in self.expected.items()]
        return (self._broken + late)[:20]


def _name(key: bytes) -> str:
    width = 4 if len(key) == 12 else 16
    family = socket.AF_INET if width == 4 else socket.AF_INET6
    ends = [socket.inet_ntop(family, key[at : at + width]) for at in (0, width)]
    ports = struct.unpack("!HH", key[2 * width :])
    return f"{ends[0]}:{ports[0]} > {ends[1]}:{ports[1]}"


class Watcher:
    """Everything that the capture has seen."""

    def __init__(self) -> None:
        self.flows = Flows()
        self.frames: dict[str, int] = {}
        self.switches: list[tuple[float, str]] = []
        self.moves: dict[str, list[float]] = {}
        """For each port: when a connection first moved on there, and when one did last."""
        self.late = 0
        """Frames from a port that had been left for another one."""
        self._port = ""
        self._left: set[str] = set()

    def see(self, now: float, port: str, data: memoryview, size: int) -> None:
        """A frame of the guest."""
        self.frames[port] = self.frames.get(port, 0) + 1
        if port != self._port:
            if port in self._left:
                self.late += 1
            elif self._port:
                self._left.add(self._port)
            if port not in self._left:
                self._port = port
            if len(self.switches) < 1000:
                self.switches.append((now, port))
        if self.flows.see(port, data, size):
            self.moves.setdefault(port, [now, now])[1] = now

    def report(self, now: float, lost: int) -> dict[str, Any]:
        """What the file holds. Times are monotonic seconds of this machine."""
        return {
            "at": now,
            "frames": self.frames,
            "switches": self.switches[:100],
            "late": self.late,
            "lost": lost,
            "moves": self.moves,
            "continued": self.flows.continued,
            "broken": self.flows.broken(),
            "resets": self.flows.resets,
        }


def main() -> None:
    """Watch until SIGTERM."""
    target = Path(sys.argv[1])
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    program = packet_filter(bytes.fromhex(GUEST_MAC.replace(":", "")), socket.if_nametoindex(BRIDGE))
    # The kernel copies the program from our memory.
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(packed)))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RCVBUF)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:  # This came before the filter was there.
            sock.recv(1)
    with contextlib.suppress(OSError):
        # The capture costs little, but frames that it misses make the whole run worthless.
        os.nice(-10)
    stop: list[float] = []
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.append(time.monotonic()))
    watcher, buffer, lost, due = Watcher(), bytearray(SNAP), 0, 0.0
    view = memoryview(buffer)
    over = False
    while not over:
        quiet = not select.select([sock], [], [], 0 if stop else WRITE)[0]
        now = time.monotonic()
        over = bool(stop) and (quiet or now > stop[0] + LAST_LOOK)
        with contextlib.suppress(BlockingIOError):
            for _ in range(256):
                size, where = sock.recvfrom_into(buffer)
                if where[0].startswith("lan-"):  # Other ports repeat what an impaired LAN hands on.
                    watcher.see(now, where[0], view[:size], size)
        if now >= due or over:
            due = now + WRITE
            _packets, drops = struct.unpack("II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            lost += drops
            _write(target, watcher.report(now, lost))


def _write(target: Path, value: dict[str, Any]) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_text(json.dumps(value), encoding="utf-8")
    partial.replace(target)


if __name__ == "__main__":
    main()
