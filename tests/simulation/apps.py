"""What runs on the hosts: services on the guests, jobs on the clients. Plain data, so that a guest can be copied.

A service gives the same answer to the same request at any time. A job knows every byte that it must receive.

====  ========================================================================
 D    download `n` bytes
 U    upload `n` bytes, then a receipt
 E    echo of `n` bytes
 R    `n` small requests, up to `m` of them under way at once
 H    upload `n` bytes and FIN, then receive `m` (half close)
 B    both directions at once: receive `n`, send `m`
 A    receive `n` bytes, then the guest resets
 X    receive `m` of `n` bytes, then the client resets
 C    the guest opens a connection to the client, sends `n` bytes on it and receives `m`
====  ========================================================================
"""

from random import Random
from struct import Struct
from zlib import crc32

from .tcb import CLOSED, TIME_WAIT

_HEAD = Struct("!cIIIBHx")
_ASK = Struct("!II")
_SPAN = 99991
"""A prime, so that the streams of two keys never agree for long."""
_NOISE = Random(4711).randbytes(_SPAN) * 2

GUEST_CLOSES, BANNER = 1, 2
BANNER_PORT = 81
BANNER_SIZE = 300


def pattern(key, at, size):
    """Bytes `at` to `at + size` of the stream called `key`."""
    start = (key * 7919 + at) % _SPAN
    assert size <= _SPAN
    return _NOISE[start : start + size]


class Service:
    """A guest's application on one connection."""

    def __init__(self, key):
        self.banner = key[1] == BANNER_PORT
        self.head = bytearray()
        self.kind = b""
        self.n = self.m = self.key = self.flags = self.port = 0
        self.seen = 0
        self.sum = 0
        self.rest = bytearray()

    def opened(self, sock, now):
        if self.banner:
            sock.write(pattern(BANNER_PORT, 0, BANNER_SIZE))

    def data(self, sock, data, now):
        if not self.kind:
            self.head += data
            if len(self.head) < _HEAD.size:
                return
            self.kind, self.n, self.m, self.key, self.flags, self.port = _HEAD.unpack_from(self.head)
            data = bytes(self.head[_HEAD.size :])
            self._start(sock)
        if data:
            self._body(sock, data)

    def _start(self, sock):
        kind = self.kind
        if kind in b"DXBA":
            sock.write(pattern(self.key, 0, self.n))
            if kind == b"D" and self.flags & GUEST_CLOSES:
                sock.close()
        elif kind == b"C":
            sock.asks.append((self.port, self.key, self.n, self.m, self.flags))
            sock.write(b"calling you\n")

    def _body(self, sock, data):
        kind = self.kind
        self.seen += len(data)
        self.sum = crc32(data, self.sum)
        if kind == b"E":
            sock.write(data)
        elif kind == b"R":
            self.rest += data
            while len(self.rest) >= _ASK.size:
                size, key = _ASK.unpack_from(self.rest)
                del self.rest[: _ASK.size]
                sock.write(pattern(key, 0, size))
        elif kind == b"A":
            sock.abort()
        elif (kind == b"U" and self.seen == self.n) or (kind == b"B" and self.seen == self.m):
            sock.write(b"got it " + self.sum.to_bytes(4, "big"))
            if self.flags & GUEST_CLOSES:
                sock.close()

    def eof(self, sock, now):
        if self.kind == b"H":
            sock.write(self.sum.to_bytes(4, "big") + pattern(self.key, 0, self.m))
        sock.close()

    def gone(self, sock, now):
        pass


class Caller:
    """The guest's end of a connection that it opened."""

    def __init__(self, key, n, m, flags):
        self.key, self.n, self.m, self.flags = key, n, m, flags
        self.heard = 0

    def opened(self, sock, now):
        sock.write(pattern(self.key, 0, self.n))
        if self.flags & GUEST_CLOSES:
            sock.close()

    def data(self, sock, data, now):
        self.heard += len(data)

    def eof(self, sock, now):
        sock.close()

    def gone(self, sock, now):
        pass


class Job:
    """A client's job: what it sends, what it must receive, and when it is finished."""

    def __init__(self, name, kind, n, m, key, flags, port):
        self.name, self.kind, self.n, self.m, self.key, self.flags, self.port = name, kind, n, m, key, flags, port
        self.heard = 0
        self.asked = 0
        self.asking = [(30 + (key * 13 + i * 37) % 400, key + i) for i in range(n)] if kind == b"R" else []
        self.wants = self._wants()
        self.done = False
        self.error = ""
        self.closed = self.ended = False
        self.sock = None
        self.callee = None
        """For C: the job at the end of the client that listens."""

    def _head(self):
        return _HEAD.pack(self.kind, self.n, self.m, self.key, self.flags, self.port)

    def _says(self):
        if self.kind in (b"U", b"E", b"H"):
            return pattern(self.key + 1, 0, self.n)
        return pattern(self.key + 1, 0, self.m) if self.kind == b"B" else b""

    def _wants(self):
        """Every byte that the guest must send."""
        kind = self.kind
        said = self._says()
        out = pattern(BANNER_PORT, 0, BANNER_SIZE) if self.flags & BANNER else b""
        if kind in (b"D", b"A", b"X"):
            out += pattern(self.key, 0, self.n)
        elif kind == b"U":
            out += b"got it " + crc32(said).to_bytes(4, "big")
        elif kind == b"E":
            out += said
        elif kind == b"R":
            out += b"".join(pattern(key, 0, size) for size, key in self.asking)
        elif kind == b"H":
            out += crc32(said).to_bytes(4, "big") + pattern(self.key, 0, self.m)
        elif kind == b"B":
            out += pattern(self.key, 0, self.n) + b"got it " + crc32(said).to_bytes(4, "big")
        elif kind == b"C":
            out += b"calling you\n"
        return out

    def opened(self, sock, now):
        self.sock = sock
        sock.write(self._head() + self._says())
        if self.kind == b"R":
            self._ask(sock)
        elif self.kind == b"H":
            self._close(sock)
        elif self.kind == b"A" and self.flags & GUEST_CLOSES:
            sock.write(b"!")

    def _ask(self, sock):
        replied = 0
        heard = self.heard - (BANNER_SIZE if self.flags & BANNER else 0)
        while replied < self.asked and sum(size for size, _ in self.asking[: replied + 1]) <= heard:
            replied += 1
        while self.asked < len(self.asking) and self.asked - replied < max(self.m, 1):
            sock.write(_ASK.pack(*self.asking[self.asked]))
            self.asked += 1

    def data(self, sock, data, now):
        at = self.heard
        self.heard += len(data)
        if data != self.wants[at : self.heard]:
            self.error = self.error or f"heard something else at {at} of {len(self.wants)}"
            sock.abort()
            return
        kind = self.kind
        if kind == b"X" and self.heard >= self.m:
            sock.abort()
            self.done = True
        elif kind == b"R":
            self._ask(sock)
        if self.heard == len(self.wants):
            if kind == b"A":
                sock.write(b"!")
            elif kind == b"X":
                pass
            elif not self.flags & GUEST_CLOSES or kind not in (b"D", b"U", b"B"):
                self._close(sock)

    def _close(self, sock):
        self.closed = True
        sock.close()

    def eof(self, sock, now):
        self.ended = True
        if self.heard != len(self.wants) and not self.error:
            self.error = f"the stream ended at {self.heard} of {len(self.wants)}"
        self._close(sock)

    def gone(self, sock, now):
        if self.kind == b"A" or (self.closed and self.heard == len(self.wants)):
            self.done = True
        elif not self.done and not self.error:
            self.error = f"reset at {self.heard} of {len(self.wants)}"

    def finished(self):
        """True when the job is finished, successfully or not: both ends are closed as far as this end can know."""
        if not self.done and not self.error:
            over = self.sock is not None and self.sock.state in (CLOSED, TIME_WAIT)
            if self.kind == b"A":
                # The reset may be lost, and a client that expects nothing more does not learn of it.
                self.done = self.heard == len(self.wants)
                return self.done
            self.done = self.ended and self.closed and over and (self.callee is None or self.callee.finished())
        return self.done or bool(self.error)


class Callee:
    """The client's end of a connection that the guest opened."""

    def __init__(self, job):
        self.key, self.n, self.m, self.flags = job.key, job.n, job.m, job.flags
        self.heard = 0
        self.error = ""
        self.ended = False
        self.sock = None

    def opened(self, sock, now):
        self.sock = sock
        sock.write(pattern(self.key + 1, 0, self.m))
        if not self.flags & GUEST_CLOSES:
            sock.close()

    def data(self, sock, data, now):
        if data != pattern(self.key, self.heard, len(data)):
            self.error = f"heard something else at {self.heard} of {self.n}"
        self.heard += len(data)

    def eof(self, sock, now):
        self.ended = True
        if self.heard != self.n:
            self.error = f"the stream ended at {self.heard} of {self.n}"
        sock.close()

    def gone(self, sock, now):
        self.error = self.error or f"reset at {self.heard} of {self.n}"

    def finished(self):
        return bool(self.error) or (self.ended and self.heard == self.n)
