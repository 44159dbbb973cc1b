"""Guest and clients on bridges of the host, as for VMs: only netdev is in the network of the host."""

import contextlib
import json
import os

import pytest

from containers import engine
from containers.engine import run
from lab.conftest import wait_for

INSECURE = {
    "COLO_INSECURE": "on",
    "COLO_CURVE_SECRET": "",
    "COLO_CURVE_PEERS": "",
    "COLO_SECRET_FILE": "/dev/null",
    "COLO_PEERS_FILE": "/dev/null",
    "COLO_PAIR_FILE": "/dev/null",
    "COLO_PAIR_SECRET": "",
}


def ip(*argv, check=True):
    return run("ip", *argv, check=check)


@pytest.fixture
def bridges():
    """Two bridges on this machine, and behind each a namespace that stands for a VM and for a client."""
    tag = f"{os.getpid() % 100_000}"
    made = {"lan": f"cl{tag}", "guest": f"cg{tag}"}
    with contextlib.ExitStack() as stack:
        for side, name in made.items():
            ip("link", "add", name, "type", "bridge")
            stack.callback(ip, "link", "del", name, check=False)
            ip("link", "set", name, "up")
            ip("netns", "add", f"{name}n")
            stack.callback(ip, "netns", "del", f"{name}n", check=False)
            ip("link", "add", f"{name}v", "type", "veth", "peer", "name", "eth0", "netns", f"{name}n")
            ip("link", "set", f"{name}v", "up", "master", name)
            address = "10.203.0.1/24" if side == "lan" else "10.203.0.2/24"
            # Docker drops what is forwarded, and the kernel may treat frames on a bridge as forwarded (see the README).
            rule = ("DOCKER-USER", "-i", name, "-o", name, "-j", "ACCEPT")
            run("iptables", "-I", *rule)
            stack.callback(run, "iptables", "-D", *rule, check=False)
            for command in (("addr", "add", address, "dev", "eth0"), ("link", "set", "eth0", "up")):
                ip("-n", f"{name}n", *command)
        yield made, tag


def test_a_guest_behind_a_bridge(image, bridges):
    names, tag = bridges
    env = INSECURE | {
        "COLO_MODE": "bypass",
        "COLO_LAN_BRIDGE": names["lan"],
        "COLO_GUEST_BRIDGE": names["guest"],
        "COLO_TAP_PREFIX": f"c{tag}",
    }
    with engine.project("primary.yaml", "bridge.yaml", image=image, env=env) as host:
        host.up()
        host.await_healthy()
        host.await_ready(["frame"])
        services = {one.service: one for one in host.containers()}
        assert "guest" not in services
        assert "lan" not in services
        assert services["netdev"].about["HostConfig"]["NetworkMode"] == "host"
        assert [n for n, one in services.items() if one.about["HostConfig"]["NetworkMode"] == "host"] == ["netdev"]
        for side in ("lan", "guest"):
            link = json.loads(ip("-j", "link", "show", f"c{tag}-{side}"))[0]
            assert link["master"] == names[side]
        # There is no secondary, so this mode lets everything pass.
        ping = ("netns", "exec", f"{names['lan']}n", "ping", "-c", "1", "-W", "2", "10.203.0.2")
        wait_for(lambda: " 0% packet loss" in ip(*ping, check=False), 60, "the guest to answer")
    assert f"c{tag}-" not in ip("link"), "the taps are gone"
