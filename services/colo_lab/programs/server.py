"""A server whose answers depend on the request alone: HTTP/1.1 on TCP, echo on UDP, one port for all.

::

    GET /bytes/N     N bytes of the pattern
    GET /statement   an account statement of 200 lines
    GET /ANYTHING    a short text
    PUT /sink        reads the body, answers its length, CRC and first difference from the pattern
    UDP              every datagram comes back

`--flip N` changes one bit of byte N of every /bytes body, and `--err` changes one digit of the statement. They are for
a secondary whose difference is to be found. Answers have no Date header and no Server header, and do not depend on the
order in which clients connect.
"""

import argparse
import contextlib
import socket
import threading
import zlib

from colo_lab.programs.pattern import first_difference, piece

CHUNK = 262_144
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def statement(*, err: bool = False) -> bytes:
    """The account statement; with `err` one digit near its end is wrong."""
    lines = ["ACCOUNT 4711, STATEMENT FOR 2024", ""]
    balance = 100_000
    for n in range(1, 201):
        amount = (n * 7919) % 5000 - 2400
        balance += amount
        shown = balance + 100 if err and n == 173 else balance
        lines.append(f"{n:4}  transfer {n * 31 % 997:03}  {amount / 100:+10.2f}   balance {shown / 100:12.2f}")
    return ("\n".join(lines) + "\n").encode()


class Connection:
    """One client's connection, until it is closed."""

    def __init__(self, sock: socket.socket, options: argparse.Namespace) -> None:
        self.sock = sock
        self.options = options
        self.buffer = b""

    def run(self) -> None:
        """Answer one request after another."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.sock, contextlib.suppress(OSError, ValueError):
            while self._request():
                pass

    def _request(self) -> bool:
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data or len(self.buffer) > 65536:
                return False
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        if method == "PUT":
            if headers.get("expect") == "100-continue":
                self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._answer(self._sink(int(headers["content-length"])))
        elif path.startswith("/bytes/"):
            self._send_bytes(int(path.split("/")[2]))
        elif path == "/statement":
            self._answer(statement(err=self.options.err))
        else:
            self._answer(f"hello from {path}\n".encode())
        return headers.get("connection", "").lower() != "close"

    def _answer(self, body: bytes) -> None:
        self.sock.sendall(HEAD % len(body) + body)

    def _send_bytes(self, size: int) -> None:
        self.sock.sendall(HEAD % size)
        flip = self.options.flip
        offset = 0
        while offset < size:
            part: memoryview | bytearray = piece(offset, min(CHUNK, size - offset))
            if flip is not None and offset <= flip < offset + len(part):
                part = bytearray(part)
                part[flip - offset] ^= 0x01
            self.sock.sendall(part)
            offset += len(part)

    def _sink(self, size: int) -> bytes:
        got, crc = 0, 0
        wrong: int | None = None
        while got < size:
            data = self.buffer or self.sock.recv(CHUNK)
            if not data:
                raise ConnectionError("the body ended early")
            data, self.buffer = data[: size - got], data[size - got :]
            crc = zlib.crc32(data, crc)
            if wrong is None:
                wrong = first_difference(got, data)
            got += len(data)
        return f"{got} {crc:08x} {'-' if wrong is None else wrong}\n".encode()


def echo(family: socket.AddressFamily, port: int) -> None:
    """Send every datagram back, until the process ends."""
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind(("", port))
        while True:
            with contextlib.suppress(OSError):
                data, peer = sock.recvfrom(65536)
                sock.sendto(data, peer)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python3 -m colo_lab.programs.server")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--flip", type=int, metavar="N")
    parser.add_argument("--err", action="store_true")
    parser.add_argument("--congestion", metavar="NAME", help="congestion control, instead of the namespace's")
    options = parser.parse_args()
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=echo, args=(family, options.port), daemon=True).start()
    listener = socket.create_server(("", options.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    if options.congestion:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=Connection(sock, options).run, daemon=True).start()


if __name__ == "__main__":
    main()
