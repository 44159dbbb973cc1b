"""netdev with real taps in namespaces of its own: it places, passes and adopts taps, and refuses what it must."""

import os
import selectors
import shutil
import socket
import subprocess
import threading
import time

import pytest

from colo_netdev import netns, taps
from colo_netdev.config import NetdevConfig, parse_tap
from colo_netdev.netdev import Netdev
from colo_netdev.server import Server
from colo_proto.errors import ConfigError, StartError, WireError
from colo_proto.netdev import RefusedError, decode_reply
from colo_runtime.reactor import Reactor
from tap_client import fetch_tap, return_tap

pytestmark = pytest.mark.usefixtures("privileged")


@pytest.fixture
def namespaces():
    """Two empty namespaces. The test runs in the first."""
    here, there = netns.new(), netns.new()
    with netns.inside(here):
        yield here, there
    os.close(here)
    os.close(there)


def path(fd):
    return f"/proc/{os.getpid()}/fd/{fd}"


def links(fd):
    with netns.inside(fd):
        return {name: index for index, name in socket.if_nameindex()}


def show(fd, *args):
    with netns.inside(fd):
        return subprocess.run(["ip", *args], capture_output=True, text=True, check=True).stdout


def has_carrier_and_is_up(fd, name):
    return "LOWER_UP" in show(fd, "link", "show", name)


def test_a_tap_here(namespaces):
    tap = taps.open_tap(parse_tap("t0,mac=02:00:00:00:00:05,mtu=1400,queue=77"))
    text = show(namespaces[0], "link", "show", "t0")
    assert "02:00:00:00:00:05" in text
    assert "mtu 1400" in text
    assert "qlen 77" in text
    assert "LOWER_UP" in text
    assert tap.mac == "02:00:00:00:00:05"
    assert not os.get_blocking(tap.fd)
    assert not os.get_inheritable(tap.fd)
    assert taps.describe(tap.fd) == ("t0", taps.IFF_TAP | taps.IFF_NO_PI | taps.IFF_VNET_HDR)
    tap.close()
    assert "t0" not in links(namespaces[0])


def test_a_tap_in_another_namespace_under_another_name_and_on_a_bridge(namespaces):
    here, there = namespaces
    show(there, "link", "add", "br0", "type", "bridge")
    tap = taps.open_tap(parse_tap(f"t0,netns={path(there)},ifname=eth0,bridge=br0,mac=02:00:00:00:00:05"))
    assert "t0" not in links(here)
    assert "eth0" in links(there)
    text = show(there, "link", "show", "eth0")
    assert "master br0" in text
    assert "02:00:00:00:00:05" in text
    assert "LOWER_UP" in text
    tap.close()


def test_a_namespace_by_process_id(namespaces):
    _, there = namespaces
    with netns.inside(there):
        sleeper = subprocess.Popen(["sleep", "60"])
    try:
        tap = taps.open_tap(parse_tap(f"t0,netns={sleeper.pid}"))
        assert "t0" in links(there)
        tap.close()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_frames_and_offloads_cross(namespaces):
    tap = taps.open_tap(parse_tap("t0"))
    show(namespaces[0], "addr", "add", "10.1.1.1/24", "dev", "t0")
    show(namespaces[0], "neigh", "add", "10.1.1.2", "lladdr", "02:00:00:00:00:02", "dev", "t0")
    ethtool = shutil.which("ethtool")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"hello", ("10.1.1.2", 9))
    frame = read_until(tap.fd, b"hello")
    assert frame[:1] == b"\x01", "the checksum is left to us: NEEDS_CSUM"
    if ethtool:
        features = subprocess.run([ethtool, "-k", "t0"], stdout=subprocess.PIPE, text=True, check=True).stdout
        assert "tcp-segmentation-offload: on" in features
    tap.close()


def read_until(fd, what):
    deadline = time.monotonic() + 5
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(deadline - time.monotonic()):
                frame = os.read(fd, 70000)
                if what in frame:
                    return frame
    pytest.fail(f"no frame with {what!r} in time")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("t0,bridge=nobridge", "nobridge"),
        ("t0,netns=999999999", "999999999"),
        ("t0,netns=/dev/null", "not a network namespace"),
        ("t0,netns=/does/not/exist", "/does/not/exist"),
        ("t0,bridge=lo", "lo is not a bridge"),
    ],
)
def test_what_is_missing_is_named(namespaces, text, names):
    with pytest.raises(ConfigError, match=names):
        taps.open_tap(parse_tap(text))
    assert list(links(namespaces[0])) == ["lo"], "a tap that could not be placed was left behind"


def test_a_missing_device_is_named(namespaces, tmp_path):
    with pytest.raises(ConfigError, match="no-tun does not exist"):
        taps.open_tap(parse_tap("t0"), tun=str(tmp_path / "no-tun"))


def test_a_name_that_is_taken(namespaces):
    here, there = namespaces
    show(here, "link", "add", "t0", "type", "bridge")
    with pytest.raises(taps.TapExistsError):
        taps.open_tap(parse_tap("t0"))
    show(there, "link", "add", "eth0", "type", "bridge")
    with pytest.raises(taps.TapExistsError):
        taps.open_tap(parse_tap(f"t1,netns={path(there)},ifname=eth0"))
    assert sorted(links(here)) == ["lo", "t0"]


def test_adoption_looks_twice(namespaces, tmp_path):
    tap = taps.open_tap(parse_tap("t0"))
    with open(tmp_path / "file", "w") as file, pytest.raises(ValueError, match="not a tap"):
        taps.adopt_tap(parse_tap("t0"), file.fileno())
    with pytest.raises(ValueError, match="'t0', not 't1'"):
        taps.adopt_tap(parse_tap("t1"), tap.fd)
    with pytest.raises(ValueError, match="flags"):
        taps.adopt_tap(parse_tap("t0,vnet_hdr=off"), tap.fd)
    again = taps.adopt_tap(parse_tap("t0"), os.dup(tap.fd))
    assert again.adopted
    assert again.mac == tap.mac
    tap.close()
    again.close()


class Running:
    """A netdev with its server. A thread in the namespace `namespace` runs its loop."""

    def __init__(self, namespace, listen, *texts, adopt_timeout=5.0):
        self.events = []
        self.netdev = Netdev(
            NetdevConfig(str(listen), texts, adopt_timeout=adopt_timeout),
            taps.open_tap,
            taps.adopt_tap,
        )
        with netns.inside(namespace):
            self.netdev.open(time.monotonic())
        self.reactor = Reactor()
        self.server = Server(self.netdev, self.reactor, lambda level, event, **f: self.events.append((level, event)))
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def loop(self):
        while not self.stop.is_set():
            self.reactor.turn(time.monotonic() + 0.02)

    def end(self):
        """End as with SIGKILL: descriptors are closed. The socket file is removed too; a test may make it again."""
        self.stop.set()
        self.thread.join()
        self.server.close()
        self.netdev.close()
        self.reactor.close()


@pytest.fixture
def run(namespaces, tmp_path):
    running = []

    def start(*texts, **options):
        one = Running(namespaces[0], tmp_path / "netdev.sock", *texts, **options)
        running.append(one)
        return one

    yield start
    for one in running:
        if not one.stop.is_set():
            one.end()


def connect(tmp_path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(5)
    sock.connect(str(tmp_path / "netdev.sock"))
    return sock


def test_a_descriptor_is_passed_and_works(run, namespaces, tmp_path):
    run("lan,mac=02:00:00:00:00:07", "guest,vnet_hdr=off")
    assert os.stat(tmp_path / "netdev.sock").st_mode & 0o777 == 0o660
    with connect(tmp_path) as sock:
        info, fd = fetch_tap(sock, "lan", "m0")
        assert (info.tap, info.vnet_hdr, info.mac, info.mtu) == ("lan", True, "02:00:00:00:00:07", 1500)
        other, fd2 = fetch_tap(sock, "guest", "m0")
        assert not other.vnet_hdr
        assert taps.describe(fd)[0] == "lan"
        os.close(fd)
        os.close(fd2)
        with pytest.raises(RefusedError, match="nope"):
            fetch_tap(sock, "nope", "m0")


def test_garbage_is_answered_counted_and_logged_once(run, tmp_path):
    running = run("lan")
    with connect(tmp_path) as sock:
        for _ in range(3):
            sock.send(b"\xffnonsense")
            with pytest.raises(RefusedError):
                decode_reply(sock.recv(4096))
        sock.send(b"x" * 5000)
        with pytest.raises(RefusedError, match="oversized"):
            decode_reply(sock.recv(4096))
        # Descriptors that came with garbage are closed, and the connection can still be used.
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(sock, [b"\xc1"], [0, 1, 2])
        with pytest.raises(RefusedError):
            decode_reply(sock.recv(4096))
        assert len(os.listdir("/proc/self/fd")) == before
        _, fd = fetch_tap(sock, "lan", "m0")
        os.close(fd)
    counted = {k: n for k, n in running.netdev.counters.items() if k.startswith("bad_requests")}
    assert sum(counted.values()) == 5
    assert len([e for e in running.events if e == ("warning", "request.refused")]) == len(counted)


def test_a_killed_netdev_gets_its_taps_back(run, namespaces, tmp_path):
    _, there = namespaces
    text = f"guest,netns={path(there)},ifname=eth0"
    first = run(text)
    with connect(tmp_path) as sock:
        info, fd = fetch_tap(sock, "guest", "m0")
    first.end()
    index = links(there)["eth0"]
    second = run(text)
    assert not second.netdev.owned
    with connect(tmp_path) as sock:
        with pytest.raises(RefusedError) as error:
            fetch_tap(sock, "guest", "m0")
        assert error.value.retry
        assert return_tap(sock, "guest", fd, "m0").mac == info.mac
        _, again = fetch_tap(sock, "guest", "m1")
        assert taps.describe(again)[0] == "eth0"
    assert second.netdev.owned
    assert links(there)["eth0"] == index, "it is the same interface, with all its addresses and connections"
    os.close(fd)
    os.close(again)


def test_nobody_returns_it(run, namespaces):
    _, there = namespaces
    show(there, "link", "add", "eth0", "type", "bridge")
    running = run(f"guest,netns={path(there)},ifname=eth0")
    with netns.inside(namespaces[0]), pytest.raises(ConfigError, match="eth0.*exists already"):
        running.netdev.check(time.monotonic() + 6)


def test_the_socket_is_not_left_behind_and_not_stolen(run, tmp_path):
    running = run("lan")
    with pytest.raises(StartError, match="--listen: somebody listens"):
        run("other")
    running.end()
    assert not (tmp_path / "netdev.sock").exists()
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stale.bind(str(tmp_path / "netdev.sock"))
    stale.close()
    run("lan")
    with connect(tmp_path) as sock:
        os.close(fetch_tap(sock, "lan", "m0")[1])


def test_a_file_in_the_way(run, tmp_path):
    (tmp_path / "netdev.sock").write_text("mine")
    with pytest.raises(ConfigError, match="not a socket"):
        run("lan")
    assert (tmp_path / "netdev.sock").read_text() == "mine"


def test_not_netdev_at_the_other_end():
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        there.send(b"\x93\x01\x02\x03")
        with pytest.raises(WireError):
            fetch_tap(here, "lan", "m0")


def test_what_the_kernel_drops_at_a_tap_is_known_in_any_namespace(namespaces):
    _, there = namespaces
    netdev = Netdev(NetdevConfig("/run/x", (f"guest,netns={path(there)},ifname=eth0,queue=5,address=10.9.9.1/24",)))
    netdev.open(0.0)
    try:
        assert netdev.look(0.0) == {}
        with netns.inside(there), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            mac = ["lladdr", "02:00:00:00:00:07", "dev", "eth0"]
            subprocess.run(["ip", "neigh", "add", "10.9.9.7", *mac], check=True)
            for _ in range(50):
                sock.sendto(b"x", ("10.9.9.7", 9))
        # The queue holds five frames. Some may come from the kernel, which sends a few itself on a new interface.
        news = netdev.look(10.0)
        assert news["guest"] >= 45
        assert netdev.counters["tap.guest.dropped"] == news["guest"]
        assert netdev.look(20.0) == {}
    finally:
        netdev.close()
