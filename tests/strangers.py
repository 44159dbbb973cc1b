"""Many connections of peers that are not permitted, none of which sends what it should."""

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import time
from typing import Self

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47)
"""The greeting of ZMTP 3 with keys; nothing follows it."""
KEYLESS = GREETING.replace(b"CURVE", b"NULL\0")
"""The same greeting without keys."""


def strangers(address, count: int, say: bytes = b"") -> list[socket.socket]:
    """A number of connections at once, which stay open until they are closed."""
    made = []
    for _ in range(count):
        one = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        one.setblocking(False)
        if one.connect_ex(address) == 0 and say:
            with contextlib.suppress(OSError):
                one.send(say)
        made.append(one)
    if not say or isinstance(address, str):
        return made
    waiting = select.poll()
    for one in made:
        waiting.register(one, select.POLLOUT)
    end = time.monotonic() + 20
    left = {one.fileno(): one for one in made}
    while left and time.monotonic() < end:
        for fd, _ in waiting.poll(100):
            waiting.unregister(fd)
            with contextlib.suppress(OSError):
                left.pop(fd).send(say)
    return made


class Flood:
    """A process that connects to a port again and again, as fast as it can, and keeps the connections open."""

    def __init__(
        self, port: int, say: bytes = GREETING, source: str = "127.0.0.1", hold: int = 2000, wait: bool = True
    ) -> None:
        self.child = subprocess.Popen(
            [sys.executable, __file__, str(port), say.hex(), source, str(hold)], stdout=subprocess.PIPE
        )
        assert self.child.stdout is not None
        if wait:
            self.child.stdout.readline()

    def stop(self) -> None:
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def flood(port: int, say: bytes, source: str, hold: int) -> None:
    parent, poll, live, made, begun = os.getppid(), select.epoll(), {}, 0, False
    while os.getppid() == parent:
        for _ in range(min(50, hold - len(live))):
            one = socket.socket()
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                if source != "127.0.0.1":
                    one.bind((source, 0))
                one.connect_ex(("127.0.0.1", port))
                poll.register(one.fileno(), select.EPOLLOUT)
                live[one.fileno()] = one
        for fd, events in poll.poll(0.001 if len(live) < hold else 0.05, 512):
            if events & ~select.EPOLLOUT:
                # Perhaps no process listens yet.
                poll.unregister(fd)
                live.pop(fd).close()
                continue
            made += 1
            if say:
                with contextlib.suppress(OSError):
                    live[fd].send(say)
            poll.modify(fd, select.EPOLLRDHUP)
        if made >= hold // 4 and not begun:
            begun = True
            print("flooding", flush=True)


if __name__ == "__main__":
    flood(int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
