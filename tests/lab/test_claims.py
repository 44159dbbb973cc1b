"""A stranger on the client LAN, between real processes: it floods the LAN heartbeats of a pair, and replays claims."""

import contextlib
import signal
import socket
import subprocess
import sys

import pytest

from colo_lab.namespaces import BRIDGE
from colo_netdev import netns
from colo_proto.claim import CLAIM, ETHERTYPE

from .test_failover import Stage, state

TYPE = int.from_bytes(ETHERTYPE, "big")

JUNK = b"\xff" * 6 + bytes.fromhex("02bad0000001") + ETHERTYPE + bytes(CLAIM)
"""A frame of the type that claims have, sent by a stranger."""

FLOOD = f"""
import os, random, socket, sys, time
lan = socket.socket(fileno=int(sys.argv[1]))
head = b"\\xff" * 6 + bytes.fromhex("02bad0000001") + bytes.fromhex("{ETHERTYPE.hex()}")
junk = [head + b"COLO\\x02" + os.urandom({CLAIM} - 29) for _ in range(256)]
at = time.monotonic()
while True:
    for frame in random.choices(junk, k=100):
        try:
            lan.send(frame)
        except OSError:
            pass
    at = max(at + 0.005, time.monotonic() - 0.1)
    time.sleep(max(0.0, at - time.monotonic()))
"""
"""Send frames with the length and the first bytes of claims: 20,000 a second, if the machine can make so many."""


@contextlib.contextmanager
def on_the_lan(lab):
    """A raw socket in the network of the clients."""
    with netns.inside(lab.namespaces.fds["client"]):
        lan = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(TYPE))
        lan.bind((BRIDGE, TYPE))
    lan.setblocking(False)
    with lan:
        yield lan


def read(lan):
    """What was said since the last call."""
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(lan.recv(2048))
    return frames


@contextlib.contextmanager
def flooded(lan):
    child = subprocess.Popen([sys.executable, "-c", FLOOD, str(lan.fileno())], pass_fds=[lan.fileno()])
    try:
        yield
        assert child.poll() is None, "the flood ended before the test did"
    finally:
        child.kill()
        child.wait()


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize("wiring", ["faithful", "lean"])
def test_the_link_is_cut_in_a_flood_of_junk(wiring):
    def script(lab):
        for _ in range(10):
            yield
        with on_the_lan(lab) as lan, flooded(lan):
            for _ in range(20):
                yield
            lab.cut()
            while lab.frame("primary")["mode"] != "bypass":
                yield
            for _ in range(80):
                assert state(lab, "secondary") == "standby"
                yield
            assert state(lab, "primary") == "alone"
            heard = lab.frame("secondary")["counters"]["claims_heard"]
            for _ in range(20):
                yield
            assert lab.frame("secondary")["counters"]["claims_heard"] > heard

    report = Stage(wiring=wiring, extra={"frame-s": {"failover": "auto"}}).run("rr --seconds 14", script)
    assert report["invariants"]["S5"] == "held", report["invariants_why"]["S5"]
    assert set(report["lan"]["frames"]) == {"lan-p"}
    heartbeat = next(one for one in report["processes"] if one["id"] == ("f1" if wiring == "faithful" else "rew0"))
    assert heartbeat["counters"]["claims_ignored.junk"] > 5000


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize(("wiring", "listener"), [("faithful", "f1"), ("lean", "rew0")])
def test_the_frame_learns_that_the_tap_of_its_lan_heartbeat_has_dropped_frames(wiring, listener):
    """The listener stands still until its tap overflows. Frames were lost, so the silence on the LAN counts anew."""

    def overflows(lab):
        return lab.frame("secondary")["counters"].get("lan_overflows", 0)

    def script(lab):
        for _ in range(10):
            yield
        listening = lab.supervisor.children[listener]
        with on_the_lan(lab) as lan:
            assert overflows(lab) == 0
            listening.signal(signal.SIGSTOP)
            try:
                while not overflows(lab):
                    for _ in range(5000):
                        with contextlib.suppress(OSError):
                            lan.send(JUNK)
                    yield
            finally:
                listening.signal(signal.SIGCONT)
        while state(lab, "secondary") != "standby":
            yield

    Stage(wiring=wiring, extra={"frame-s": {"failover": "auto"}}).run("rr --seconds 14", script)


@pytest.mark.usefixtures("privileged")
def test_recorded_claims_of_a_dead_primary_do_not_put_the_failover_off():
    def script(lab):
        with on_the_lan(lab) as lan:
            for _ in range(30):
                yield
            tape = read(lan)
            assert len(tape) >= 6
            lab.fail("host-p")
            while state(lab, "secondary") != "promoted":
                for frame in tape:
                    lan.send(frame)
                yield
            # What the other side has said does not end its promotion, either.
            for _ in range(20):
                for frame in tape:
                    lan.send(frame)
                assert state(lab, "secondary") == "promoted"
                yield

    report = Stage(extra={"frame-s": {"failover": "auto"}}).run("rr --seconds 9", script)
    assert report["failover"]["promoted"]
    assert 1000 <= report["failover"]["silence_ms"] < 2000
    for name in ("S3", "S5"):
        assert report["invariants"][name] == "held", report["invariants_why"][name]
    assert report["failover"]["connections_continued"] >= 1
