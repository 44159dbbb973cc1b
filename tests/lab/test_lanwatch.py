"""The process that captures on the LAN: everything that was on the LAN before its end is in its report."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from colo_lab.config import GUEST_MAC
from colo_lab.namespaces import BRIDGE
from colo_netdev import netns
from lab.conftest import wait_for

FRAMES = 5000


@pytest.fixture
def lan():
    """A namespace with the bridge of the LAN, and one end of a port: frames that are sent there come from `lan-p`."""
    namespace = netns.new()
    with netns.inside(namespace):
        for words in (
            f"link add {BRIDGE} type bridge mcast_snooping 0",
            "link add lan-p type veth peer name far",
            f"link set lan-p up master {BRIDGE}",
            f"link set {BRIDGE} up",
            "link set far up",
        ):
            subprocess.run(["ip", *words.split()], check=True)
    yield namespace
    os.close(namespace)


def test_all_that_was_captured_before_the_end_is_reported(lan, tmp_path):
    target = tmp_path / "lan.json"
    with netns.inside(lan):
        far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        far.bind(("far", 0))
        process = subprocess.Popen([sys.executable, "-P", "-m", "colo_lab.lanwatch", str(target)])
    with far:
        wait_for(target.exists, 20, "the watcher's first report")
        # The process gets no processor time, as happens on a busy machine.
        os.kill(process.pid, signal.SIGSTOP)
        frame = b"\xff" * 6 + bytes.fromhex(GUEST_MAC.replace(":", "")) + b"\x08\x06" + bytes(46)
        for _ in range(FRAMES):
            far.send(frame)
        process.terminate()
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(20) == 0
    report = json.loads(target.read_text())
    assert (report["lost"], report["frames"]) == (0, {"lan-p": FRAMES})
