"""Circles in the lab's symmetric wiring: the host that leads dies under load, is repaired, and the next one dies.

`make circle CIRCLES=50` prints a line for each, and the distribution at the end; `tests/lab/test_circle.py` does two.
One circle::

    load begins --> the leader dies --> the other host leads --> 3 s later the dead host is repaired
    --> the pair is protected again --> the load has ended, and nobody got a reset or a wrong byte
    --> new connections are answered at once, and none is unprotected
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from colo_lab import privileges
from colo_lab.circle import PLANNED, protected
from colo_lab.config import LabConfig
from colo_lab.launch import QUIET
from pairlab import Lab

SERVER = f"exec {sys.executable} -P -m colo_lab.programs.server"
LOAD = (
    "download --size 24000000 --rate 3000000",
    "download --size 24000000 --rate 3000000 -6",
    "upload --size 24000000 --rate 3000000",
    "upload --size 24000000 --rate 3000000 -6",
    "rr --seconds 8",
    "rr --seconds 8 -6",
    "idle --count 20 --pause 8",
    "idle --count 20 --pause 8 -6",
)
CONNECTIONS = 6 + 2 * 20
"""How many connections that load has."""
REPAIR_AFTER = 3.0
"""Seconds from the death of a host until it is repaired."""
WITHIN = 60.0
"""Seconds after which a step that does not come to pass is an error."""


class BrokenError(AssertionError):
    """Something that must hold of every circle did not."""


def started(**config):
    """A lab in the symmetric wiring that watches the LAN; it is brought up by `with`."""
    extra = {"frame": {"heartbeat-interval": "200", "failover": "auto"}, **config.pop("extra", {})}
    return Lab(LabConfig(guest=SERVER, start_timeout=60, watch_lan=True, wiring="symmetric", extra=extra, **config))


class Job:
    """A job of the client program, running in the client's namespace."""

    def __init__(self, lab, words, number):
        self.words = words
        # The folder goes with the lab.
        self.out = Path(lab.directory, f"job{number}")
        argv = [sys.executable, "-P", "-m", "colo_lab.programs.client", *words.split(), "--announce", "--timeout", "60"]
        with self.out.open("wb") as out:
            self.process = lab.popen("client", argv, stdout=out, stdin=subprocess.DEVNULL)

    @property
    def begun(self):
        return self.out.stat().st_size > 0

    @property
    def over(self):
        return self.process.poll() is not None

    def result(self):
        """The line of JSON that it ended with."""
        text = self.out.read_text()
        line = json.loads(text.splitlines()[-1]) if text.strip() else {"wrong": "it printed nothing"}
        if self.process.returncode or line["wrong"]:
            raise BrokenError(f"{self.words}: {line}")
        return line


class Circles:
    """What is done to a lab that is up."""

    def __init__(self, lab):
        self.lab = lab
        self._jobs = itertools.count()

    def until(self, what, true, timeout=WITHIN):
        """Let the lab work until `true()`."""

        def look():
            self.lab.attend()
            return true()

        if not self.lab.supervisor.until(look, timeout):
            verdicts = {side: body["verdict"]["text"] for side, body in self.lab.statuses.bodies.items()}
            raise BrokenError(f"not within {timeout:g} s: {what}; {verdicts}")

    def whole(self):
        """Wait until both COLO frames say that the pair is protected."""

        def look():
            self.lab.statuses.poll()
            return protected(self.lab.statuses.bodies)

        self.until("the pair is protected", look)

    def load(self, words=LOAD):
        """Begin a load, and wait until each job is under way."""
        jobs = [Job(self.lab, one, next(self._jobs)) for one in words]
        self.until("the load is under way", lambda: all(job.begun for job in jobs))
        return jobs

    def ended(self, jobs):
        """Wait for the end of a load. Returns the longest stall that each of its jobs saw, in ms."""
        self.until("the load has ended", lambda: all(job.over for job in jobs))
        return {job.words: round(job.result()["longest_stall"] * 1000) for job in jobs if "idle" not in job.words}

    def unplanned(self):
        """One circle, as the module says. Returns its numbers."""
        lab, jobs = self.lab, self.load()
        host = f"host-{lab.leader()[0]}"
        lab.fail(host)
        record = lab.circle.records[-1]
        self.until("the other host leads", lambda: record.led is not None)
        self.until("it is time for the repair", lambda: time.monotonic() >= record.began + REPAIR_AFTER)
        lab.repair(host)
        self.until("the pair is protected again", lambda: record.protected is not None)
        return {
            "host": host,
            "detected_ms": round((record.led - record.began) * 1000),
            "protected_ms": round((record.protected - record.repaired) * 1000),
            "stall_ms": max(self.ended(jobs).values()),
            **self.new_connections(),
        }

    def planned(self):
        """A planned change while a load goes on. Returns its numbers."""
        self.lab.failover(PLANNED)
        record = self.lab.circle.records[-1]
        if record.refused:
            raise BrokenError(f"the order was refused: {record.refused}")
        self.until("the other host leads", lambda: record.led is not None)
        self.until("the pair is protected again", lambda: record.protected is not None)
        # The capture tells a way back from two writers only after the port was silent for as long.
        self.until("the load goes on there", lambda: time.monotonic() > record.led + 2 * QUIET)
        return {
            "host": f"host-{record.side[0]}",
            "detected_ms": round((record.led - record.began) * 1000),
            "protected_ms": round((record.protected - record.began) * 1000),
        }

    def new_connections(self):
        """How long new connections wait for their answer, and how many of them are unprotected. The leader counts those
        from before the resync as well, for a minute after they were closed.
        """
        before = self._unprotected()
        longest = self.ended(self.load(("http --count 10", "http --count 10 -6")))
        return {"new_ms": max(longest.values()), "unprotected": self._unprotected() - before}

    def _unprotected(self):
        """How many connections the leader calls unprotected, once every process has reported again."""
        self.lab.statuses.await_rest(5.0, self.lab.supervisor.step)
        host = f"host-{self.lab.leader()[0]}"
        compares = [one for one in self.lab.processes().values() if one.role == "compare" and one.host == host]
        return sum(one.gauges["flows_unprotected"] for one in compares)


def main():
    privileges.require()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--circles", type=int, default=50)
    parser.add_argument("--compare", type=int, default=1)
    options = parser.parse_args()
    rows = []
    with started(workers=options.compare) as lab:
        circles = Circles(lab)
        circles.whole()
        for number in range(1, options.circles + 1):
            rows.append(circles.unplanned())
            print(number, json.dumps(rows[-1]), flush=True)
        report = lab.report(final=True)
    resets = sum(one["connections_reset"] for one in report["failovers"])
    print(json.dumps({name: report["invariants"][name] for name in ("S3", "S5")}), f"{resets} resets")
    for name in ("detected_ms", "stall_ms", "protected_ms", "new_ms"):
        values = sorted(row[name] for row in rows)
        print(f"{name:13} min {values[0]}  median {statistics.median(values):.0f}  max {values[-1]}")
    sys.exit(any(row["unprotected"] for row in rows) or resets > 0 or "violated" in report["invariants"].values())


if __name__ == "__main__":
    main()
