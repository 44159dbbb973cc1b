"""Many failovers: the primary host dies at a random moment of a transfer, again and again. Prints what clients saw.

    python -m tests.bench failover --runs 20 [--jobs download upload fifty requests idle] [--size 500000000]
        [--wiring faithful lean] [--families 4 6] [--loss 1 --reorder 1] [--interval 500] [--seed 1]

Needs root. Each run takes the next wiring and the next family in turn. A run is good when the client has received every
byte on its one connection, the survivor has sent no reset, the byte that the client expected came (S3), and only one
host at a time wrote to the LAN (S5). The stall is the longest time for which the client got nothing (download,
requests) or could send nothing (upload), by its own clock; detection, from the death to the promotion.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time

from colo_lab import privileges
from colo_lab.config import LabConfig
from colo_lab.lab import Lab

SERVER = f"exec {sys.executable} -P -m colo_lab.programs.server"
CLIENT = [sys.executable, "-P", "-m", "colo_lab.programs.client"]


def words(job, options, family):
    size = options.size
    job_words = {
        "download": ["download", "--size", str(size)],
        "upload": ["upload", "--size", str(size)],
        "fifty": ["parallel", "--count", "50", "--size", str(size // 50)],
        "requests": ["rr", "--count", str(options.requests)],
        "idle": ["idle", "--count", "1000", "--pause", "15"],
    }[job]
    return [*CLIENT, *job_words, "--announce", "--timeout", "300", *(["-6"] if family == "6" else [])]


def one(job, wiring, family, at, options, seed):
    config = LabConfig(
        guest=SERVER,
        wiring=wiring,
        watch_lan=True,
        start_timeout=120,
        loss=options.loss,
        reorder=options.reorder,
        seed=seed,
        extra={
            "frame": {"heartbeat-interval": str(options.interval), "heartbeat-missed": str(options.missed)},
            "frame-s": {"failover": "auto"},
        },
    )
    with Lab(config) as lab, tempfile.TemporaryFile() as out:
        begun = None

        def tick(now):
            """The host dies `at` seconds after the first byte."""
            nonlocal begun
            if begun is None and os.fstat(out.fileno()).st_size:
                begun = now
            if begun is not None and now >= begun + at and lab.failed_at is None:
                lab.fail("host-p")

        status = lab.run_client(
            words(job, options, family), timeout=400, interval=0.02, output=out.fileno(), on_tick=tick
        )
        out.seek(0)
        text = out.read().decode()
        client = {"wrong": f"status {status}", **(json.loads(text.splitlines()[-1]) if text.strip() else {})}
        report = lab.report()
    failover, lan = report["failover"] or {}, report["lan"] or {}
    why = [f"{name}: {report['invariants_why'][name]}" for name in ("S3", "S5") if report["invariants"][name] != "held"]
    if client["wrong"]:
        why.append(f"client: {client['wrong']}")
    if lan.get("resets", {}).get("lan-s"):
        why.append(f"{lan['resets']['lan-s']} resets")
    if not failover.get("connections_continued"):
        why.append("no connection was open when the host died")
    detected = failover.get("detected_ms", 0) / 1000
    stall = client.get("longest_stall", (failover.get("stall_ms") or 0) / 1000)
    return {
        "job": job, "wiring": wiring, "family": family, "at": round(at, 2), "good": not why, "why": why,
        "detected": detected, "stall": stall, "beyond": round(stall - detected, 3), "seconds": client.get("seconds"),
    }  # fmt: skip


def spread(values):
    ordered = sorted(values)
    p90 = ordered[int(len(ordered) * 0.9 - 0.01)]
    return f"min {ordered[0]:.2f}  median {statistics.median(ordered):.2f}  p90 {p90:.2f}  max {ordered[-1]:.2f}"


def main():
    privileges.require()
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20)
    jobs = ["download", "upload", "fifty", "requests", "idle"]
    parser.add_argument("--jobs", nargs="+", choices=jobs, default=jobs)
    parser.add_argument("--size", type=int, default=500_000_000)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--wiring", nargs="+", default=["faithful", "lean"])
    parser.add_argument("--families", nargs="+", default=["4", "6"])
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--reorder", type=float, default=0.0)
    parser.add_argument("--interval", type=int, default=500, help="ms, of the frames' heartbeat")
    parser.add_argument("--missed", type=int, default=5)
    parser.add_argument("--earliest", type=float, default=0.1)
    parser.add_argument("--latest", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=0.0, help="stop after so many seconds; 0: never")
    options = parser.parse_args()
    dice, began, failed = random.Random(options.seed), time.monotonic(), 0
    for job in options.jobs:
        results = []
        for n in range(options.runs):
            if options.budget and time.monotonic() - began > options.budget:
                break
            wiring = options.wiring[n % len(options.wiring)]
            family = options.families[n // len(options.wiring) % len(options.families)]
            # A thousand requests take only a second if nothing delays them.
            latest = min(options.latest, options.requests * 0.0004) if job == "requests" else options.latest
            result = one(job, wiring, family, dice.uniform(options.earliest, latest), options, options.seed + n)
            results.append(result)
            print(json.dumps(result), flush=True)
        if not results:
            continue
        good = [result for result in results if result["good"]]
        failed += len(results) - len(good)
        print(f"{job}: {len(good)} of {len(results)} good")
        if good:
            print(f"  stall s            {spread([result['stall'] for result in good])}")
            print(f"  detection s        {spread([result['detected'] for result in good])}")
            print(f"  beyond detection s {spread([result['beyond'] for result in good])}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
