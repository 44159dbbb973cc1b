"""Throughput and latency through the whole chain, compared with a plain veth in the same run. Asserts nothing.

    python -m tests.bench.bench_lab [--size 1000000000] [--wiring faithful lean] [--runs 3]

Needs root. Each row is the median of `--runs`. Only the ratio to the plain veth is meaningful, not the absolute value.

Client and guests use `--congestion` (cubic, the kernel's own default, so that machines compare), on the plain veth as
well. BBR sends one frame at a time at the rate that it has measured: the chain never gets a batch, and BBR takes the
throughput without batches for the available bandwidth.
"""

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from colo_lab import privileges
from colo_lab.config import CLIENT4, CLIENT6, GUEST4, GUEST6, LabConfig
from colo_lab.lab import Lab
from colo_netdev import netns


def program(name, congestion):
    return [sys.executable, "-m", f"colo_lab.programs.{name}", "--congestion", congestion]


SHORT = str(Path(__file__).parents[1] / "short.py")

JOBS = {
    "TCP download": (["download"], "size", "mbit_s"),
    "TCP upload": (["upload"], "size", "mbit_s"),
    "50 downloads at once": (["parallel", "--count", "50"], "share", "mbit_s"),
    "500 downloads at once": (["parallel", "--count", "500"], "share", "mbit_s"),
    "50 uploads at once": (["parallel", "--upload", "--count", "50"], "share", "mbit_s"),
    "2000 connections": (["http", "--count", "2000"], "connections", "seconds"),
    "short connections": (["ask", "--count", "20000"], "short", "per_s"),
    "TCP request p50": (["rr"], "count", "p50_us"),
    "UDP request p50": (["rr", "--udp"], "count", "p50_us"),
    "UDP echo, 64 in flight": (["udp"], "echoes", "seconds"),
}


def argv(job, options):
    words, kind, _ = JOBS[job]
    if kind == "short":
        return [sys.executable, SHORT, *words]
    share = options.parallel_size // int(words[-1]) if kind == "share" else 0
    size = {
        "size": ["--size", str(options.size)],
        "share": ["--size", str(share)],
        "count": ["--count", "2000"],
        "echoes": ["--count", "50000"],
        "connections": [],
    }[kind]
    return [*program("client", options.congestion), *words, *size]


def value(job, line):
    result = json.loads(line)
    if result["wrong"]:
        raise SystemExit(f"{job}: wrong answer: {line}")
    if JOBS[job][2] == "seconds":
        return {"echoes": 50000, "connections": 2000}[JOBS[job][1]] / result["seconds"]
    return result[JOBS[job][2]]


@contextlib.contextmanager
def plain(congestion):
    """Client and guest joined by a veth, nothing between them; yields a function that runs a client."""
    client, guest = netns.new(), netns.new()

    def ip(space, *words):
        with netns.inside(space):
            subprocess.run(["ip", *words], check=True)

    ip(client, "link", "add", "c", "type", "veth", "peer", "name", "g", "netns", f"/proc/{os.getpid()}/fd/{guest}")
    for space, name, four, six in ((client, "c", CLIENT4, CLIENT6), (guest, "g", GUEST4, GUEST6)):
        ip(space, "addr", "add", f"{four}/24", "dev", name)
        ip(space, "addr", "add", f"{six}/64", "dev", name, "nodad")
        ip(space, "link", "set", name, "up")
    with netns.inside(guest):
        servers = [
            subprocess.Popen(words) for words in (program("server", congestion), [sys.executable, SHORT, "serve"])
        ]
    env = {**os.environ, "COLO_GUEST": GUEST4, "COLO_GUEST6": GUEST6}

    def run(words):
        deadline = time.monotonic() + 10
        while True:
            with netns.inside(client):
                done = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode == 0 or time.monotonic() > deadline:
                return done.stdout.strip().splitlines()[-1]

    try:
        yield run
    finally:
        for server in servers:
            server.kill()
            server.wait()
        os.close(client)
        os.close(guest)


@contextlib.contextmanager
def lab(wiring, workers, congestion, reports):
    guest = f"{shlex.join(program('server', congestion))} & exec {shlex.join([sys.executable, SHORT, 'serve'])}"
    with Lab(LabConfig(guest=guest, wiring=wiring, workers=workers)) as one:

        def run(words):
            with tempfile.NamedTemporaryFile("r") as out:
                one.run_client(["sh", "-c", 'exec "$@" > ' + out.name, "sh", *words], timeout=300)
                return Path(out.name).read_text().strip().splitlines()[-1]

        yield run
        reports[wiring] = one.report()


def main():
    privileges.require()
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=1_000_000_000)
    parser.add_argument("--parallel-size", type=int, default=200_000_000, help="bytes of all that is at once")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--wiring", nargs="+", default=["faithful", "lean"])
    parser.add_argument("--congestion", default="cubic")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--report", action="store_true", help="print the lab's reports too")
    options = parser.parse_args()
    reports, table = {}, {}
    for name, place in [
        ("plain veth", plain(options.congestion)),
        *((w, lab(w, options.workers, options.congestion, reports)) for w in options.wiring),
    ]:
        with place as run:
            for job in options.jobs:
                words = argv(job, options)
                table[name, job] = statistics.median(value(job, run(words)) for _ in range(options.runs))
                print(f"{name:12} {job:24} {table[name, job]:10.0f}", flush=True)
    print(f"\n{'':24}" + "".join(f"{name:>24}" for name in ["plain veth", *options.wiring]))
    for job in options.jobs:
        unit = {"mbit_s": "Mbit/s", "p50_us": "µs", "seconds": "/s", "per_s": "/s"}[JOBS[job][2]]
        row = f"{job:24}"
        for name in ["plain veth", *options.wiring]:
            ratio = table[name, job] / table["plain veth", job]
            row += f"{table[name, job]:>10.0f} {unit:6} {ratio:>5.0%}"
        print(row)
    for job, one in (("50 downloads at once", "TCP download"), ("500 downloads at once", "TCP download"),
                     ("50 uploads at once", "TCP upload")):  # fmt: skip
        if job in options.jobs and one in options.jobs:
            print(f"{job}, of one's rate" + "".join(
                f"  {name} {table[name, job] / table[name, one]:.0%}" for name in ["plain veth", *options.wiring]
            ))  # fmt: skip
    for wiring, report in reports.items():
        lost = {f"{p['id']} {name}": n for p in report["processes"] for name, n in p["counters"].items()
                if n and (name.endswith("dropped.queue_full") or name == "dropped.stale"
                          or (name.startswith("tap.") and name.endswith(".dropped")))}  # fmt: skip
        print(f"{wiring}: frames dropped for want of room or time: {lost or 'none'}")
        cpu = ", ".join(f"{p['id']} {p['cpu_seconds']:.1f}" for p in report["processes"] if p["cpu_seconds"] >= 0.1)
        print(
            f"{wiring}: checkpoints wanted {report['compare']['checkpoints_wanted']}, invariants {report['invariants']}"
        )
        print(f"{wiring}: CPU seconds: {cpu}")
        if options.report:
            print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
