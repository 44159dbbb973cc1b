"""The cost of comparing an equal pair and the number of pairs per second, together with QEMU's colo-compare.

    python -m tests.bench compare [--pairs 20000] [--rounds 5] [--flows 1 64 10000] [--only udp tcp]

UDP datagrams with 64 bytes and TCP segments with 1,448 bytes of payload (time stamps on), in a number of
flows that are already open, all of them equal on both sides. It measures CPU microseconds for each pair:

* core S,P and P,S: `Compare.receive` on both ports in batches of 64 frames, the secondary's first or the primary's;
* core and codec: S,P with unpacking the batches from our wire format and packing what is released;
* the whole process, all threads, over QEMU's byte streams (each frame behind its length, no batches), and QEMU's own
  compare on exactly the same bytes: the secondary's frames are a window of 256 ahead. (The other way round QEMU,
  which looks for the newest primary frame first, asks for a checkpoint at every UDP datagram of a pipelined flow.)
* the whole process over its own links (ZeroMQ with 64 frames in a message), as it normally runs.

Each figure is the median of the rounds. Only ratios are meaningful, not absolute values.
"""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import accumulate
from statistics import median
from time import process_time

from tests import craft
from tests.bench.sides import (
    QEMU,
    LinkedSide,
    Side,
    Step,
    cpu,
    framed,
    our_compare,
    our_linked_compare,
    qemu_compare,
)

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_proto.codec import Batch, decode, encode_batch
from colo_proto.core import Send
from colo_proto.net.tcp import ACK, PSH, SYN
from colo_runtime.tuning import tune_memory

GUEST, CLIENT = "10.0.0.2", "10.0.0.9"
SIZES = {"udp": 64, "tcp": 1448}
BATCH, WINDOW = 64, 256
FLIGHT = 3
"""Windows on their way at once: with the secondary's, that comes before, no more than the 1,024 frames that QEMU keeps
of a flow."""
SYN_OPTIONS = craft.mss(1460) + craft.sack_permitted() + craft.timestamps(1, 1) + craft.wscale(7)


class Traffic:
    """Frames of one guest, round after round: streams go on, datagrams differ."""

    def __init__(self, kind: str, flows: int) -> None:
        self.kind = kind
        self.name = f"{kind.upper()} {SIZES[kind]} B, {flows:,} flow" + ("s" if flows > 1 else "")
        self.ports = [5000 + n for n in range(flows)]
        self.seqs = [1000] * flows
        self.count = 0
        self.payload = bytes(range(256)) * (SIZES[kind] // 256 + 1)

    def opening(self) -> list[bytes]:
        """What both guests send when a flow is new."""
        if self.kind == "udp":
            return self.frames(len(self.ports))
        return [
            craft.tcp(GUEST, CLIENT, 80, port, 999, 500, SYN | ACK, b"", window=64000, options=SYN_OPTIONS)
            for port in self.ports
        ]

    def frames(self, count: int) -> list[bytes]:
        """The next `count` frames, flow by flow."""
        found = []
        for _ in range(count):
            flow = self.count % len(self.ports)
            port, number = self.ports[flow], self.count
            self.count += 1
            payload = number.to_bytes(4, "big") + self.payload[: SIZES[self.kind] - 4]
            if self.kind == "udp":
                found.append(craft.udp(GUEST, CLIENT, 53, port, payload))
            else:
                stamps = craft.timestamps(number, 1)
                more = {"window": 500, "options": stamps}
                found.append(craft.tcp(GUEST, CLIENT, 80, port, self.seqs[flow], 500, ACK | PSH, payload, **more))
                self.seqs[flow] = (self.seqs[flow] + len(payload)) & 0xFFFFFFFF
        return found


def copied(frames: list[bytes]) -> list[bytes]:
    """A copy in another place in memory, because what two guests send is never the same object."""
    return [bytes(bytearray(one)) for one in frames]


def batches(frames: list[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(frames), BATCH):
        yield frames[at : at + BATCH]


def released(outputs: list) -> int:
    return sum(len(one.frames) for one in outputs if isinstance(one, Send))


def core_alone(traffic: Traffic, pairs: int, rounds: int, order: tuple[str, str]) -> float:
    core = Compare(CompareConfig())
    for frames in batches(traffic.opening()):
        for port in ("secondary_in", "primary_in"):
            core.receive(port, frames, 1.0)
    costs = []
    for number in range(rounds):
        mine = traffic.frames(pairs)
        work = list(zip(batches(mine), batches(copied(mine)), strict=True))
        now, out = 2.0 + number, 0
        began = process_time()
        for primary, secondary in work:
            for port in order:
                out += released(core.receive(port, primary if port == "primary_in" else secondary, now))
        costs.append((process_time() - began) / pairs * 1e6)
        assert out == pairs, (out, core.counters)
    return median(costs)


def core_and_codec(traffic: Traffic, pairs: int, rounds: int) -> float:
    core = Compare(CompareConfig())
    for frames in batches(traffic.opening()):
        for port in ("secondary_in", "primary_in"):
            core.receive(port, frames, 1.0)
    costs = []
    for number in range(rounds):
        mine = traffic.frames(pairs)
        work = [encode_batch("link", 1, 0, 0, 1.0, one) for one in batches(mine)]
        now, out = 2.0 + number, 0
        began = process_time()
        for message in work:
            for port in ("secondary_in", "primary_in"):
                batch = decode(message)
                assert isinstance(batch, Batch)
                for one in core.receive(port, batch.frames, now):
                    if isinstance(one, Send):
                        out += len(one.frames)
                        encode_batch("link", 1, 0, 0, now, one.frames)
        costs.append((process_time() - began) / pairs * 1e6)
        assert out == pairs, (out, core.counters)
    return median(costs)


def plan(windows: dict[str, list], sizes: list[int]) -> list[Step]:
    """Both sides' writes: the secondary one window ahead, and no more than `FLIGHT` windows that have not come out."""
    ends = [0] * FLIGHT + list(accumulate(sizes))
    steps = [Step("sec", windows["sec"][0])]
    for number, window in enumerate(windows["pri"]):
        if number + 1 < len(sizes):
            steps.append(Step("sec", windows["sec"][number + 1], ends[number]))
        steps.append(Step("pri", window, ends[number], behind="sec"))
    return steps


class Measured:
    """A running side, its traffic, and the result of each round: `(pairs a second, CPU microseconds a pair)`."""

    def __init__(self, side: Side | LinkedSide, traffic: Traffic) -> None:
        self.side = side
        self.traffic = traffic
        self.rates: list[float] = []
        self.costs: list[float] = []
        self._pump(traffic.opening())

    def _pump(self, frames: list[bytes]) -> tuple[float, float]:
        """Seconds and CPU seconds."""
        windows = [frames[at : at + WINDOW] for at in range(0, len(frames), WINDOW)]
        if isinstance(self.side, LinkedSide):
            made = {port: list(map(pack, windows)) for port, pack in self.side.batches.items()}
            sizes = list(map(len, windows))
        else:
            made = {port: list(map(framed, windows)) for port in ("pri", "sec")}
            sizes = list(map(len, made["pri"]))
        steps = plan(made, sizes)
        before = cpu(self.side.pid)
        seconds = self.side.pump(steps, "out", sum(sizes))
        return seconds, cpu(self.side.pid) - before

    def round(self, pairs: int) -> None:
        seconds, used = self._pump(self.traffic.frames(pairs))
        self.costs.append(used / pairs * 1e6)
        self.rates.append(pairs / seconds)

    def over(self, other: "Measured") -> float:
        """How many times as many pairs a second as `other`: the median of the rounds."""
        return median(mine / its for mine, its in zip(self.rates, other.rates, strict=True))

    def __str__(self) -> str:
        return f"{median(self.rates):9,.0f} pairs/s {median(self.costs):6.2f} us"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flows", type=int, nargs="+", default=[1, 64, 10000])
    parser.add_argument("--only", nargs="+", default=["udp", "tcp"])
    options = parser.parse_args()
    tune_memory()
    if QEMU is None:
        print("QEMU is not installed: ours alone")
    for kind in options.only:
        print(f"{'CPU us a pair':24} {'core S,P':>9} {'core P,S':>9} {'+ codec':>9}")
        for flows in options.flows:
            cores(kind, flows, options.pairs, options.rounds)
        processes(kind, options.flows, options.pairs, options.rounds)


def cores(kind: str, flows: int, pairs: int, rounds: int) -> None:
    """A row for measurements inside a process."""

    def fresh() -> Traffic:
        return Traffic(kind, flows)

    sp = core_alone(fresh(), pairs, rounds, ("secondary_in", "primary_in"))
    ps = core_alone(fresh(), pairs, rounds, ("primary_in", "secondary_in"))
    wire = core_and_codec(fresh(), pairs, rounds)
    print(f"{fresh().name:24} {sp:9.2f} {ps:9.2f} {wire:9.2f}", flush=True)


def processes(kind: str, flows: list[int], pairs: int, rounds: int) -> None:
    """A row for each number of flows, and the ratio of the last to the first."""
    ways = {"links": our_linked_compare, "streams": our_compare, "QEMU": qemu_compare}
    if QEMU is None:
        del ways["QEMU"]
    with ExitStack() as stack:
        sides = {
            number: {way: Measured(stack.enter_context(start()), Traffic(kind, number)) for way, start in ways.items()}
            for number in flows
        }
        # In turn, so that other load of the machine affects all of them.
        for _ in range(rounds):
            for row in sides.values():
                for one in row.values():
                    one.round(pairs)
        print(f"{'whole process':24}" + "".join(f"   {way:26}" for way in ways))
        for row in sides.values():
            name = next(iter(row.values())).traffic.name
            print(f"{name:24}" + "".join(f"   {one}" for one in row.values()) + beside(row))
        first, last = sides[flows[0]], sides[flows[-1]]
        shares = ", ".join(f"{way} {last[way].over(first[way]):.2f}" for way in ways)
        print(f"{flows[-1]:,} flows do of the pairs/s of {flows[0]:,}: {shares}")


def beside(row: dict[str, Measured]) -> str:
    """How we compare with QEMU, and whether QEMU did what it was measured for."""
    qemu = row.get("QEMU")
    if qemu is None:
        return ""
    ratios = "".join(f"   {way}/QEMU {one.over(qemu):5.2f}" for way, one in row.items() if one is not qemu)
    assert isinstance(qemu.side, Side)
    asked = qemu.side.notified.count(b"DO_CHECKPOINT")
    return ratios + (f"   (QEMU asked for {asked} checkpoints)" if asked else "")


if __name__ == "__main__":
    main()
