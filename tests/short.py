"""Thousands of short connections a second: a server and a client that need no thread for each.

    python tests/short.py serve                                          on port 8080
    python tests/short.py ask --count 20000 [--rate 2000] [--flight 50]  one request on each connection

The server answers and closes, as HTTP/1.0 does. The client connects to the address in `COLO_GUEST`, which the lab sets
for its client, or else to this machine. It opens `--rate` connections a second (0: as many as it can) with at most
`--flight` open at once, reads each to its end, and prints one line of JSON: `requests`, `wrong` (the answer is not the
one to the request, or the connection failed), `seconds`, `per_s`, and `slowest_ms` of a connection.
"""

import argparse
import contextlib
import json
import os
import select
import socket
import sys
import time

PORT = 8080


def answer(request: bytes) -> bytes:
    """A short text that depends on the request alone."""
    path = request.split(b" ", 2)[1]
    return b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nThis is %s.\n" % path


def serve() -> None:
    """Answer every connection's first line, then close it."""
    listener = socket.create_server(("", PORT), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_now: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sock, _ = listener.accept()
                        sock.setblocking(False)
                        open_now[sock.fileno()] = sock
                        poll.register(sock, select.EPOLLIN)
                continue
            # A request is one segment: what comes in pieces would be another program's.
            with open_now.pop(fd) as sock, contextlib.suppress(OSError):
                if request := sock.recv(4096):
                    sock.sendall(answer(request))


class Client:
    """Connections that are open, each with its request and the part of the answer that has arrived."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.address = (os.environ.get("COLO_GUEST", "127.0.0.1"), PORT)
        self.poll = select.epoll()
        self.flight: dict[int, tuple[socket.socket, bytes, bytearray, float]] = {}
        self.wrong = 0
        self.slowest = 0.0

    def begin(self, number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self.address)
        self.poll.register(sock, select.EPOLLOUT)
        self.flight[sock.fileno()] = (sock, b"GET /%d HTTP/1.0\r\n\r\n" % number, bytearray(), time.monotonic())

    def on(self, fd: int, events: int) -> None:
        """A connection is open, has sent something, or has failed."""
        sock, request, got, since = self.flight[fd]
        try:
            if events & select.EPOLLOUT:
                sock.sendall(request)
                self.poll.modify(fd, select.EPOLLIN)
                return
            data = sock.recv(65536)
        except OSError:
            data, got = b"", bytearray()
        got += data
        if not data:
            self.wrong += bytes(got) != answer(request)
            self.slowest = max(self.slowest, time.monotonic() - since)
            del self.flight[fd]
            sock.close()

    def run(self) -> None:
        options = self.options
        start, begun = time.monotonic(), 0
        while begun < options.count or self.flight:
            due = options.count
            if options.rate:
                due = min(due, int((time.monotonic() - start) * options.rate) + 1)
            while begun < due and len(self.flight) < options.flight:
                self.begin(begun)
                begun += 1
            for fd, events in self.poll.poll(0.001 if options.rate else 1.0):
                self.on(fd, events)
        seconds = time.monotonic() - start
        found = {"requests": begun, "wrong": self.wrong, "seconds": round(seconds, 3), "per_s": round(begun / seconds)}
        print(json.dumps({**found, "slowest_ms": round(self.slowest * 1000)}))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["serve", "ask"])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--flight", type=int, default=50)
    options = parser.parse_args()
    if options.what == "serve":
        serve()
    client = Client(options)
    client.run()
    return 1 if client.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
