"""A LAN that loses and reorders frames between the client and the hosts, in user space (not every kernel has netem).

`python -m colo_lab.impair LOSS REORDER SEED` in the client's namespace::

    client's addresses on tap net0 <--> this process <--> tap imp0, a port of the bridge <--> hosts

In each direction LOSS percent of the frames are lost, and REORDER percent are held back until a few later frames or
a few milliseconds have passed. SEED decides which frames these are. The taps take no offloads, so that frames are not
larger than the MTU, as on a wire, and are lost one by one.
"""

import contextlib
import os
import random
import select
import signal
import sys
import time
from typing import Final

from colo_lab.config import CLIENT_MAC
from colo_lab.namespaces import BRIDGE, IMPAIRED_IF
from colo_netdev.config import parse_tap
from colo_netdev.taps import open_tap

PORT: Final = "imp0"
PASSED_BY: Final = 8
"""Number of frames at most that overtake a frame that is held back."""
HELD_AT_MOST: Final = 0.005
"""No frame is held back for longer than this, seconds."""
BURST: Final = 64
MAX_FRAME: Final = 65536


class Direction:
    """One direction of the LAN: decides which frames are lost and which are held back. Pure."""

    def __init__(self, loss: float, reorder: float, seed: int) -> None:
        self._loss, self._reorder = loss / 100, reorder / 100
        self._random = random.Random(seed)
        self._held: list[tuple[int, float, bytes]] = []
        self._count = 0
        self.lost = self.reordered = self.passed = 0

    def pass_on(self, frame: bytes, now: float) -> list[bytes]:
        """The frames that go out when `frame` comes in."""
        self._count += 1
        dice = self._random.random()
        out = []
        if dice < self._loss:
            self.lost += 1
        elif dice < self._loss + self._reorder:
            self.reordered += 1
            self._held.append((self._count + self._random.randint(1, PASSED_BY), now + HELD_AT_MOST, frame))
        else:
            out = [frame]
            self.passed += 1
        return out + self.on_timer(now)

    def on_timer(self, now: float) -> list[bytes]:
        """The frames that have been held back for long enough."""
        out = [frame for count, late, frame in self._held if count <= self._count or late <= now]
        self._held = [one for one in self._held if one[0] > self._count and one[1] > now]
        self.passed += len(out)
        return out

    def deadline(self) -> float | None:
        """When `on_timer` has frames to send; None when no frame is held back."""
        return min((late for _, late, _ in self._held), default=None)


def main() -> None:
    """Relay frames until SIGTERM."""
    loss, reorder, seed = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    inner = open_tap(parse_tap(f"{PORT},bridge={BRIDGE},vnet_hdr=off")).fd
    outer = open_tap(parse_tap(f"{IMPAIRED_IF},vnet_hdr=off,mac={CLIENT_MAC}")).fd
    ways = {inner: (Direction(loss, reorder, seed), outer), outer: (Direction(loss, reorder, seed + 1), inner)}
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stop.append(number))
    while not stop:
        now = time.monotonic()
        due = [when for way, _ in ways.values() if (when := way.deadline()) is not None]
        for fd in select.select(list(ways), [], [], max(0.0, min(due) - now) if due else 0.5)[0]:
            way, to = ways[fd]
            with contextlib.suppress(BlockingIOError):
                for _ in range(BURST):
                    _write(to, way.pass_on(os.read(fd, MAX_FRAME), time.monotonic()))
        now = time.monotonic()
        for way, to in ways.values():
            _write(to, way.on_timer(now))
    for way, _ in ways.values():
        sys.stdout.write(f"passed {way.passed}, lost {way.lost}, held back {way.reordered}\n")


def _write(fd: int, frames: list[bytes]) -> None:
    for frame in frames:
        with contextlib.suppress(OSError):
            os.write(fd, frame)


if __name__ == "__main__":
    main()
