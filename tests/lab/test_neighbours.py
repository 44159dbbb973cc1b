"""The secondary guest finds its neighbours, although it cannot be heard on the LAN."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from colo_lab.config import CLIENT4, CLIENT6, LabConfig
from colo_lab.namespaces import GUEST_IF
from colo_netdev import netns
from pairlab import Lab

from .conftest import CLIENT, SERVER


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_after_the_rewriter_was_restarted(wiring):
    """The guest has missed all neighbour discovery, and hosts that keep talking do not ask for each other again."""
    lab = Lab(LabConfig(guest=SERVER, start_timeout=60, wiring=wiring))

    def ip(*words):
        with netns.inside(lab.namespaces.fds["guest-s"]):
            return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout

    def forget():
        with netns.inside(lab.namespaces.fds["guest-s"]):
            Path(f"/proc/sys/net/ipv6/conf/{GUEST_IF}/keep_addr_on_down").write_text("1")
        ip("link", "set", GUEST_IF, "down")
        ip("link", "set", GUEST_IF, "up")

    def rewriter():
        return next(one for one in lab.frame("secondary")["processes"] if one["id"] == "rew0")

    def script():
        # What it has not acknowledged is sent again to the next guest, so it needs to know both for some time.
        while rewriter()["gauges"].get("neighbours", 0) < 2:
            yield
        before = rewriter()["incarnation"]
        lab.kill("rew0", signal.SIGKILL)
        while rewriter()["incarnation"] == before or not rewriter()["status"].get("ready"):
            yield
        forget()
        began = time.monotonic()
        while not all("lladdr" in ip("neigh", "show", address) for address in (CLIENT4, CLIENT6)):
            yield
        found.append(time.monotonic() - began)
        while True:
            yield

    found = []
    with lab:
        steps = script()
        jobs = f"{CLIENT} http --seconds 15 --timeout 60 & {CLIENT} -6 http --seconds 15 --timeout 60 & wait"
        lab.run_client(["sh", "-c", jobs], timeout=90, interval=0.05, on_tick=lambda _now: next(steps))
    # A client that gets no answer asks for the guest again after five seconds (delay_first_probe_time, arp(7)).
    assert found
    assert found[0] < 4
