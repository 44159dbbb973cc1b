"""What one end of a TCP connection knows (RFC 9293 calls it the transmission control block), and how it ends.

Internally it uses positions instead of sequence numbers: 0 is the SYN, 1 the first byte, and they never wrap. What was
sent so far is in `max` (everything below was sent at least once), `out` (the bytes), `ack_out` and `edge_out`. The
oracle reads these.
"""

from .wire import M32

SYN_SENT, SYN_RCVD, ESTAB, CLOSED = "SYN_SENT", "SYN_RCVD", "ESTAB", "CLOSED"
FIN_WAIT1, FIN_WAIT2, CLOSING, TIME_WAIT = "FIN_WAIT1", "FIN_WAIT2", "CLOSING", "TIME_WAIT"
CLOSE_WAIT, LAST_ACK = "CLOSE_WAIT", "LAST_ACK"

TIME_WAIT_FOR = 60.0
_TIMERS = ("rto_at", "persist_at", "delack_at", "wait_at", "read_at", "write_at", "keep_at")


def signed(number):
    return ((number + 0x80000000) & M32) - 0x80000000


def lives(sock):
    """A socket, and the earlier ones of the same handshake."""
    while sock is not None:
        yield sock
        sock = sock.before


class Block:
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

    def _clock(self, now):
        return int(self.p.ts_base + now * 1000) & M32

    # -- the end -----------------------------------------------------------------------------------

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
