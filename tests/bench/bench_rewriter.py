"""The cost of the rewriter, compared with QEMU's filter-rewriter in the same run.

    python -m tests.bench rewriter [--frames 20000] [--rounds 5]

First the core alone: CPU microseconds a frame in batches of 64, the median of the rounds. Then whole processes over
QEMU's byte streams, ours and QEMU's in turn: client ACKs on their way in and full segments on their way out, of a
connection whose initial sequence numbers differ (QEMU changes neither time stamps nor SACK blocks).
"""

import argparse
from contextlib import ExitStack
from itertools import accumulate
from statistics import median
from time import process_time

from tests import craft
from tests.bench.sides import QEMU, Side, Step, cpu, framed, our_rewriter, qemu_rewriter

from colo_proto.messages import Promote
from colo_proto.net.tcp import ACK, PSH, SYN
from colo_rewriter.config import RewriterConfig
from colo_rewriter.rewriter import Rewriter
from colo_runtime.tuning import tune_memory

BATCH, ROUNDS, REPEATS = 64, 300, 5
ENDS = {4: ("10.0.0.9", "10.0.0.2"), 6: ("fd00::9", "fd00::2")}


def client(family, seq, ack, flags, payload=b"", sport=5000, **more):
    src, dst = ENDS[family]
    return craft.tcp(src, dst, sport, 80, seq, ack, flags, payload, **more)


def guest(family, seq, ack, flags, payload=b"", dport=5000, **more):
    dst, src = ENDS[family]
    return craft.tcp(src, dst, 80, dport, seq, ack, flags, payload, **more)


def opened(family=4, secondary=1500, flows=1, **more):
    """A rewriter with `flows` open connections; equal numbers when `secondary` is 1000."""
    core = Rewriter(RewriterConfig())
    same = secondary == 1000
    for port in range(5000, 5000 + flows):
        core.receive("indev", [client(family, 100, 0, SYN, sport=port, options=craft.timestamps(5, 0), **more)], 0.0)
        stamps = craft.timestamps(7000 if same else 9000, 5)
        core.receive("netdev", [guest(family, secondary, 101, SYN | ACK, dport=port, options=stamps, **more)], 0.0)
        stamps = craft.timestamps(6, 7000)
        core.receive("indev", [client(family, 101, 1001, ACK, sport=port, options=stamps, **more)], 0.0)
    return core


def leading():
    """A rewriter whose host leads from the beginning, with one open connection."""
    core = Rewriter(RewriterConfig(lead_in="ipc://lead0", lead_out="ipc://compare0"))
    core.tell(Promote(2), 0.0)
    core.receive("lead_in", [client(4, 100, 0, SYN, options=craft.timestamps(5, 0))], 0.0)
    core.receive("netdev", [guest(4, 1000, 101, SYN | ACK, options=craft.timestamps(7000, 5))], 0.0)
    core.receive("lead_in", [client(4, 101, 1001, ACK, options=craft.timestamps(6, 7000))], 0.0)
    return core


def measure(core, port, frames):
    """CPU time per frame, in microseconds: the median of the rounds."""
    frames = (frames * BATCH)[:BATCH]
    costs = []
    for _ in range(REPEATS):
        start = process_time()
        for round_ in range(ROUNDS):
            core.receive(port, frames, round_ * 1e-3)
        costs.append(process_time() - start)
    return median(costs) / ROUNDS / BATCH * 1e6


class Measured:
    """A running rewriter with one open connection."""

    def __init__(self, side: Side, back: str) -> None:
        self.side = side
        self.ways = {"in": ("net", "guest"), "out": ("guest", back)}
        self.rates: dict[str, list[float]] = {"in": [], "out": []}
        self.costs: dict[str, list[float]] = {"in": [], "out": []}
        side.probe("net", "guest")
        side.probe("guest", back)
        stamps = craft.timestamps(5, 0)
        self._one("in", client(4, 100, 0, SYN, options=stamps))
        self._one("out", guest(4, 1500, 101, SYN | ACK, options=craft.timestamps(9000, 5)))
        self._one("in", client(4, 101, 1001, ACK, options=craft.timestamps(6, 7000)))

    def _one(self, way: str, frame: bytes) -> None:
        port, out = self.ways[way]
        self.side.pump([Step(port, framed([frame]))], out, len(frame) - 6)

    def round(self, way: str, frames: list[bytes]) -> None:
        port, out = self.ways[way]
        windows = [framed(frames[at : at + 256]) for at in range(0, len(frames), 256)]
        # Two windows are on their way: QEMU's queues hold about a thousand frames, and drop further ones.
        ends = [0, 0, *accumulate(map(len, windows))]
        steps = [Step(port, window, after) for window, after in zip(windows, ends, strict=False)]
        before = cpu(self.side.pid)
        seconds = self.side.pump(steps, out, ends[-1])
        self.costs[way].append((cpu(self.side.pid) - before) / len(frames) * 1e6)
        self.rates[way].append(len(frames) / seconds)

    def show(self, way: str) -> str:
        return f"{median(self.rates[way]):9,.0f} frames/s {median(self.costs[way]):6.2f} us"


def beside_qemu(frames: int, rounds: int) -> None:
    acks = [client(4, 101, 1001, ACK, options=craft.timestamps(8, 7001))] * frames
    data = [guest(4, 1501, 101, PSH | ACK, bytes(1448), options=craft.timestamps(9001, 8))] * frames
    with ExitStack() as stack:
        sides = [Measured(stack.enter_context(our_rewriter()), "out")]
        if QEMU is not None:
            sides.append(Measured(stack.enter_context(qemu_rewriter()), "net"))
        for _ in range(rounds):
            for one in sides:
                one.round("in", acks)
                one.round("out", data)
        for way, what in (("in", "ACK, timestamps in"), ("out", "1,448 bytes out")):
            print(f"{what:<28} ours {sides[0].show(way)}", end="")
            print(f"   QEMU {sides[1].show(way)}" if QEMU is not None else "   QEMU is not installed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tune_memory()
    stamps_in, stamps_out = craft.timestamps(8, 7001), craft.timestamps(9001, 8)
    sack = craft.sack((2000, 3000))
    cases = [
        ("ACK", 4, "indev", client(4, 101, 1001, ACK), {}),
        ("ACK, timestamps", 4, "indev", client(4, 101, 1001, ACK, options=stamps_in), {}),
        ("ACK, timestamps, IPv6", 6, "indev", client(6, 101, 1001, ACK, options=stamps_in), {}),
        ("ACK, timestamps, SACK", 4, "indev", client(4, 101, 1001, ACK, options=stamps_in + sack), {}),
        ("ACK, timestamps, VLAN", 4, "indev", client(4, 101, 1001, ACK, options=stamps_in, tags=(5,)), {"tags": (5,)}),
        ("1,448 bytes", 4, "netdev", guest(4, 1501, 101, PSH | ACK, bytes(1448), options=stamps_out), {}),
        ("1,448 bytes, IPv6", 6, "netdev", guest(6, 1501, 101, PSH | ACK, bytes(1448), options=stamps_out), {}),
        ("64 KB GSO", 4, "netdev", guest(4, 1501, 101, PSH | ACK, bytes(64000), options=stamps_out, gso=1448), {}),
    ]
    print(f"{'TCP':<28} {'us/frame':>9}")
    for name, family, port, frame, more in cases:
        cost = measure(opened(family, **more), port, [frame])
        print(f"{name + (' in' if port == 'indev' else ' out'):<28} {cost:9.2f}")
    frame = client(4, 101, 1001, ACK, options=stamps_in)
    print(f"{'equal numbers: passed':<28} {measure(opened(secondary=1000), 'indev', [frame]):9.2f}")
    for name, fast in (("1,448 bytes out, leading", True), ("1,448 bytes out, equal numbers", False)):
        out = guest(4, 1001, 101, PSH | ACK, bytes(1448), options=stamps_out)
        core = leading() if fast else opened(secondary=1000)
        print(f"{name:<28} {measure(core, 'netdev', [out]):9.2f}")
    print(f"{'ACK in, leading':<28} {measure(leading(), 'lead_in', [frame]):9.2f}")
    many = [client(4, 101, 1001, ACK, sport=5000 + n, options=stamps_in) for n in range(0, 10000, 156)]
    print(f"{'10,000 connections':<28} {measure(opened(flows=10000), 'indev', many):9.2f}")
    print(f"{'UDP':<28} {measure(opened(), 'indev', [craft.udp(*ENDS[4], 5000, 80, bytes(64))]):9.2f}")
    print("\nwhole processes over QEMU's byte streams (CPU of all threads)")
    beside_qemu(options.frames, options.rounds)


if __name__ == "__main__":
    main()
