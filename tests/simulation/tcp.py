"""One end of a TCP connection: small, but it behaves as a real stack does (RFC 9293, 7323, 2018, 5961, 6298).

Internally it uses positions instead of sequence numbers: 0 is the SYN, 1 the first byte, and they never wrap. What was
sent so far is in `max` (everything below was sent at least once), `out` (the bytes), `ack_out` and `edge_out`. The
oracle reads these.
"""

from .wire import ACK, FIN, M32, PSH, RST, SYN, sack_option, stamps

SYN_SENT, SYN_RCVD, ESTAB, CLOSED = "SYN_SENT", "SYN_RCVD", "ESTAB", "CLOSED"
FIN_WAIT1, FIN_WAIT2, CLOSING, TIME_WAIT = "FIN_WAIT1", "FIN_WAIT2", "CLOSING", "TIME_WAIT"
CLOSE_WAIT, LAST_ACK = "CLOSE_WAIT", "LAST_ACK"
_SENDING = frozenset({ESTAB, CLOSE_WAIT, FIN_WAIT1, CLOSING, LAST_ACK})

MAX_RTO = 8.0
"""Shorter than in real stacks, so that a run does not have to wait for minutes."""
TIME_WAIT_FOR = 60.0
_TIMERS = ("rto_at", "persist_at", "delack_at", "wait_at", "read_at", "write_at", "keep_at")


def signed(number):
    return ((number + 0x80000000) & M32) - 0x80000000


def lives(sock):
    """A socket, and the earlier ones of the same handshake."""
    while sock is not None:
        yield sock
        sock = sock.before


class Socket:
    """See the module. Frames to send are appended to `queue`; the host sends them."""

    def __init__(self, route, profile, iss, now, ident, app):
        self.route, self.p, self.iss, self.ident, self.app = route, profile, iss, ident, app
        self.state = CLOSED
        self.opened_at = now
        self.queue = []
        self.una = self.nxt = self.max = 0
        self.out = bytearray()
        self.todo = bytearray()
        self.closing = False
        self.fin = None
        self.edge = 0
        self.wl1 = self.wl2 = -1
        self.mss = 536
        self.send_scale = self.rcv_scale = 0
        self.cwnd = 0
        self.ssthresh = 1 << 30
        self.dups = 0
        self.recover = 0
        self.sacked = []
        self.rto = 1.0
        self.srtt = 0.0
        self.timed = None
        self.ts = self.sack = self.scaled = False
        self.ts_recent = 0
        self.irs = 0
        self.rcv = 0
        self.inbox = bytearray()
        self.got = 0
        self.ooo = []
        self.rfin = None
        self.eof_told = False
        self.adv = 0
        self.unacked = 0
        self.dsack = None
        self.ack_out = self.edge_out = -1
        self.sent = 0
        """Bytes of payload sent, retransmissions included."""
        self.again = 0
        """Bytes of payload that were retransmissions."""
        self.cuts = set()
        """(position, size) of every segment with payload."""
        self.grew = []
        """(position up to which it had sent, when), in order."""
        self.fin_at = None
        """When the FIN was sent for the first time."""
        self.rst_out = False
        self.reset = False
        self.bad_acks = self.bad_sacks = 0
        """Number of received ACKs and SACK blocks for something that it has not sent."""
        self.probes = 0
        self.oow_at = 0.0
        self.asks = []
        """Connections that the application asks its host to open."""
        self.before = None
        """The socket of the same handshake that ended before this one began."""
        self.twist = None
        """How the output of this guest is made to differ from the other's."""
        for timer in _TIMERS:
            setattr(self, timer, None)

    # -- opening ---------------------------------------------------------------------------------

    def connect(self, now):
        self.state = SYN_SENT
        self._syn(now)

    def accept(self, seg, now):
        """Answer a SYN."""
        self._learn(seg)
        self.state = SYN_RCVD
        self._syn(now)

    def _learn(self, seg):
        p = self.p
        self.irs, self.rcv, self.adv = seg.seq, 1, 1
        self.mss = min(p.mss, seg.mss or 536)
        self.cwnd = p.iw * self.mss
        if seg.wscale is not None and p.wscale is not None:
            self.send_scale, self.rcv_scale, self.scaled = seg.wscale, p.wscale, True
        self.sack = seg.sack_ok and p.sack
        self.ts = seg.tsval is not None and p.ts
        if self.ts:
            self.ts_recent = seg.tsval
            self.mss -= 12
        self.edge = seg.window
        if seg.flags & ACK:
            self.edge += 1

    def _syn(self, now):
        p = self.p
        answering = self.state == SYN_RCVD
        options = b"\x02\x04" + p.mss_option.to_bytes(2, "big")
        if p.sack and (not answering or self.sack):
            options += b"\x01\x01\x04\x02"
        if p.ts and (not answering or self.ts):
            options += stamps(self._clock(now), self.ts_recent if answering else 0)
        if p.wscale is not None and (not answering or self.scaled):
            options += bytes((1, 3, 3, p.wscale))
        window = min(p.rcvbuf, 65535)
        self.adv = 1 + window
        flags = SYN
        if answering:
            flags |= ACK
            self.ack_out = max(self.ack_out, 1)
            self.edge_out = max(self.edge_out, 1 + window)
        self.max = max(self.max, 1)
        self.nxt = max(self.nxt, 1)
        ack = self.irs + 1 if answering else 0
        self.queue.append(self.route.tcp(self.iss, ack, flags, window, options, b"", p.partial))
        self.rto_at = now + self.rto

    def _clock(self, now):
        return int(self.p.ts_base + now * 1000) & M32

    # -- receiving ---------------------------------------------------------------------------

    def receive(self, seg, now):
        if self.state == SYN_SENT:
            self._in_syn_sent(seg, now)
        elif self.state != CLOSED:
            self._in(seg, now)
            if self.state != CLOSED:
                self._push(now)

    def _in_syn_sent(self, seg, now):
        flags = seg.flags
        if flags & ACK and seg.ack != (self.iss + 1) & M32:
            self.bad_acks += 1
            if not flags & RST:
                self.queue.append(self.route.tcp(seg.ack, 0, RST, 0, b"", b""))
            return
        if flags & RST:
            if flags & ACK:
                self._die(now)
            return
        if not flags & SYN:
            return
        if flags & ACK and self.p.ts and seg.tsecr and not 0 <= signed(self._clock(now) - seg.tsecr) < 120_000:
            # Linux accepts the answer to a SYN only if it echoes a timestamp since that SYN.
            self.bad_acks += 1
            self.queue.append(self.route.tcp(seg.ack, 0, RST, 0, b"", b""))
            return
        self._learn(seg)
        if flags & ACK:
            self.una = 1
            self.rto_at = None
            self.state = ESTAB
            self.keep_at = now + self.p.keepalive if self.p.keepalive else None
            self._ack_now(now)
            self.app.opened(self, now)
            self._paced(now)
            self._push(now)
        else:
            self.state = SYN_RCVD
            self._syn(now)

    def _in(self, seg, now):
        flags = seg.flags
        if self.p.keepalive:
            self.keep_at = now + self.p.keepalive
        pos = self.rcv + signed(seg.seq - self.irs - self.rcv)
        payload = seg.payload
        size = len(payload)
        end = pos + size + (flags & FIN) + (flags >> 1 & 1)
        if self.ts and seg.tsval is not None and not flags & RST and signed(seg.tsval - self.ts_recent) < 0:
            self._ack_now(now)
            return
        if flags & RST:
            if self.state == TIME_WAIT:
                return  # RFC 1337: a RST does not end TIME_WAIT
            if pos == self.rcv:
                self._die(now)
            elif self.rcv < pos < self.adv and self.state != SYN_RCVD:
                self._ack_now(now)
            return
        if end < self.rcv or pos > max(self.adv, self.rcv) or pos < end == self.rcv:
            if self.state == SYN_RCVD and flags & SYN and pos == 0:
                self._syn(now)
                return
            if self.state == SYN_RCVD and flags & ACK and not 0 < self._number(seg.ack) <= self.max:
                # Its position in the window does not matter, because each guest has its own window.
                self.bad_acks += 1
            if size and self.sack and end <= self.rcv:
                self.dsack = (pos, pos + size)
            if end > pos or now >= self.oow_at:
                # As in Linux, so that two ends out of step do not answer each other forever.
                self.oow_at = now + 0.5
                self._ack_now(now)
            if end < self.rcv or pos > self.adv:
                return
        if flags & SYN:
            if self.state == SYN_RCVD and pos == 0:
                if not flags & ACK:
                    self._syn(now)
                    return
            else:
                self._ack_now(now)
                return
        if not flags & ACK:
            return
        if self.ts and seg.tsval is not None and pos <= self.rcv:
            self.ts_recent = seg.tsval
        if not self._acked(seg, pos, size, now):
            return
        if self.state in (CLOSED, TIME_WAIT):
            return
        if size or flags & FIN:
            self._data(pos, payload, bool(flags & FIN), now)

    def _number(self, ack):
        return self.una + signed(ack - self.iss - self.una)

    def _acked(self, seg, pos, size, now):
        ack = self._number(seg.ack)
        if self.state == SYN_RCVD:
            if not 0 < ack <= self.max:
                self.bad_acks += 1
                self.rst_out = True
                self.queue.append(self.route.tcp(seg.ack, 0, RST, 0, b"", b""))
                return False
            self.state = ESTAB
            self.keep_at = now + self.p.keepalive if self.p.keepalive else None
            self.una = max(self.una, 1)
            self.rto_at = None
            self.rto = 1.0
            self.edge = ack + (seg.window << self.send_scale)
            self.app.opened(self, now)
            self._paced(now)
        if ack > self.max:
            self.bad_acks += 1
            self._ack_now(now)
            return False
        window = seg.window << self.send_scale
        news = ack + window != self.edge
        if ack >= self.una and (self.wl1 < pos or (self.wl1 == pos and self.wl2 <= ack)):
            self.wl1, self.wl2 = pos, ack
            self.edge = ack + window
            if window:
                self.persist_at = None
                self.probes = 0
        if self.sack:
            for left, right in seg.sacks:
                a, b = (self.una + signed(x - self.iss - self.una) for x in (left, right))
                if b <= a or b > self.max or a < 0:
                    self.bad_sacks += 1
                elif b > ack:
                    self._sacked(max(a, ack), b)
        if ack > self.una:
            self._progress(ack, seg, now)
        elif ack == self.una and not size and not news and self.una < self.max and not seg.flags & (SYN | FIN):
            self.dups += 1
            if self.dups == 3:
                self.recover = self.max
                self.ssthresh = max((self.max - self.una) // 2, 2 * self.mss)
                self.cwnd = self.ssthresh
                self._resend(self.una, now)
            elif self.dups > 3:
                self.cwnd += self.mss
        return True

    def _sacked(self, a, b):
        blocks = [(a, b)]
        for lo, hi in self.sacked:
            if hi < blocks[0][0] or lo > blocks[0][1]:
                blocks.append((lo, hi))
            else:
                blocks[0] = (min(lo, blocks[0][0]), max(hi, blocks[0][1]))
        self.sacked = sorted(blocks)

    def _progress(self, ack, seg, now):
        flight = ack - self.una
        self.una = ack
        self.nxt = max(self.nxt, ack)
        self.sacked = [(max(a, ack), b) for a, b in self.sacked if b > ack]
        if self.ts and seg.tsecr:
            measured = signed(self._clock(now) - seg.tsecr) / 1000
            if 0 <= measured < 60:
                self._measure(measured)
        elif self.timed is not None and ack >= self.timed[0]:
            self._measure(now - self.timed[1])
            self.timed = None
        if self.dups >= 3:
            if ack >= self.recover:
                self.dups = 0
                self.cwnd = self.ssthresh
            else:
                self._resend(ack, now)
        else:
            self.dups = 0
            self.cwnd += min(flight, 2 * self.mss) if self.cwnd < self.ssthresh else self.mss * self.mss // self.cwnd
        self.rto_at = now + self.rto if self.una < self.max else None
        if self.fin is not None and ack > self.fin:
            if self.state == FIN_WAIT1:
                self.state = FIN_WAIT2
            elif self.state == CLOSING:
                self._time_wait(now)
            elif self.state == LAST_ACK:
                self._close()

    def _measure(self, rtt):
        self.srtt = rtt if not self.srtt else self.srtt * 0.875 + rtt * 0.125
        self.rto = min(max(self.p.min_rto, self.srtt * 2 + 0.02), MAX_RTO)

    def _data(self, pos, payload, fin, now):
        p = self.p
        if self.rfin is not None and pos + len(payload) > self.rfin:
            payload = payload[: max(self.rfin - pos, 0)]
        end = pos + len(payload)
        limit = self.adv
        over = end > limit
        if over:
            payload, fin, end = payload[: max(limit - pos, 0)], False, limit
        if fin and self.rfin is None:
            self.rfin = end
        hole = bool(self.ooo) or pos > self.rcv or over
        if pos < self.rcv:
            if self.sack and end > pos:
                self.dsack = (pos, min(end, self.rcv))
            payload = payload[self.rcv - pos :]
            pos = self.rcv
        if payload:
            if pos > self.rcv:
                self._early(pos, payload)
            else:
                self._take(payload)
                while self.ooo and self.ooo[0][0] <= self.rcv:
                    at, more = self.ooo.pop(0)
                    self._take(more[self.rcv - at :])
        if self.rfin is not None and self.rcv == self.rfin:
            self.rcv += 1
            self._peer_closed(now)
            self._ack_now(now)
        else:
            self.unacked += max(1, len(payload) // max(self.mss, 1))
            if hole or not p.delack or self.unacked >= 2:
                self._ack_now(now)
            elif self.delack_at is None:
                self.delack_at = now + p.delack
        if self.inbox and self.read_at is None:
            self._read_later(now)
        elif self.rfin is not None and self.rcv > self.rfin and not self.inbox:
            self._tell_eof(now)

    def _early(self, pos, payload):
        """Keep the bytes of a segment out of order that are not kept yet."""
        kept = self.ooo
        for at, more in list(kept):
            if at <= pos < at + len(more):
                payload = payload[at + len(more) - pos :]
                pos = at + len(more)
            elif pos < at < pos + len(payload):
                kept.append((pos, payload[: at - pos]))
                payload = payload[at + len(more) - pos :]
                pos = at + len(more)
        if payload:
            kept.append((pos, payload))
        kept.sort()

    def _take(self, payload):
        self.rcv += len(payload)
        self.inbox += payload

    def _peer_closed(self, now):
        if self.state in (ESTAB, SYN_RCVD):
            self.state = CLOSE_WAIT
        elif self.state == FIN_WAIT1:
            self.state = CLOSING
        elif self.state == FIN_WAIT2:
            self._time_wait(now)

    def _time_wait(self, now):
        self.state = TIME_WAIT
        self.rto_at = self.persist_at = self.keep_at = None
        self.wait_at = now + TIME_WAIT_FOR

    def _close(self):
        self.state = CLOSED
        for timer in _TIMERS:
            if timer != "read_at":
                setattr(self, timer, None)

    def _die(self, now):
        self.reset = True
        self._close()
        self.read_at = None
        self.app.gone(self, now)

    # -- the application's side ------------------------------------------------------------------

    def _read_later(self, now):
        self.read_at = now + self.p.read_every

    def _read(self, now):
        self.read_at = None
        chunk = self.p.read_chunk
        data = bytes(self.inbox[:chunk])
        del self.inbox[:chunk]
        self.got += len(data)
        if data:
            self.app.data(self, data, now)
            self._paced(now)
        if self.state == CLOSED:
            return
        if self.inbox:
            self._read_later(now)
        elif self.rfin is not None and self.rcv > self.rfin:
            self._tell_eof(now)
        if self.state in (ESTAB, FIN_WAIT1, FIN_WAIT2) and self.rfin is None:
            gain = self.rcv + self._free() - self.adv
            least = min(2 * self.mss, self.p.rcvbuf // 2)
            if gain >= least and self.adv - self.rcv < self.p.rcvbuf // 2:
                self._ack_now(now)
        self._push(now)

    def _tell_eof(self, now):
        if not self.eof_told:
            self.eof_told = True
            self.app.eof(self, now)
            self._paced(now)

    def write(self, data):
        """The application writes this; it is sent at the pace of the host."""
        self.todo += data if self.twist is None else self.twist.said(self, data)

    def close(self):
        if self.twist is None or not self.twist.keeps_open(self):
            self.closing = True

    def abort(self):
        """Send a RST at once, as closing with SO_LINGER 0 does."""
        if self.state not in (CLOSED, SYN_SENT):
            self.rst_out = True
            self.ack_out = max(self.ack_out, self.rcv)
            self.queue.append(self.route.tcp(self.iss + self.nxt, self.irs + self.rcv, RST | ACK, 0, b"", b""))
        self.reset = True
        self._close()
        self.read_at = None

    def _paced(self, now):
        if self.state != CLOSED and self.write_at is None and (self.todo or (self.closing and self.fin is None)):
            self.write_at = now + (self.p.write_every if self.out else 0.0)
            if self.write_at == now:
                self._written(now)

    def _written(self, now):
        """Move what the application has written into the send buffer."""
        self.write_at = None
        chunk = self.p.write_chunk
        if self.todo:
            self.out += self.todo[:chunk]
            del self.todo[:chunk]
        if self.todo:
            self.write_at = now + self.p.write_every
        elif self.closing and self.fin is None:
            self.fin = len(self.out) + 1
            if self.state in (ESTAB, SYN_RCVD):
                self.state = FIN_WAIT1
            elif self.state == CLOSE_WAIT:
                self.state = LAST_ACK
        self._push(now)

    # -- sending ---------------------------------------------------------------------------

    def _free(self):
        return max(self.p.rcvbuf - len(self.inbox) - sum(len(d) for _, d in self.ooo), 0)

    def _emit(self, pos, payload, flags, now, gso=0):
        p = self.p
        want = self.rcv + self._free()
        if self.adv < want < self.adv + min(p.mss, p.rcvbuf // 2) and self.adv > self.rcv:
            want = self.adv
        want = max(want, self.adv)
        scale = self.rcv_scale
        field = (want - self.rcv) >> scale
        if self.rcv + (field << scale) < self.adv:
            field += 1
        field = min(max(field, 0), 65535)
        self.adv = max(self.adv, self.rcv + (field << scale))
        options = b""
        if self.ts:
            options = stamps(self._clock(now), self.ts_recent)
        if self.sack and (self.ooo or self.dsack):
            blocks = []
            if self.dsack:
                blocks.append(self.dsack)
                self.dsack = None
            for at, data in self.ooo:
                if blocks and blocks[-1][1] == at:
                    blocks[-1] = (blocks[-1][0], at + len(data))
                elif len(blocks) < 3:
                    blocks.append((at, at + len(data)))
            options += sack_option([(self.irs + a, self.irs + b) for a, b in blocks])
        self.ack_out = max(self.ack_out, self.rcv)
        self.edge_out = max(self.edge_out, self.rcv + (field << scale))
        self.unacked = 0
        self.delack_at = None
        end = pos + len(payload) + (flags & FIN)
        if payload:
            self.sent += len(payload)
            self.again += min(max(self.max - pos, 0), len(payload))
            self.grew.append((max(self.max, end), now))
            self.cuts.add((pos, len(payload)))
        self.max = max(self.max, end)
        if flags & FIN and self.fin_at is None:
            self.fin_at = now
        seq, ack = self.iss + pos, self.irs + self.rcv
        self.queue.append(self.route.tcp(seq, ack, flags, field, options, payload, p.partial or gso > 0, gso))

    def passed(self, position):
        """When it sent the byte at `position` for the first time."""
        return next(when for end, when in self.grew if end > position)

    def _ack_now(self, now):
        if self.state not in (CLOSED, SYN_SENT):
            self._emit(max(self.max, self.una), b"", ACK, now)

    def _segment(self, pos, size, now):
        """Send the bytes at `pos`, and the FIN if it follows."""
        payload = bytes(self.out[pos - 1 : pos - 1 + size])
        end = pos + len(payload)
        flags = ACK
        if end == len(self.out) + 1:
            flags |= PSH
        if self.fin == end:
            flags |= FIN
        if self.timed is None and end > self.max and not self.ts:
            self.timed = (end, now)
        self._emit(pos, payload, flags, now, self.mss if len(payload) > self.mss else 0)
        if self.rto_at is None:
            self.rto_at = now + self.rto
        return end + (flags & FIN)

    def _resend(self, pos, now):
        """Send one segment again (fast retransmission)."""
        for a, b in self.sacked:
            if a <= pos < b:
                pos = b
        # Only bytes that were sent before: the window may not reach further.
        upto = min([pos + self.mss, len(self.out) + 1, self.max, *(a for a, _ in self.sacked if a > pos)])
        if pos < self.max and (upto > pos or self.fin == pos):
            self.timed = None
            self._segment(pos, upto - pos, now)

    def _push(self, now):
        if self.state not in _SENDING:
            return
        p = self.p
        top = len(self.out) + 1
        while True:
            for a, b in self.sacked:
                if a <= self.nxt < b:
                    self.nxt = b
            nxt = self.nxt
            avail = top - nxt
            finning = self.fin is not None and nxt <= self.fin
            if avail <= 0 and not finning:
                break
            room = min(self.una + self.cwnd, self.edge) - nxt
            most = self.mss if nxt < self.max or not p.gso else p.gso // self.mss * self.mss or self.mss
            size = min(avail, room, most)
            if avail > 0 and size <= 0:
                if self.una == self.max and self.persist_at is None and self.edge <= nxt:
                    self.persist_at = now + self.rto
                break
            if 0 < size < min(avail, self.mss) and self.una < nxt:
                break
            if 0 < size < self.mss and size == avail and p.nagle and self.una < nxt and not finning:
                break
            if avail == 0 and finning and room < 0 and self.una < nxt:
                break
            self.nxt = self._segment(nxt, max(size, 0), now)

    # -- timers ----------------------------------------------------------------------------------

    def deadline(self):
        retransmission = self.rto_at, self.persist_at, self.delack_at
        rest = self.wait_at, self.read_at, self.write_at, self.keep_at
        return min((when for when in (*retransmission, *rest) if when is not None), default=None)

    def tick(self, now):
        if self.delack_at is not None and self.delack_at <= now:
            self.delack_at = None
            self._ack_now(now)
        if self.write_at is not None and self.write_at <= now:
            self._written(now)
        if self.read_at is not None and self.read_at <= now:
            self._read(now)
        if self.rto_at is not None and self.rto_at <= now:
            self._timeout(now)
        if self.persist_at is not None and self.persist_at <= now:
            self._probe(now)
        if self.keep_at is not None and self.keep_at <= now:
            self.keep_at = now + self.p.keepalive
            if self.una == self.max and self.state in (ESTAB, CLOSE_WAIT, FIN_WAIT2):
                self._emit(self.una - 1, b"\xaa" if self.p.keep_byte else b"", ACK, now)
        if self.wait_at is not None and self.wait_at <= now:
            self._close()

    def _timeout(self, now):
        self.rto_at = None
        self.rto = min(self.rto * 2, MAX_RTO)
        self.timed = None
        if self.state in (SYN_SENT, SYN_RCVD):
            self._syn(now)
            return
        if self.una >= self.max:
            return
        self.ssthresh = max((self.max - self.una) // 2, 2 * self.mss)
        self.cwnd = self.mss
        self.dups = 0
        self.sacked = []
        self.nxt = self.una
        self.rto_at = now + self.rto
        if self.edge <= self.una:
            # The window was closed below what is in flight: probe with one byte at a time.
            self.persist_at = now
            return
        self._push(now)

    def _probe(self, now):
        """The window of the other side is closed: probe whether it still is."""
        self.probes += 1
        self.persist_at = now + min(self.rto * 2 ** min(self.probes, 4), MAX_RTO)
        if self.edge > self.nxt:
            self.persist_at = None
            self._push(now)
        elif self.p.probe_byte and self.una <= len(self.out):
            self._emit(self.una, bytes(self.out[self.una - 1 : self.una]), ACK, now)
        else:
            self._emit(self.una - 1, b"", ACK, now)
