"""The sending half of a TCP connection: segments, retransmissions and probes (RFC 9293, 6298, 5681, 2018)."""

from .tcb import (
    CLOSE_WAIT,
    CLOSED,
    CLOSING,
    ESTAB,
    FIN_WAIT1,
    FIN_WAIT2,
    LAST_ACK,
    SYN_RCVD,
    SYN_SENT,
    Block,
    signed,
)
from .wire import ACK, FIN, PSH, RST, SYN, sack_option, stamps

_SENDING = frozenset({ESTAB, CLOSE_WAIT, FIN_WAIT1, CLOSING, LAST_ACK})

MAX_RTO = 8.0
"""Shorter than in real stacks, so that a run does not have to wait for minutes."""


class Sender(Block):
    """What the application writes is sent at the pace of the host, and sent again until it is acknowledged."""

    # -- the application writes --------------------------------------------------------------------

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

    # -- segments ----------------------------------------------------------------------------------

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

    # -- acknowledgements --------------------------------------------------------------------------

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

    # -- timers ------------------------------------------------------------------------------------

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
