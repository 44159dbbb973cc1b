"""A capture on the client LAN: which host's port do the guest's frames come from, and do its connections continue?

`python -m colo_lab.lanwatch FILE [QUIET]` in the client's namespace writes what it has seen, as JSON, to FILE a few
times a second and when it ends::

    {"frames": {"lan-p": n, "lan-s": n}, "switches": [[seconds, "lan-s"], …], "changes": […], "late": n, "lost": n, …}

`switches` lists when another port was heard than before. A *change* is a switch to a port that had not been left. In
the symmetric wiring it may also be one to a port that was left, if nothing was heard from it for QUIET seconds. Every
other frame from a port that was left is *late*: there were two writers.

For each connection that continues after a change, two things are checked (S3). The next byte that the client expects
must arrive, possibly after later bytes, because frames are lost at a failover. And the ACK number must not go back. A
packet filter makes the kernel deliver only the first bytes of those frames, in the order in which they came.
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
    born: int
    """How many changes there had been when it was heard first."""
    since: int
    """How many there had been when it last made progress."""
    ack: int
    end: int
    """The number behind its last byte."""
    over: bool = False
    """The guest has sent FIN or RST."""


class Flows:
    """All connections of the guest."""

    def __init__(self) -> None:
        self._flows: dict[bytes, Flow] = {}
        self.changes = 0
        """How many changes of the port there were up to now."""
        self.continued: Counter[int] = Counter()
        """By the number of the change (from 1): connections that were open then and have made progress since."""
        self.reset: Counter[int] = Counter()
        """By the number of the change: connections that were open then, and were reset before the next change."""
        self.expected: dict[bytes, int] = {}
        """By connection: the next byte that the client expects, where later bytes came first. It must still arrive."""
        self._broken: dict[bytes, str] = {}
        self.resets: Counter[str] = Counter()

    def see(self, port: str, frame: bytes, *, late: bool = False) -> bool:
        """Record a frame from `port`, of which the headers are enough. True if a connection makes progress: payload or
        a higher ACK. `late`: the port had been left, so this is no progress since the last change.
        """
        if len(frame) < SHORTEST:
            return False
        proto, l4, stop, key = glance(frame, MAX_FRAME)
        tcp = segment(frame, l4, stop) if proto == PROTO_TCP and 0 < l4 <= len(frame) - OPTIONS_AT else None
        if tcp is None:
            return False
        if tcp.flags & RST:
            self._reset(port, key, late=late)
            return False
        seq, ack, length = tcp.seq, tcp.ack, stop - tcp.data
        end = (seq + tcp.length) & MASK
        flow = self._flows.get(key)
        if flow is None or tcp.flags & SYN:
            self._flows[key] = Flow(port, self.changes, self.changes, ack, end, over=bool(tcp.flags & FIN))
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
        if progress and not late and flow.since < self.changes:
            self.continued.update(range(flow.since + 1, self.changes + 1))
            flow.since = self.changes
        return progress

    def _reset(self, port: str, key: bytes, *, late: bool) -> None:
        self.resets[port] += 1
        flow = self._flows.get(key)
        if flow is None or flow.over:
            return
        flow.over = True
        # Its stream need not continue any more.
        self.expected.pop(key, None)
        self._broken.pop(key, None)
        if flow.born < self.changes and not late:
            self.reset[self.changes] += 1
            self.continued[self.changes] -= flow.since == self.changes

    def unknown(self, number: int) -> int:
        """Connections that were open at this change, and have neither made progress nor been reset since."""
        return sum(not flow.over and flow.since < number for flow in self._flows.values())

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

    def __init__(self, quiet: float | None = None) -> None:
        self.flows = Flows()
        self._quiet = quiet
        self._heard: dict[str, float] = {}
        self.frames: Counter[str] = Counter()
        self.switches: list[tuple[float, str]] = []
        self.changes: list[dict[str, Any]] = []
        """For each change: when it was, to which port, when a connection last made progress before it (None: none had),
        and when one did so for the first time after it (None: none has yet).
        """
        self.late = 0
        """Frames from a port after the guest was heard from another one."""
        self._port = ""
        self._left: set[str] = set()
        self._progress: float | None = None

    def see(self, now: float, port: str, frame: bytes) -> None:
        """Record a frame of the guest."""
        self.frames[port] += 1
        if port != self._port:
            if port not in self._left or self._may_return(now, port):
                self._change(now, port)
            else:
                self.late += 1
            if len(self.switches) < 1000:
                self.switches.append((now, port))
        self._heard[port] = now
        late = port != self._port
        if self.flows.see(port, frame, late=late) and not late:
            self._progress = now
            if self.changes and self.changes[-1]["after"] is None:
                self.changes[-1]["after"] = now

    def _may_return(self, now: float, port: str) -> bool:
        return self._quiet is not None and now - self._heard[port] >= self._quiet

    def _change(self, now: float, port: str) -> None:
        if self._port:
            self._left.add(self._port)
            self.changes.append({"at": now, "port": port, "before": self._progress, "after": None})
            self.flows.changes += 1
        self._left.discard(port)
        self._port = port

    def report(self, now: float, lost: int) -> dict[str, Any]:
        """The content of the file. Times are monotonic seconds of this machine."""
        return {
            "at": now,
            "frames": self.frames,
            "switches": self.switches[:100],
            "late": self.late,
            "lost": lost,
            "changes": [
                {
                    **change,
                    "continued": self.flows.continued[number],
                    "reset": self.flows.reset[number],
                    "unknown": self.flows.unknown(number),
                }
                for number, change in enumerate(self.changes, 1)
            ],
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
    watcher, lost, due = Watcher(float(sys.argv[2]) if len(sys.argv) > 2 else None), 0, 0.0
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
