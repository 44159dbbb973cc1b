"""A pair with a third vote in the lab, with a real etcd of three members: what must hold, once or many times.

    PYTHONPATH=tests python -m votes --runs 50 [--cases cut store host quorum] [--wiring faithful lean]

`make votes` does that; it needs root.


========  =====================================================================================================
case      what happens, and what must hold
========  =====================================================================================================
`cut`     both ways between the hosts are cut, both live and reach the clients: the primary alone writes, always
`store`   the same, and the primary's `colo vote` stands still: it stops, and the secondary writes within lease + 1 s
`host`    the primary's host dies: the secondary writes within lease + 1 s
`quorum`  two members of three are killed for twice the lease: the pair goes on, and says that the store is down
========  =====================================================================================================

A client asks without pause all the time, and a capture on the client LAN sees who answers (S5).
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from colo_lab.config import LabConfig
from colo_netdev import netns
from etcd import Etcd
from pairlab import Lab
from runtime_helpers import free_port

TTL = 3
SERVER = f"exec {sys.executable} -P -m colo_lab.programs.server"
CLIENT = [sys.executable, "-P", "-m", "colo_lab.programs.client"]


def three():
    return Etcd([(free_port(), free_port()) for _ in range(3)])


def isolate(lab):
    """The hosts do not hear each other on the client LAN any more; the client hears both, and both hear it."""
    with netns.inside(lab.namespaces.fds["client"]):
        for name in ("lan-p", "lan-s"):
            command = ["ip", "link", "set", "dev", name, "type", "bridge_slave", "isolated", "on"]
            subprocess.run(command, check=True)


def whole(lab):
    """The primary has the key, and the secondary knows that it is a replica: before that nobody may take over."""
    primary, secondary = (lab.frame(side) for side in ("primary", "secondary"))
    held = primary["leadership"]["vote"]["state"] == "held"
    return held and secondary["leadership"]["promotable"] and secondary["verdict"]["level"] == "protected"


def states(lab):
    """The states of both sides, and that never both may write."""
    found, writes = [], []
    for side in ("primary", "secondary"):
        if side in lab.statuses.endpoints:
            about = lab.frame(side)["leadership"]
            found.append(about["state"])
            writes.append(about["writes"])
    assert sum(writes) <= 1, f"both write: {found}"
    return found


def cut(lab, _etcd):
    lab.cut()
    isolate(lab)
    began = time.monotonic()
    while time.monotonic() < began + TTL + 2:
        assert states(lab)[1] == "standby"
        yield
    assert states(lab) == ["alone", "standby"]
    return time.monotonic() - began


def store(lab, _etcd):
    lab.kill("vote-p", signal.SIGSTOP)
    lab.cut()
    isolate(lab)
    began = time.monotonic()
    while states(lab)[1] != "promoted":
        assert time.monotonic() < began + TTL + 1, "lease and one second"
        yield
    took = time.monotonic() - began
    assert states(lab) == ["asking", "promoted"]
    lab.kill("vote-p", signal.SIGCONT)
    while time.monotonic() < began + TTL + 2:
        assert states(lab) == ["asking", "promoted"]
        yield
    return took


def host(lab, _etcd):
    lab.fail("host-p")
    began = time.monotonic()
    while states(lab)[-1] != "promoted":
        assert time.monotonic() < began + TTL + 1, "lease and one second"
        yield
    return time.monotonic() - began


def quorum(lab, etcd):
    etcd.kill(0, 1)
    began = time.monotonic()
    words = set()
    while time.monotonic() < began + 2 * TTL:
        assert states(lab) == ["holding", "standby"]
        words.add(lab.frame("primary")["leadership"]["vote"]["state"])
        yield
    assert "agreed" in words
    assert lab.frame("primary")["gauges"]["vote_store"] == 0
    etcd.start(0, 1).ready()
    while lab.frame("primary")["leadership"]["vote"]["state"] != "held":
        assert states(lab) == ["holding", "standby"]
        yield
    return time.monotonic() - began


CASES = {"cut": cut, "store": store, "host": host, "quorum": quorum}


def play(case, wiring):
    """One case in a new lab with a new etcd. Returns what the case measured and the client's longest stall, seconds."""
    extra = {"frame": {"heartbeat-interval": "200"}, "vote": {"ttl": str(TTL)}}
    with three() as etcd, tempfile.TemporaryFile() as out:
        config = LabConfig(
            guest=SERVER, wiring=wiring, start_timeout=60, watch_lan=True, vote=etcd.endpoints, extra=extra
        )
        with Lab(config) as lab:
            until = time.monotonic() + 20
            while not whole(lab):
                assert time.monotonic() < until, [lab.frame(side)["leadership"] for side in lab.statuses.endpoints]
                lab.supervisor.step(0.05)
            steps, result = CASES[case](lab, etcd), {}

            def tick(_now):
                if os.fstat(out.fileno()).st_size and not result:
                    try:
                        next(steps)
                    except StopIteration as over:
                        result["took"] = over.value

            argv = [*CLIENT, "rr", "--seconds", str(3 * TTL + 3), "--announce", "--timeout", "60"]
            status = lab.run_client(argv, timeout=90, interval=0.05, output=out.fileno(), on_tick=tick)
            out.seek(0)
            text = out.read().decode()
            assert status == 0, text
            last = json.loads(text.splitlines()[-1])
            assert last["wrong"] == 0, text
            assert result, "the client ended before the case did"
            report = lab.report()
            assert report["invariants"]["S5"] == "held", report["invariants_why"]["S5"]
            if case in ("cut", "quorum"):
                assert set(report["lan"]["frames"]) == {"lan-p"}, report["lan"]
            return result["took"], last["longest_stall"]


def main():
    parser = argparse.ArgumentParser(prog="votes", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="of each case")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--wiring", nargs="+", default=["faithful", "lean"])
    options = parser.parse_args()
    bad = 0
    for case in options.cases:
        took, stalls = [], []
        for run in range(options.runs):
            try:
                seconds, stall = play(case, options.wiring[run % len(options.wiring)])
            except AssertionError as error:
                bad += 1
                print(f"{case}, run {run + 1}: {error}", flush=True)
                continue
            took.append(seconds)
            stalls.append(stall)
        if took:
            figures = [f"{f(values):.2f}" for values in (took, stalls) for f in (statistics.median, max)]
            print(
                f"{case}: {len(took)} of {options.runs} good; took {figures[0]} s, at most {figures[1]} s;"
                f" longest stall {figures[2]} s, at most {figures[3]} s (key's time to live: {TTL} s)",
                flush=True,
            )
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
