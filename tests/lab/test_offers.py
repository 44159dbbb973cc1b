"""Namespaces that are offered to netdev: taps, bridges and addresses in them, and what happens when they end."""

import os
import socket
import subprocess
import sys

import pytest

from colo_netdev import netns, taps
from colo_netdev.netns import Namespace
from colo_proto.errors import ConfigError
from colo_proto.netdev import RefusedError
from lab.conftest import wait_for
from lab.test_netdev import connect, links, namespaces, run, show
from tap_client import fetch_tap, return_tap

__all__ = ["namespaces", "run"]
pytestmark = pytest.mark.usefixtures("privileged")

HOLD = [sys.executable, "-P", "-m", "colo_cli", "netns", "--log-format", "json"]


@pytest.fixture
def holder(tmp_path):
    """`holder(namespace, name)` runs `colo netns` in a namespace."""
    running = []

    def start(namespace, name):
        with netns.inside(namespace):
            one = subprocess.Popen(
                [*HOLD, "--name", name, "--netdev", str(tmp_path / "netdev.sock")],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        running.append(one)
        return one

    yield start
    for one in running:
        one.kill()
        one.wait()
        one.stderr.close()


def test_a_bridge_an_uplink_and_addresses(namespaces):
    _, there = namespaces
    show(there, "link", "add", "up0", "type", "veth", "peer", "name", "far")
    with netns.inside(there):
        namespace = Namespace.here()
    spec = taps.TapSpec(
        "t0", netns="@x", bridge="br0", uplink="up0", address=("10.1.0.2/24", "fd01::2/64"), gateway="10.1.0.1"
    )
    tap = taps.open_tap(spec, offered=namespace)
    for name in ("up0", "t0"):
        assert "master br0" in show(there, "link", "show", name)
    assert "inet 10.1.0.2/24" in show(there, "addr", "show", "t0")
    assert "inet6 fd01::2/64" in show(there, "addr", "show", "t0")
    assert "default via 10.1.0.1" in show(there, "route")
    fd = namespace.netns_fd()
    assert os.fstat(fd).st_ino == os.fstat(there).st_ino
    os.close(fd)
    # The same is done once more in the same namespace, as after a restart. Nothing of it is an error.
    tap.close()
    taps.open_tap(spec, offered=namespace).close()
    namespace.close()


def test_a_second_gateway_family(namespaces):
    _, there = namespaces
    with netns.inside(there):
        namespace = Namespace.here()
    spec = taps.TapSpec("t0", netns="@x", address=("fd01::2/64",), gateway="fd01::1")
    taps.open_tap(spec, offered=namespace)
    assert "default via fd01::1" in show(there, "-6", "route")
    namespace.close()


@pytest.mark.parametrize(
    ("fields", "names"),
    [({"bridge": "br0"}, "no bridge br0"), ({"bridge": "br0", "uplink": "eth9"}, "no uplink eth9")],
)
def test_what_is_missing_in_an_offered_namespace_is_named(namespaces, fields, names):
    here, there = namespaces
    with netns.inside(there):
        namespace = Namespace.here()
    with pytest.raises(ConfigError, match=names):
        taps.open_tap(taps.TapSpec("t0", netns="@x", **fields), offered=namespace)
    assert list(links(here)) == list(links(there)) == ["lo"]
    namespace.close()


def test_only_datagram_sockets_are_taken():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as good, open(os.devnull, "rb") as file:
        fds = [good.fileno(), file.fileno()]
        with pytest.raises(ValueError, match="sockets"):
            Namespace.offered(fds)
        assert fds == [good.fileno(), file.fileno()], "they stay the caller's to close"
        assert good.getsockname()
    with socket.socket(socket.AF_UNIX) as one, pytest.raises(ValueError, match="datagram"):
        Namespace.offered([os.dup(one.fileno())])


def test_a_holder_brings_its_namespace_and_netdev_restarts(run, namespaces, tmp_path, holder):
    _, there = namespaces
    text = "guest,netns=@guest,ifname=eth0,address=10.1.0.2/24"
    held = holder(there, "guest")
    first = run(text)
    wait_for(lambda: first.netdev.owned, 20, "the offer")
    assert "inet 10.1.0.2/24" in show(there, "addr", "show", "eth0")
    index = links(there)["eth0"]
    with connect(tmp_path) as sock:
        _, fd = fetch_tap(sock, "guest", "m0")
    first.end()
    second = run(text)
    with connect(tmp_path) as sock:
        return_tap(sock, "guest", fd, "m0")
    wait_for(lambda: second.netdev.offers, 20, "the offer to be repeated")
    assert second.netdev.owned
    assert links(there)["eth0"] == index
    os.close(fd)
    held.terminate()
    assert held.wait(20) == 0
    wait_for(lambda: not second.netdev.offers, 20, "the offer to end")


def test_a_namespace_that_ends_takes_its_tap_and_the_next_gets_another(run, tmp_path, holder):
    first, second = netns.new(), netns.new()
    running = run("guest,netns=@guest,ifname=eth0")
    held = holder(first, "guest")
    wait_for(lambda: running.netdev.owned, 20, "the first tap")
    with connect(tmp_path) as sock:
        _, fd = fetch_tap(sock, "guest", "m0")
        os.close(first)
        held.kill()
        held.wait()
        wait_for(lambda: not running.netdev.offers, 20, "netdev to notice")
        tap = running.netdev.owned["guest"]
        wait_for(lambda: not tap.alive, 20, "the kernel to take the tap away")
        with pytest.raises(RefusedError) as error:
            fetch_tap(sock, "guest", "m0")
        assert error.value.retry
        holder(second, "guest")
        wait_for(lambda: "eth0" in links(second), 20, "another tap")
        os.close(fd)
        _, fd = fetch_tap(sock, "guest", "m0")
        assert taps.describe(fd)[0] == "eth0"
        os.close(fd)
    os.close(second)


def test_a_namespace_that_nobody_asked_for_is_refused(run, namespaces, holder):
    run("guest,netns=@guest")
    held = holder(namespaces[1], "other")
    assert held.wait(20) == 2
    assert "no tap has netns=@other" in held.stderr.read()


def test_a_holder_waits_for_netdev(run, namespaces, holder):
    held = holder(namespaces[1], "guest")
    assert "netns.waiting" in held.stderr.readline()
    running = run("guest,netns=@guest")
    wait_for(lambda: running.netdev.owned, 20, "the offer")
