"""One end of a TCP connection: small, but it behaves as a real stack does (RFC 9293, 7323, 2018, 5961, 6298).

`tcb` is what it knows, `sending` and `receiving` are its halves. Here connections are opened, and segments are taken
apart and checked.
"""

from .receiving import Receiver
from .tcb import CLOSE_WAIT, CLOSED, ESTAB, FIN_WAIT2, SYN_RCVD, SYN_SENT, TIME_WAIT, signed
from .wire import ACK, FIN, M32, RST, SYN


class Socket(Receiver):
    """See the module."""

    # -- opening -----------------------------------------------------------------------------------

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

    # -- segments that arrive ----------------------------------------------------------------------

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

    # -- timers ------------------------------------------------------------------------------------

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
