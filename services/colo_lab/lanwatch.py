"""A capture on the client LAN: which host's port do the guest's frames come from, and do its connections continue?

`python -m colo_lab.lanwatch FILE` in the client's namespace writes what it has seen, as JSON, to FILE a few times a
second and when it ends::

    {"frames": {"lan-p": n, "lan-s": n}, "switches": [[seconds, "lan-s"], …], "late": n, "lost": n, …}

`switches` lists when the port changed from which the guest was heard; more than one change means that there were two
writers. For each connection that continues after a change, two things are checked (S3). The next byte that the client
expects must arrive, possibly after later bytes, because frames are lost at a failover. And the ACK number must not go
back. A packet filter makes the kernel deliver only the first bytes of those frames, in the order in which they came.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from colo_lab.config import GUEST_MAC
from colo_lab.files import write_json
from colo_lab.namespaces import BRIDGE
from colo_proto.frame import ETH, MAX_FRAME, NO_OFFLOAD
from colo_proto.net.packet import PROTO_TCP, glance
from colo_proto.net.tcp import FIN, OPTIONS_AT, RST, SYN, segment
from colo_proto.seq import MASK, diff

SNAP: Final = 128
"""Bytes of each frame that are looked at: Ethernet, IPv6, TCP with its options."""
SHORTEST: Final = ETH + 14 + 40
"""Bytes of the shortest frame with IPv6, or with IPv4 and TCP."""
WRITE_INTERVAL: Final = 0.2
"""Seconds between writes of the file."""
RCVBUF: Final = 256 << 20
"""Bytes of the socket's buffer. The kernel keeps whole frames in it, though it delivers only their first bytes, and on
a busy machine this process may have to wait a second until it runs.
"""
DRAIN_WITHIN: Final = 2.0
"""Seconds after SIGTERM for reading what was captured before."""
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_IGNORE_OUTGOING = 23


def packet_filter(mac: bytes, ifindex: int) -> list[tuple[int, int, int, int]]:
    """A classic BPF program that passes frames from `mac`, except for those of interface `ifindex` (the bridge, which
    repeats them).
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


@dataclass(slots=True)
class Flow:
    """One connection of the guest: the port from which it was last heard, and its progress (sequence numbers)."""

    port: str
    home: str
    """The port from which it was heard first."""
    ack: int
    end: int
    """The number behind its last byte."""
    progressed: bool = False
    """It has made progress from another port than before."""
    over: bool = False
    """The guest has sent FIN or RST."""


class Flows:
    """All connections of the guest."""

    def __init__(self) -> None:
        self._flows: dict[bytes, Flow] = {}
        self.continued = 0
        """Connections that made progress from another port than before."""
        self.reset = 0
        """Connections that were reset from another port than before."""
        self.expected: dict[bytes, int] = {}
        """By connection: the next byte that the client expects, where later bytes came first. It must still arrive."""
        self._broken: dict[bytes, str] = {}
        self.resets: Counter[str] = Counter()

    def see(self, port: str, frame: bytes) -> bool:
        """Record a frame from `port`, of which the headers are enough. True if a connection makes progress: payload or
        a higher ACK.
        """
        if len(frame) < SHORTEST:
            return False
        proto, l4, stop, key = glance(frame, MAX_FRAME)
        tcp = segment(frame, l4, stop) if proto == PROTO_TCP and 0 < l4 <= len(frame) - OPTIONS_AT else None
        if tcp is None:
            return False
        if tcp.flags & RST:
            self._reset(port, key)
            return False
        seq, ack, length = tcp.seq, tcp.ack, stop - tcp.data
        end = (seq + tcp.length) & MASK
        flow = self._flows.get(key)
        if flow is None or tcp.flags & SYN:
            self._flows[key] = Flow(port, port, ack, end, over=bool(tcp.flags & FIN))
            return length > 0
        acked = diff(ack, flow.ack)
        if flow.port != port:
            if acked < 0:
                self._broken[key] = f"{_name(key)}: ACK {flow.ack} on {flow.port}, then {ack} on {port}"
            if diff(flow.end, seq) < 0:
                self.expected[key] = flow.end
            flow.port = port
        elif self.expected:
            wanted = self.expected.get(key)
            if wanted is not None and diff(seq, wanted) <= 0 and diff(wanted, end) < 0:
                del self.expected[key]
        if acked > 0:
            flow.ack = ack
        if diff(flow.end, end) < 0:
            flow.end = end
        flow.over |= bool(tcp.flags & FIN)
        progress = length > 0 or acked > 0
        if progress and port != flow.home and not flow.progressed:
            flow.progressed = True
            self.continued += 1
        return progress

    def _reset(self, port: str, key: bytes) -> None:
        self.resets[port] += 1
        flow = self._flows.get(key)
        if flow is None or flow.over:
            return
        flow.over = True
        # Its stream need not continue any more.
        self.expected.pop(key, None)
        self._broken.pop(key, None)
        if port != flow.home:
            self.reset += 1
            self.continued -= flow.progressed

    def unknown(self, port: str) -> int:
        """Connections that were open when `port` was left, and have neither made progress nor been reset since."""
        return sum(flow.home == port and not flow.over and not flow.progressed for flow in self._flows.values())

    def broken(self) -> list[str]:
        """What contradicts S3, as text."""
        missing = [f"{_name(key)}: byte {wanted} never came" for key, wanted in self.expected.items()]
        return ([*self._broken.values(), *missing])[:20]


def _name(key: bytes) -> str:
    width = 4 if len(key) < 2 * 16 else 16
    here, there = (ip_address(key[at : at + width]) for at in (0, width))
    ports = struct.unpack_from("!HH", key, 2 * width)
    return f"{here}:{ports[0]} > {there}:{ports[1]}"


class Watcher:
    """Everything that the capture has seen."""

    def __init__(self) -> None:
        self.flows = Flows()
        self.frames: Counter[str] = Counter()
        self.switches: list[tuple[float, str]] = []
        self.moves: dict[str, list[float]] = {}
        """For each port: when a connection made progress there for the first and for the last time."""
        self.late = 0
        """Frames from a port after the guest was heard from another one."""
        self._port = ""
        self._left: set[str] = set()

    def see(self, now: float, port: str, frame: bytes) -> None:
        """Record a frame of the guest."""
        self.frames[port] += 1
        if port != self._port:
            if port in self._left:
                self.late += 1
            elif self._port:
                self._left.add(self._port)
            if port not in self._left:
                self._port = port
            if len(self.switches) < 1000:
                self.switches.append((now, port))
        if self.flows.see(port, frame):
            self.moves.setdefault(port, [now, now])[1] = now

    def report(self, now: float, lost: int) -> dict[str, Any]:
        """The content of the file. Times are monotonic seconds of this machine."""
        return {
            "at": now,
            "frames": self.frames,
            "switches": self.switches[:100],
            "late": self.late,
            "lost": lost,
            "moves": self.moves,
            "continued": self.flows.continued,
            "reset": self.flows.reset,
            "unknown": sum(map(self.flows.unknown, self._left)),
            "broken": self.flows.broken(),
            "resets": self.flows.resets,
        }


def main() -> None:
    """StatusPoll until SIGTERM."""
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
        while True:  # Discard what was captured before the filter was attached.
            sock.recv(1)
    with contextlib.suppress(OSError):
        # The capture costs little CPU time, but if it misses frames, the whole run proves nothing.
        os.nice(-10)
    stop: list[float] = []
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.append(time.monotonic()))
    watcher, lost, due = Watcher(), 0, 0.0
    over = False
    while not over:
        quiet = not select.select([sock], [], [], 0 if stop else WRITE_INTERVAL)[0]
        now = time.monotonic()
        over = bool(stop) and (quiet or now > stop[0] + DRAIN_WITHIN)
        with contextlib.suppress(BlockingIOError):
            for _ in range(256):
                data, where = sock.recvfrom(SNAP)
                if where[0].startswith("lan-"):  # The port of an impaired LAN repeats the frames of the others.
                    watcher.see(now, where[0], NO_OFFLOAD + data)
        if now >= due or over:
            due = now + WRITE_INTERVAL
            _packets, drops = struct.unpack("II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            lost += drops
            write_json(sys.argv[1], watcher.report(now, lost))


if __name__ == "__main__":
    main()
