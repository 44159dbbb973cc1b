"""`--notify-dev` through a real compare process: QEMU's words and the frames they release, both vnet settings."""

import json
import select
import socket
import struct
import time

import pytest

import craft
from runtime_helpers import PATIENCE

pytestmark = pytest.mark.slow

INIT, ANSWER = b"COLO_USERSPACE_PROXY_INIT", b"COLO_COMPARE_GET_XEN_INIT"
WANTED, DONE = b"DO_CHECKPOINT", b"COLO_CHECKPOINT"
GUEST, CLIENT = "10.0.0.2", "10.0.0.9"


class Compare:
    """A real compare; all four sockets of QEMU's."""

    def __init__(self, bench, *, vnet: bool, name: str = "comp0") -> None:
        self.bench, self.vnet = bench, vnet
        query = "?server=on&vnet_hdr=on" if vnet else "?server=on"
        argv = ["compare", "--id", name, "--log-format", "json"]
        options = {"primary-in": "pri", "secondary-in": "sec", "outdev": "out", "notify-dev": "ntf"}
        for option, path in options.items():
            argv += [f"--{option}", f"chardev+unix://{bench.path(path)}{query}"]
        bench.colo(*argv, "--compare-timeout", "60000")
        self.pri, self.sec, self.out, self.ntf = (bench.unix(bench.path(path)) for path in options.values())

    def put(self, sock: socket.socket, ethernet: bytes) -> None:
        head = struct.pack("!II", len(ethernet), 0) if self.vnet else struct.pack("!I", len(ethernet))
        sock.sendall(head + ethernet)

    def take(self) -> bytes:
        """A released frame. The header that stands behind the lengths is as long as the one that came with it."""
        length, *header = struct.unpack("!II" if self.vnet else "!I", self.exactly(self.out, 8 if self.vnet else 4))
        assert not any(header)
        return self.exactly(self.out, length)

    def say(self, word: bytes) -> None:
        """To compare: with the second number when vnet_hdr is on."""
        self.put(self.ntf, word)

    def hear(self) -> bytes:
        """From compare: never with a second number."""
        (length,) = struct.unpack("!I", self.exactly(self.ntf, 4))
        return self.exactly(self.ntf, length)

    def silent(self) -> bool:
        """Nothing is there to be heard now."""
        return not select.select([self.ntf], [], [], 0)[0]

    @staticmethod
    def exactly(sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = sock.recv(size - len(data))
            assert more, "the other end has closed"
            data += more
        return data


def datagram(payload: bytes, port: int = 53) -> bytes:
    return craft.udp(GUEST, CLIENT, port, 5000, payload)[10:]


@pytest.fixture(params=[False, True], ids=["plain", "vnet_hdr"])
def compare(bench, request):
    return Compare(bench, vnet=request.param)


def test_hello_and_its_answer(compare):
    compare.say(INIT)
    assert compare.hear() == ANSWER


def test_a_difference_asks_once_and_done_releases(compare):
    compare.say(INIT)
    assert compare.hear() == ANSWER
    held = [datagram(b"mine %d" % n, 53 + n) for n in range(3)]
    for n, frame in enumerate(held):
        compare.put(compare.pri, frame)
        compare.put(compare.sec, datagram(b"its! %d" % n, 53 + n))
    assert compare.hear() == WANTED
    # Every flow has asked by now: three differences, the words of one request.
    lines: list[dict] = []
    end = time.monotonic() + PATIENCE
    while len(lines) < 3:
        logs = [json.loads(line) for line in compare.bench.logs().splitlines() if line.startswith("{")]
        lines = [line for line in logs if line["event"] == "miscompare.found"]
        assert time.monotonic() < end, compare.bench.logs()
        time.sleep(0.02)
    assert compare.silent()
    compare.say(DONE)
    assert sorted(compare.take() for _ in held) == sorted(held)
    # The next difference is a request of its own.
    compare.put(compare.pri, datagram(b"more"))
    compare.put(compare.sec, datagram(b"less"))
    assert compare.hear() == WANTED


def test_other_words_are_refused_and_nothing_else_happens(compare):
    for word in (b"HELLO", DONE + b"\0", b"COLO_CHECKPOIN"):
        compare.say(word)
    compare.put(compare.pri, datagram(b"held"))
    compare.say(INIT)
    assert compare.hear() == ANSWER
    assert not select.select([compare.out], [], [], 0)[0]
    compare.put(compare.sec, datagram(b"held"))
    assert compare.take() == datagram(b"held")


def test_a_frame_that_comes_late_hears_the_request(compare):
    """The request is said again to whoever connects while it is open: that frame was restarted, or is late."""
    compare.put(compare.pri, datagram(b"mine"))
    compare.put(compare.sec, datagram(b"its!"))
    assert compare.hear() == WANTED
    compare.ntf.close()
    compare.ntf = compare.bench.unix(compare.bench.path("ntf"))
    assert compare.hear() == WANTED
    compare.say(DONE)
    assert compare.take() == datagram(b"mine")


def test_a_word_that_is_too_long_ends_the_connection_and_the_next_works(compare):
    compare.ntf.sendall(struct.pack("!I", 1 << 20) + b"x" * 100)
    while compare.ntf.recv(65536):
        pass
    compare.ntf = compare.bench.unix(compare.bench.path("ntf"))
    compare.say(INIT)
    assert compare.hear() == ANSWER
