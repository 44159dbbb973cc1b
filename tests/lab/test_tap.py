"""Taps as links: a real filter uses a real tap of a real netdev, and any of them may die."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from struct import pack

import pytest

import craft
from checksums import ip_checksum_ok, l4_checksum_ok
from colo_netdev import netns
from colo_proto.chardev import ChardevParser
from colo_proto.net import packet as p
from runtime_helpers import PATIENCE, Bench, frame, frames
from where import PYTHONPATH

pytestmark = pytest.mark.usefixtures("privileged")
ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_VNET_HDR = 263, 15
"""From linux/if_packet.h: what is sent has a header, which may leave the checksum to the device."""
ACK = 16


@pytest.fixture
def place():
    """A directory and two empty namespaces: processes run in the first, and taps are interfaces in the second."""
    directory = Path(tempfile.mkdtemp(prefix="colo-"))
    bench = Bench(directory)
    here, there = netns.new(), netns.new()
    with netns.inside(here):
        yield Place(bench, there)
    bench.close()
    os.close(here)
    os.close(there)
    rmtree(directory)


class Place:
    def __init__(self, bench, there):
        self.bench, self.there = bench, there

    def netdev(self, *more, adopt="5"):
        text = f"t0,netns=/proc/{os.getpid()}/fd/{self.there},ifname=eth0" + "".join(f",{m}" for m in more)
        return self.bench.colo(
            "netdev",
            "--listen",
            self.bench.path("netdev"),
            "--tap",
            text,
            "--adopt-timeout",
            adopt,
            "--log-level",
            "debug",
        )

    def redirector(self, *more, tap="t0"):
        return self.bench.colo(
            "redirector", "--id", "r", "--netdev", f"tap://{tap}?netdev={self.bench.path('netdev')}",
            "--indev", f"chardev+unix://{self.bench.path('i')}?server=on&vnet_hdr=on",
            "--outdev", f"chardev+unix://{self.bench.path('o')}?server=on", *more,
        )  # fmt: skip

    def kernel(self):
        """A packet socket on the kernel side of the tap."""
        with netns.inside(self.there):
            one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            one.bind(("eth0", 0))
        one.settimeout(PATIENCE)
        self.bench.sockets.append(one)
        return one

    def until(self, condition):
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            dead = [c.args[4:6] for c in self.bench.children if c.poll() is not None]
            assert time.monotonic() < end, f"dead: {dead}\n{self.bench.logs()}"
            time.sleep(0.02)
        return value

    def said(self, event):
        # The last line may not be complete yet.
        found = []
        for line in self.bench.logs().splitlines():
            with suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return [line for line in found if line["event"] == event]


def framed(*some):
    return b"".join(pack("!II", len(one), 10) + one for one in some)


def receive(stream, count):
    """Our own frames from a chardev socket. The kernel sends some itself (for IPv6), before and between them."""
    stream.settimeout(PATIENCE)
    parser, got = ChardevParser({}), []
    while len(got) < count:
        data = stream.recv(1 << 16)
        assert data, f"the stream ended after {len(got)} of {count} frames"
        got += [one for one in parser.feed(data) if one[10:16] == frame(0)[10:16]]
    return got


def heard(kernel, count):
    """Our own frames on the side of the kernel, which sends frames itself as well."""
    got = []
    while len(got) < count:
        data = kernel.recv(1 << 17)
        if data[:6] in (frame(0)[10:16], craft.MAC_B):
            got.append(data)
    return got


def test_frames_cross_both_ways(place):
    place.netdev()
    place.redirector()
    into, out = place.bench.unix(place.bench.path("i")), place.bench.unix(place.bench.path("o"))
    place.until(lambda: place.said("tap.attached"))
    kernel = place.kernel()
    into.sendall(framed(*frames(0, 100)))
    assert heard(kernel, 100) == [one[10:] for one in frames(0, 100)]
    for one in frames(500, 100):
        kernel.send(one[10:])
    assert receive(out, 100) == frames(500, 100)


@pytest.mark.parametrize("vnet_hdr", ["on", "off"])
def test_a_large_segment_is_whole_on_a_tap_with_offloads_and_finished_here_on_one_without(place, vnet_hdr):
    place.netdev(f"vnet_hdr={vnet_hdr}")
    place.redirector()
    into = place.bench.unix(place.bench.path("i"))
    place.until(lambda: place.said("tap.attached"))
    kernel = place.kernel()
    big = craft.tcp("10.9.0.1", "10.9.0.2", 1, 2, 3, 4, 16, bytes(range(250)) * 20, gso=1400)
    into.sendall(framed(big))
    if vnet_hdr == "on":
        (whole,) = heard(kernel, 1)
        assert len(whole) == len(big) - 10
        return
    pieces = [bytes(10) + one for one in heard(kernel, 4)]
    assert all(ip_checksum_ok(one) and l4_checksum_ok(one) for one in pieces)
    assert b"".join(p.dissect(one).payload()[20:] for one in pieces) == bytes(range(250)) * 20


def test_a_filter_that_was_killed_finds_the_frames_that_came_meanwhile(place):
    place.netdev()
    victim = place.redirector()
    place.bench.unix(place.bench.path("i"))
    place.until(lambda: place.said("tap.attached"))
    kernel = place.kernel()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    place.bench.children.remove(victim)
    for one in frames(0, 500):
        kernel.send(one[10:])
    # The next process must not read before another one takes what it reads.
    out = place.bench.path("o")
    os.unlink(out)
    place.redirector()
    got = receive(place.bench.unix(out), 1)
    assert got[0] in frames(0, 500)


def test_segments_that_waited_are_handed_over_as_fewer_frames(place):
    """Two connections in turn, with more frames than one turn of the loop reads: no byte of either is missing."""
    place.netdev()
    one = place.redirector("--outdev", f"chardev+unix://{place.bench.path('o')}?server=on&vnet_hdr=on")
    out = place.bench.unix(place.bench.path("o"))
    place.bench.unix(place.bench.path("i"))
    place.until(lambda: place.said("tap.attached") and len(place.said("stream.connected")) == 2)
    kernel = place.kernel()
    kernel.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    one.send_signal(signal.SIGSTOP)
    sent = dict.fromkeys((5000, 5001), b"")
    for n in range(300):
        for port in sent:
            text = f"{port} {n} ".encode() * 90
            at = 1000 + len(sent[port])
            kernel.send(craft.tcp("10.0.0.2", "10.0.0.9", 80, port, at, 7, ACK, text, partial=True))
            sent[port] += text
    one.send_signal(signal.SIGCONT)
    out.settimeout(PATIENCE)
    parser, got, count = ChardevParser({}, vnet_hdr=True), dict.fromkeys(sent, b""), 0
    while got != sent:
        data = out.recv(1 << 16)
        assert data
        for found in map(p.dissect, parser.feed(data)):
            if found.proto == p.PROTO_TCP:
                count += 1
                segment = found.payload()
                got[int.from_bytes(segment[2:4], "big")] += segment[20:]
    assert count < 150, "of 600"


def test_netdev_may_die_and_come_back(place):
    first = place.netdev()
    place.redirector()
    into = place.bench.unix(place.bench.path("i"))
    place.until(lambda: place.said("tap.attached"))
    kernel = place.kernel()
    first.send_signal(signal.SIGKILL)
    first.wait()
    place.bench.children.remove(first)
    into.sendall(framed(*frames(0, 10)))
    assert heard(kernel, 10) == [one[10:] for one in frames(0, 10)]
    place.netdev(adopt="60")
    place.until(lambda: place.said("tap.returned"))
    into.sendall(framed(*frames(10, 10)))
    assert heard(kernel, 10) == [one[10:] for one in frames(10, 10)]
    assert len(place.said("tap.attached")) == 1


def test_netdev_may_come_later(place):
    place.redirector()
    place.until(lambda: place.said("process.started"))
    # Nobody can send frames into a filter that has no tap.
    assert not os.path.exists(place.bench.path("i"))
    place.netdev()
    place.until(lambda: place.said("tap.attached"))
    into = place.bench.unix(place.bench.path("i"))
    kernel = place.kernel()
    into.sendall(framed(*frames(0, 3)))
    assert heard(kernel, 3) == [one[10:] for one in frames(0, 3)]


def test_a_tap_that_netdev_does_not_know_is_one_clear_line(place):
    place.netdev()
    place.until(lambda: place.said("netdev.listening"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "colo_cli", "redirector", "--netdev",
         f"tap://nosuch?netdev={place.bench.path('netdev')}", "--indev", "pcap:///dev/zero", "--outdev", "pcap:///dev/null"],
        env=os.environ | {"PYTHONPATH": PYTHONPATH}, capture_output=True, text=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 2
    last = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(last) == 1, done.stderr
    assert last[0].startswith("colo redirector: --")
    assert "nosuch" in last[0]


def test_a_tap_whose_interface_is_deleted(place):
    place.netdev()
    child = place.redirector()
    into = place.bench.unix(place.bench.path("i"))
    place.until(lambda: place.said("tap.attached"))
    with netns.inside(place.there):
        subprocess.run(["ip", "link", "delete", "eth0"], check=True)

    def died():
        into.sendall(framed(frame(0)))
        return place.said("tap.died")

    place.until(died)
    place.until(lambda: place.said("process.unready"))
    assert child.poll() is None
