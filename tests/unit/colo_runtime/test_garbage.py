"""A real process with a link of each kind, each fed with garbage: counted, said once, and the others never notice."""

import json
import random
import socket
import time
from struct import pack
from urllib.request import urlopen

import msgpack
import pytest
import zmq
from prometheus_client.parser import text_string_to_metric_families

from colo_proto import codec
from colo_proto.messages import Drain
from runtime_helpers import PATIENCE, frame, frames, free_port


def framed(*some):
    return b"".join(pack("!I", len(one) - 10) + one[10:] for one in some)


class Victim:
    """`colo redirector` between everything: frames go indev -> netdev and netdev -> outdev."""

    def __init__(self, bench):
        self.bench = bench
        self.port, self.http = free_port(), f"127.0.0.1:{free_port()}"
        self.control = bench.zmq(zmq.ROUTER, bench.ipc("control"), bind=True)
        self.child = bench.colo(
            "redirector", "--id", "r", "--indev", f"tcp://127.0.0.1:{self.port}?server=on",
            "--netdev", f"chardev+unix://{bench.path('n')}?server=on", "--outdev", bench.ipc("o") + "?server=on",
            "--frame", bench.ipc("control"), "--http", self.http,
        )  # fmt: skip
        self.netdev = bench.unix(bench.path("n"))
        self.netdev.settimeout(PATIENCE)
        self.indev = bench.zmq(zmq.DEALER, f"tcp://127.0.0.1:{self.port}")
        self.outdev = bench.zmq(zmq.DEALER, bench.ipc("o"))
        self.sent = 0

    def metrics(self):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with urlopen(f"http://{self.http}/metrics", timeout=PATIENCE) as answer:
                    text = answer.read().decode()
            except OSError:
                assert time.monotonic() < end, self.bench.logs()
                time.sleep(0.01)
                continue
            return {
                (sample.name, sample.labels.get("port", ""), sample.labels.get("reason", "")): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }

    def errors(self, name, reason, port=""):
        return self.metrics().get((f"colo_redirector_{name}_wire_errors_total", port, reason), 0)

    def until(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"{self.metrics()} {self.bench.logs()}"
            time.sleep(0.02)

    def works(self):
        """Frames still go both ways."""
        one = frames(self.sent, 3)
        self.sent += 3
        self.indev.send(codec.encode_batch("x", 1, self.sent, 0, 0.0, one))
        expected = framed(*one)
        assert self.netdev.recv(len(expected), socket.MSG_WAITALL) == expected
        self.netdev.sendall(framed(*one))
        got = []
        while len(got) < 3:
            assert self.outdev.poll(PATIENCE * 1000), self.bench.logs()
            got += codec.decode(self.outdev.recv()).frames
        assert got == one
        assert self.child.poll() is None

    def said(self, event):
        text = self.bench.logs()
        assert all(line.startswith("{") for line in text.splitlines()), text
        lines = [json.loads(line) for line in text.splitlines()]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def victim(bench):
    one = Victim(bench)
    one.works()
    return one


def test_each_kind_of_link(victim, bench):
    dice = random.Random(7)

    # ZeroMQ messages: random bytes, a truncated batch, another version, no frames, something that is no batch.
    good = codec.encode_batch("x", 1, 0, 0, 0.0, [frame(1)])
    messages = {
        "undecodable": [b"\xc1" + dice.randbytes(n) for n in range(50)] + [good[:n] for n in range(1, len(good))],
        "version": [msgpack.packb([9, 0, "x", 1, 0, 0, 0.0, []])] * 5,
        "frame": [codec.encode_batch("x", 1, 0, 0, 0.0, [b"short"])] * 5,
        "oversized": [codec.encode_batch("x", 1, 0, 0, 0.0, [frame(1)] * 65), bytes(codec.MAX_MESSAGE + 1)],
        "unexpected": [codec.encode(Drain())] * 5,
    }
    bad = bench.zmq(zmq.DEALER, f"tcp://127.0.0.1:{victim.port}")
    for reason, some in messages.items():
        for message in some:
            bad.send(message)
        victim.until(lambda reason=reason, some=some: victim.errors("link", reason, "indev") == len(some))
    bad.send_multipart([b"a", b"b"])
    victim.until(lambda: victim.errors("link", "multipart", "indev") == 1)
    victim.works()

    # Raw TCP to a ZMTP port: random bytes, HTTP, a half greeting, a connection that says nothing.
    idle = socket.create_connection(("127.0.0.1", victim.port))
    with idle:
        for data in (
            b"\xff" + dice.randbytes(500),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
            b"\xff" + bytes(8) + b"\x7f\x09",
        ):
            with socket.create_connection(("127.0.0.1", victim.port)) as raw:
                raw.sendall(data)
        victim.until(lambda: victim.errors("link", "handshake", "indev") >= 1)
        victim.works()

    # The control link.
    assert victim.control.poll(PATIENCE * 1000)
    peer, _ = victim.control.recv_multipart()
    for _ in range(20):
        victim.control.send_multipart([peer, dice.randbytes(40)])
        victim.control.send_multipart([peer, good])
    victim.until(lambda: victim.errors("control", "unexpected") == 20)
    victim.works()

    # A chardev: empty, runt, then a length that ends the connection; the next one is good.
    victim.netdev.sendall(bytes(4) * 10 + pack("!I", 5) + bytes(5))
    victim.until(
        lambda: victim.errors("link", "empty", "netdev") == 10 and victim.errors("link", "runt", "netdev") == 1
    )
    victim.works()
    victim.netdev.sendall(pack("!I", 69633) + dice.randbytes(200))
    victim.until(lambda: victim.errors("link", "oversized", "netdev") == 1)
    victim.netdev.close()
    victim.netdev = bench.unix(bench.path("n"))
    victim.netdev.settimeout(PATIENCE)
    victim.until(lambda: victim.metrics()["colo_redirector_link_peers", "netdev", ""] == 1)
    victim.works()

    # HTTP that is none.
    host, _, port = victim.http.rpartition(":")
    for data in (b"\x16\x03\x01" + dice.randbytes(200) + b"\r\n\r\n", b"GET /" + b"a" * 100_000, b"\r\n" * 10):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(data)
    victim.works()

    # Each trouble was said, and not over and over.
    refused = victim.said("message.refused")
    assert {line["port"] for line in refused} == {"indev", "netdev", "frame"}
    assert len(refused) == 3
    assert len(victim.said("frame.refused")) == 2
    assert "Traceback" not in bench.logs()
