"""A secondary that joins is whole: its guest finds the primary's neighbours, and has no old connections."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from colo_lab.config import LabConfig
from colo_lab.namespaces import GUEST_IF
from colo_netdev import netns
from pairlab import Lab

from .conftest import CLIENT, SERVER

GATEWAY, FAR, NETWORK = "10.77.0.254", "192.0.2.7", "192.0.2.0/24"
EXTRA = {"frame": {"heartbeat-interval": "200"}, "frame-p": {"resync": "auto"}}


def ip(lab, where, *words):
    with netns.inside(lab.namespaces.fds[where]):
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def until(lab, true, seconds=20.0):
    assert lab.supervisor.until(true, seconds), "it did not come to pass"


def request_from(lab, source):
    """How long a new connection from this address takes until it is answered."""
    with netns.inside(lab.namespaces.fds["client"]):
        began = time.monotonic()
        with socket.create_connection(("10.77.0.2", 80), timeout=10, source_address=(source, 0)) as sock:
            sock.sendall(b"GET /page/1 HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert sock.recv(1 << 16).endswith(b"hello from /page/1\n")
        return time.monotonic() - began


def ready(lab):
    return all(one["status"].get("ready") for one in lab.frame("secondary")["processes"])


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_clients_behind_a_gateway_that_says_nothing_of_itself(wiring):
    """The primary guest has known the gateway for long, so it does not ask for it, and the gateway has no reason to
    speak. Only one client comes through it.
    """
    lab = Lab(LabConfig(guest=SERVER, start_timeout=60, wiring=wiring, extra=EXTRA))
    with lab:
        for address in (f"{GATEWAY}/24", f"{FAR}/32"):
            ip(lab, "client", "addr", "add", address, "dev", lab.namespaces.client_if)
        mac = json.loads(ip(lab, "client", "-j", "link", "show", lab.namespaces.client_if))[0]["address"]
        ip(lab, "guest-p", "neigh", "replace", GATEWAY, "lladdr", mac, "dev", GUEST_IF, "nud", "permanent")
        ip(lab, "guest-p", "route", "add", NETWORK, "via", GATEWAY)
        ip(lab, "guest-s", "route", "add", NETWORK, "via", GATEWAY)
        assert request_from(lab, FAR) < 5
        lab.fail("host-s")
        until(lab, lambda: lab.frame("primary")["mode"] == "bypass")
        lab.revive("host-s")
        ip(lab, "guest-s", "route", "add", NETWORK, "via", GATEWAY)
        until(lab, lambda: lab.frame("primary")["mode"] == "enforce")
        until(lab, lambda: lab.supervisor.children["guest-s"].listens)
        until(lab, lambda: ready(lab))
        took = [request_from(lab, FAR) for _ in range(20)]
        processes = lab.processes()
    assert max(took) < 1.0, took
    assert processes["comp0"].gauges["flows_unprotected"] == 0
    assert processes["m0"].counters["neighbours_asked"] >= 1


def connections(lab, guest):
    """The TCP sockets of a guest by state, but for those that listen or have only to wait (TIME_WAIT)."""
    found = Counter()
    with netns.inside(lab.namespaces.fds[guest]):
        for family in ("tcp", "tcp6"):
            for line in Path(f"/proc/thread-self/net/{family}").read_text().splitlines()[1:]:
                found[line.split()[3]] += 1
    del found["0A"], found["06"]
    return found


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize(("wiring", "cut"), [("faithful", 5), ("lean", 9)])
def test_what_is_replayed_after_a_cut_leaves_no_connections_behind(wiring, cut):
    lab = Lab(LabConfig(guest=SERVER, start_timeout=60, wiring=wiring, extra=EXTRA))

    def script():
        while lab.processes()["rew0"].gauges["flows"] < 100:
            yield
        lab.cut()
        began = time.monotonic()
        while time.monotonic() < began + cut:
            yield
        lab.cut(cut=False)
        while lab.frame("primary")["mode"] != "enforce":
            yield
        joined.append(True)
        while True:
            yield

    joined = []
    with lab, tempfile.TemporaryFile() as out:
        steps = script()
        jobs = f"{CLIENT} http --seconds {cut + 8} --timeout 60"
        argv = ["sh", "-c", f"{jobs} & {jobs} & wait"]
        lab.run_client(argv, timeout=90, interval=0.05, output=out.fileno(), on_tick=lambda _now: next(steps))
        assert joined
        # A client that has gone is noticed within seconds, or when the guest tries again what nobody has answered.
        until(lab, lambda: not connections(lab, "guest-s"), 40)
        assert lab.processes()["rew0"].counters["guest_resets"] > 0
        with tempfile.TemporaryFile() as again:
            argv = [sys.executable, "-P", "-m", "colo_lab.programs.client", "http", "--count", "100", "--timeout", "60"]
            lab.run_client(argv, timeout=90, output=again.fileno())
            again.seek(0)
            after = json.loads(again.read())
        out.seek(0)
        lines = [json.loads(line) for line in out.read().splitlines()]
    assert all(line["wrong"] == 0 for line in lines), lines
    assert after["wrong"] == 0
    assert after["longest_stall"] < 0.5, after
