"""The receiving half of a TCP connection: bytes are put in order, and the application reads them."""

from .sending import Sender
from .tcb import CLOSE_WAIT, CLOSED, CLOSING, ESTAB, FIN_WAIT1, FIN_WAIT2, SYN_RCVD


class Receiver(Sender):
    """What arrives is acknowledged, at once or with a delay; what the application reads opens the window."""

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

    # -- the application reads ---------------------------------------------------------------------

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
