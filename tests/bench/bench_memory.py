"""Compare's memory under a million SYNs from different ports and addresses, both guests answering every one.

    python -m tests.bench memory [--syns 1000000]

Each case runs in a process of its own, whose resident memory is read before and at its maximum. `bound` is what
the README states: flows at 2 KiB, and the bytes that are kept of the primary and of the secondary.
"""

import argparse
import os
import resource
import sys
from pathlib import Path
from time import process_time

from tests import craft

from colo_compare.compare import Compare
from colo_compare.config import CompareConfig
from colo_proto.net.tcp import ACK, SYN
from colo_runtime.tuning import tune_memory

PER_FLOW = 2048
OPTIONS = craft.mss(1460) + craft.sack_permitted() + craft.timestamps(1, 1) + craft.wscale(7)
SCENES = {
    "SYN/ACKs, equal": "both guests answer alike",
    "SYN/ACKs, secondary silent": "the primary's wait, and time out",
    "UDP, equal": "datagrams from as many ports",
}


def resident() -> int:
    """Bytes in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def frame(number: int, template: bytes) -> bytes:
    """`template` with another client, 10.x.y.z, and another port. Checksums do not matter here."""
    address = bytes((10, number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF))
    return template[:40] + address + template[44:46] + (1024 + number % 60000).to_bytes(2, "big") + template[48:]


def run(scene: str, count: int) -> None:
    tune_memory()
    config = CompareConfig()
    core = Compare(config)
    if scene.startswith("SYN"):
        template = craft.tcp("10.0.0.2", "10.0.0.9", 80, 5000, 999, 500, SYN | ACK, b"", options=OPTIONS)
    else:
        template = craft.udp("10.0.0.2", "10.0.0.9", 53, 5000, bytes(64))
    before, highest, began, now = resident(), 0, process_time(), 1.0
    for first in range(0, count, 64):
        frames = [frame(number, template) for number in range(first, min(first + 64, count))]
        if "silent" not in scene:
            core.receive("secondary_in", [bytes(bytearray(one)) for one in frames], now)
        core.receive("primary_in", frames, now)
        now += 64 / 50_000
        due = core.deadline()
        if due is not None and due <= now:
            core.on_timer(now)
        if not first % 65536:
            highest = max(highest, resident())
    seconds = process_time() - began
    gauges = core.gauges()
    bound = config.max_flows * PER_FLOW + gauges["held_bytes"] + gauges["secondary_bytes"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    flows = gauges["flows"]
    print(
        f"{scene:28} {count:>9,} {flows:>7,} flows  {(highest - before) / 2**20:7.1f} MiB more"
        f"  {(highest - before) / max(flows, 1):6.0f} B a flow  peak {peak / 2**20:6.1f} MiB"
        f"  bound {bound / 2**20:6.1f} MiB  {seconds / count * 1e6:5.1f} us each"
        f"  evicted {core.counters['flows_evicted']:,}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--syns", type=int, default=1_000_000)
    options = parser.parse_args()
    for scene in SCENES:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            run(scene, options.syns)
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
