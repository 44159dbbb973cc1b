"""A host: addresses, sockets, UDP and ICMP; clients and guests alike. Plain data, so that a guest can be copied.

Everything that a host does follows from the frames that reach it, its clock and its random numbers. What a guest's
application *answers* follows only from what it receives. So two guests differ in timing and numbers, but not in
content.
"""

import copy
from struct import Struct
from zlib import crc32

from .apps import Caller, pattern
from .tcb import CLOSED, SYN_RCVD, TIME_WAIT, lives, signed
from .tcp import Socket
from .wire import ACK, FIN, ICMP, ICMP6, M32, RST, SYN, TCP, UDP, Route, Segment, read

_U16 = Struct("!H")
_U32 = Struct("!I")


class Profile:
    """How a host's stack behaves. Times are seconds, sizes bytes."""

    def __init__(self, **given):
        self.mss_option = 1460
        """The MSS that its SYNs announce."""
        self.mss = 1460
        """The largest segment that it sends (smaller when its path has a smaller MTU)."""
        self.wscale = 7
        self.sack = True
        self.ts = True
        self.ts_base = 0
        self.rcvbuf = 65536
        self.delack = 0.04
        self.gso = 0
        self.partial = False
        self.min_rto = 0.2
        self.iw = 10
        self.nagle = False
        self.read_chunk, self.read_every = 65536, 0.0005
        self.write_chunk, self.write_every = 65536, 0.0005
        self.probe_byte = False
        self.keepalive = 0.0
        self.keep_byte = False
        self.cookies = False
        self.cookies_change = 0.0
        """Seconds for which a secret of SYN cookies is used; 0: forever. Older secrets are still accepted."""
        self.thread_delay = 0.02
        vars(self).update(given)


class State:
    """All state of a host that a checkpoint copies."""

    def __init__(self, profile):
        self.profile = profile
        self.sockets = {}
        self.history = {}
        """Every socket that ever existed, by identity. The oracle compares the two guests by these."""
        self.by_key = {}
        """Identities by key, oldest first."""
        self.jobs = []
        """Datagrams whose answers are not sent yet: (when, number, route of the frame, payload)."""
        self.job_count = 0
        self.said = {}
        """How often each datagram was sent, by (key, payload)."""
        self.resets = set()
        """Keys for which a reset was sent without a socket."""


class Host:
    """A stack. `send(frame)` puts a frame on the wire; `server(host, socket)` makes a listener's application."""

    def __init__(self, name, profile, mac, rng, send, server=None, ports=()):
        self.name, self.mac, self.rng, self.send = name, mac, rng, send
        self.state = State(profile)
        self.server, self.ports = server, frozenset(ports)
        self.peer_mac = b""
        self.datagram = None
        """Clients: called with (key, payload) of every datagram and echo reply that comes."""
        self.bad_checksums = []
        self.paused = False
        self.backlog = []
        self.divergence = None
        self.now = 0.0

    # -- frames ----------------------------------------------------------------------------------

    def receive(self, frame, now):
        self.now = now
        if self.paused:
            if len(self.backlog) < 1000:
                self.backlog.append(frame)
            return
        p = read(frame)
        if p is None:
            return
        if not p.ok:
            self.bad_checksums.append(bytes(frame))
            return
        if p.proto == TCP:
            self._tcp(p, now)
        elif p.proto == UDP:
            self._udp(p, now)
        elif p.proto in (ICMP, ICMP6):
            self._icmp(p)

    def resume(self, now):
        self.paused = False
        backlog, self.backlog = self.backlog, []
        for frame in backlog:
            self.receive(frame, now)
        self.tick(now)

    def route_back(self, p):
        """The route of an answer to `p`."""
        return Route(p.proto, p.dst, p.src, p.dport, p.sport, (self.mac, p.macs[1]), p.tag)

    def _tcp(self, p, now):
        seg = Segment(p)
        key = (p.dst, p.dport, p.src, p.sport)
        sock = self.state.sockets.get(key)
        opening = seg.flags & (SYN | ACK | RST) == SYN
        if sock is not None and sock.state == TIME_WAIT and opening:
            pos = signed(seg.seq - sock.irs - sock.rcv)
            if pos > 0:
                del self.state.sockets[key]
                sock = None
        if sock is None or sock.state == CLOSED:
            if opening and p.dport in self.ports:
                self._accept(p, key, seg, now)
            elif seg.flags & ACK and not seg.flags & (SYN | RST) and self._cookie(p, key, seg, now):
                pass  # It came before the answer to a cookie, which is too early.
            elif not seg.flags & RST:
                self._refuse(p, seg)
            return
        sock.receive(seg, now)
        self._flush(sock)

    def _accept(self, p, key, seg, now):
        ident = ("in", *key, seg.seq)
        if self.state.profile.cookies:
            # Nothing is stored: the sequence number of the answer contains everything (RFC 4987 §3.6).
            sock = self._made(p, key, seg, now, ident, self._cookie_isn(key, seg.seq))
            self.send_frames(sock.queue)
            sock.queue = []
            self._note(ident, sock)
            return
        iss = self.rng.getrandbits(32)
        sock = self._made(p, key, seg, now, ident, iss)
        self.add(sock)
        self._flush(sock)

    def _made(self, p, key, seg, now, ident, iss):
        sock = Socket(self.route_back(p), self.state.profile, iss, now, ident, None)
        sock.app = self.server(key)
        sock.twist = self.divergence
        sock.accept(seg, now)
        return sock

    def _cookie_isn(self, key, irs):
        every = self.state.profile.cookies_change
        secret = (int(self.now / every),) if every else ()
        return hash_of(key, irs, self.name, *secret) & M32

    def _cookie(self, p, key, seg, now):
        if not self.state.profile.cookies or p.dport not in self.ports:
            return False
        irs = (seg.seq - 1) & M32
        ident = ("in", *key, irs)
        early = self.state.history.get(ident)
        if early is None:
            # A cookie is valid with the first number only. Some stacks reset on a segment that overtook that one or
            # follows it. This one ignores it, because otherwise every loss here would be a reset.
            idents = self.state.by_key.get(key)
            return bool(idents) and self.state.history[idents[-1]].state == SYN_RCVD
        answered = next((one for one in lives(early) if (seg.ack - 1) & M32 == one.iss), None)
        if answered is None or answered.state == CLOSED:
            return False
        if answered is not early:
            # The client accepted an answer with an older secret, which remains valid.
            early = self._take_first(ident, answered)
        early.rto_at = None
        self.state.sockets[key] = early
        early.receive(seg, now)
        self._flush(early)
        return True

    def _take_first(self, ident, sock):
        """Of several sockets with the same handshake, this one becomes the connection."""
        others = [one for one in lives(self.state.history[ident]) if one is not sock]
        for one, before in zip([sock, *others], [*others, None], strict=True):
            one.before = before
        sock.ack_out, sock.edge_out = max(sock.ack_out, others[0].ack_out), max(sock.edge_out, others[0].edge_out)
        self.state.history[ident] = sock
        return sock

    def connect(self, route, now, app, ident=None):
        """Open a connection from here."""
        key = (route.src, route.sport, route.dst, route.dport)
        ident = ident or ("out", *key, now)
        sock = Socket(route, self.state.profile, self.next_iss(key), now, ident, app)
        self.add(sock)
        sock.connect(now)
        self._flush(sock)
        return sock

    def next_iss(self, key):
        """A number ahead of those that the same ports used before (RFC 6528), so that TIME_WAIT accepts it."""
        old = self.state.sockets.get(key)
        if old is not None:
            return (old.iss + old.max + 100_000 + self.rng.randrange(1 << 20)) & M32
        return self.rng.getrandbits(32)

    def add(self, sock):
        route = sock.route
        self.state.sockets[route.src, route.sport, route.dst, route.dport] = sock
        self._note(sock.ident, sock)

    def _note(self, ident, sock):
        before = self.state.history.get(ident)
        if before is not None:
            # The SYN came a second time after the end of the connection; what was sent before remains sent.
            sock.ack_out, sock.edge_out = max(sock.ack_out, before.ack_out), max(sock.edge_out, before.edge_out)
            sock.rst_out, sock.before = before.rst_out, before
        self.state.history[ident] = sock
        route = sock.route
        idents = self.state.by_key.setdefault((route.src, route.sport, route.dst, route.dport), [])
        if ident not in idents:
            idents.append(ident)

    def _refuse(self, p, seg):
        """Send RST for a segment that belongs to no connection (RFC 9293 §3.10.7.1)."""
        route = self.route_back(p)
        self.state.resets.add((p.dst, p.dport, p.src, p.sport))
        if seg.flags & ACK:
            frame = route.tcp(seg.ack, 0, RST, 0, b"", b"")
        else:
            length = len(seg.payload) + (seg.flags >> 1 & 1) + (seg.flags & FIN)
            frame = route.tcp(0, seg.seq + length, RST | ACK, 0, b"", b"")
        self.send(frame)

    def _flush(self, sock):
        if sock.queue:
            frames, sock.queue = sock.queue, []
            self.send_frames(frames)
        while sock.asks:
            port, key, n, m, flags = sock.asks.pop()
            to = sock.route
            route = Route(TCP, to.src, to.dst, 20000 + port % 1000, port, (to.eth[6:12], to.eth[:6]), to.tag)
            made = self.connect(route, self.now, Caller(key, n, m, flags), ("out", *route.key(), key))
            made.twist = self.divergence

    def send_frames(self, frames):
        send = self.send
        for frame in frames:
            send(frame)

    # -- datagrams -------------------------------------------------------------------------------

    def _udp(self, p, now):
        payload = bytes(p.frame[p.l4 + 8 : p.end])
        if self.datagram is not None:
            self.datagram((p.proto, p.dst, p.dport, p.src, p.sport), payload, now)
            return
        if p.dport not in (53, 54):
            self._unreachable(p)
            return
        route = self.route_back(p)
        for number, answer in enumerate(answers(payload)):
            delay = 0.0 if p.dport == 53 else self.rng.random() * self.state.profile.thread_delay
            self.state.job_count += 1
            self.state.jobs.append((now + delay, self.state.job_count, route, self._mangled(answer, number)))
        self.tick(now)

    def _mangled(self, answer, number):
        d = self.divergence
        if d is None or d.kind not in ("datagram", "datagram_missing") or not d.armed:
            return answer
        d.hit = True
        if d.kind == "datagram_missing":
            return None
        return answer[:-1] + bytes((answer[-1] ^ 0x55,))

    def say(self, route, payload):
        """Send a datagram, and count it."""
        key = (route.proto, route.src, route.sport, route.dst, route.dport)
        said = self.state.said.setdefault(key, {})
        said[payload] = said.get(payload, 0) + 1
        self.send(route.udp(payload, self.state.profile.partial))

    def _unreachable(self, p):
        six = len(p.src) == 16
        route = Route(ICMP6 if six else ICMP, p.dst, p.src, 0, 0, (self.mac, p.macs[1]), p.tag)
        quoted = bytes(p.frame[p.l3 : min(p.end, p.l3 + 100)])
        body = bytes(4) + quoted
        self._say_icmp(route, 1 if six else 3, 4 if six else 3, body)

    def _icmp(self, p):
        kind, body = p.frame[p.l4], bytes(p.frame[p.l4 + 4 : p.end])
        if kind in (8, 128):
            self._say_icmp(self.route_back(p), 0 if kind == 8 else 129, 0, body)
        elif self.datagram is not None:
            self.datagram((p.proto, p.dst, kind, p.src, 0), body, 0.0)

    def _say_icmp(self, route, kind, code, body):
        key = (route.proto, route.src, 0, route.dst, 0)
        said = self.state.said.setdefault(key, {})
        payload = bytes((kind, code)) + body
        said[payload] = said.get(payload, 0) + 1
        self.send(route.icmp(kind, code, body))

    # -- time ------------------------------------------------------------------------------------

    def deadline(self):
        if self.paused:
            return None
        due = [when for when, *_ in self.state.jobs]
        due += [t for s in self.state.sockets.values() if (t := s.deadline()) is not None]
        return min(due, default=None)

    def tick(self, now):
        self.now = now
        if self.paused:
            return
        jobs = self.state.jobs
        if jobs:
            for job in sorted(j for j in jobs if j[0] <= now):
                jobs.remove(job)
                if job[3] is not None:
                    self.say(job[2], job[3])
        for sock in list(self.state.sockets.values()):
            due = sock.deadline()
            if due is not None and due <= now:
                sock.tick(now)
                self._flush(sock)

    def poke(self, sock, now):
        """The application has sent something without having received a segment."""
        sock._paced(now)
        sock._push(now)
        self._flush(sock)

    # -- checkpoints -----------------------------------------------------------------------------

    def copy_from(self, other):
        """Take over the state of `other`: memory, sockets, clocks."""
        was, self.state = self.state.history, copy.deepcopy(other.state)
        for ident, sock in self.state.history.items():
            # Until compare learns of the checkpoint, it relies on what this guest had sent before.
            sock.before = was.get(ident)
        self.divergence = None


def hash_of(*values):
    """A number from bytes and numbers that is the same in every run (hash() is not)."""
    return crc32(repr(values).encode())


def answers(payload):
    """The answers of the datagram service to a request: number(4) count(1) size(2) and any further bytes."""
    if len(payload) < 7:
        return []
    count, size = payload[4], _U16.unpack_from(payload, 5)[0]
    key = _U32.unpack_from(payload)[0]
    return [payload[:4] + bytes((n,)) + pattern(key * 31 + n, 0, size) for n in range(count)]
