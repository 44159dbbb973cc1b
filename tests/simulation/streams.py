"""What a client must be able to rely on in each connection that leaves compare, judged only by the guests' sockets.

====  ==============================================================================================
 H1   bytes leave a second time only if a guest sent them again: no more bytes leave than the primary has sent and
      the secondary has repeated
 H2   a segment that compare itself cuts begins at or before the position of the client
 T1   no timestamp is older than one that the client may have accepted before: it would drop the segment (PAWS)
 W3   a client whose window is smaller than what both guests offer is told of it within a bounded time
 D1   where one guest ends its stream and the other continues, compare requests a checkpoint at once
====  ==============================================================================================
"""

from .tcb import ESTAB, FIN_WAIT1, FIN_WAIT2, lives, signed
from .wire import ACK, FIN, RST, SYN, TCP, Segment, read

LOOK_EVERY = 0.1
TOLD_WITHIN = 0.5
"""Seconds; the slowest guests acknowledge after 0.1."""
KNOWN_WITHIN = 0.15
"""Seconds: less than a guest takes to send anything again."""

_RECEIVING = frozenset({ESTAB, FIN_WAIT1, FIN_WAIT2})


class Said:
    """The highest progress of one guest that compares have received, in the primary's positions."""

    def __init__(self):
        self.ack = self.edge = self.top = -1


class Left:
    """What has left of one connection."""

    def __init__(self):
        self.said = {"primary_in": Said(), "secondary_in": Said()}
        self.bytes = 0
        self.spans = []
        """Positions that have left: disjoint, sorted."""
        self.stamp = None
        """The newest timestamp that the client may have accepted."""
        self.stamped_by = None
        """The compare that released it."""
        self.ack = self.edge = -1
        self.owed = None
        """Since when the client could be told of a larger window, and the window that it knows."""

    def reach(self, position):
        """The end of the bytes from `position` on that have left without a gap."""
        for low, high in self.spans:
            if low <= position <= high:
                return high
        return position

    def cover(self, low, high):
        apart = []
        for a, b in self.spans:
            if b < low or a > high:
                apart.append((a, b))
            else:
                low, high = min(a, low), max(b, high)
        self.spans = sorted([*apart, (low, high)])


class Streams:
    """See the module. `fail(name, text)` is the oracle's method."""

    def __init__(self, world, fail):
        self.world, self.fail = world, fail
        self.left = {}

    def of(self, ident):
        found = self.left.get(ident)
        if found is None:
            found = self.left[ident] = Left()
        return found

    # -- what leaves -----------------------------------------------------------------------------

    def released(self, sock, twin, pos, seg, flow, *, by, known):
        """A segment of `sock` leaves compare `by`, for whatever reason. `known`: it has seen all of the connection."""
        left = self.of(sock.ident)
        size = len(seg.payload)
        where = f"{flow} {pos} to {pos + size}"
        if seg.tsval is not None:
            # A compare that was restarted cannot know what was released before.
            told = left.stamp is not None and (known or left.stamped_by is by)
            if told and signed(seg.tsval - left.stamp) < 0:
                self.fail("T1", f"the timestamp {seg.tsval} leaves after {left.stamp}: {where}")
            if left.stamp is None or (pos <= left.reach(1) and not self._spent(sock, seg)):
                # The client takes no timestamp from a segment ahead of its position (RFC 7323 §4.3).
                left.stamp, left.stamped_by = seg.tsval, by
        if seg.flags & ACK:
            ack = sock.rcv + signed(seg.ack - sock.irs - sock.rcv)
            edge = ack + (seg.window << (0 if seg.flags & SYN else sock.rcv_scale))
            left.ack, left.edge = max(left.ack, ack), max(left.edge, edge)
        if not size:
            return
        cut = not any((pos, size) in one.cuts for one in lives(sock))
        if cut and pos > left.reach(1):
            self.fail("H2", f"a part of a segment leaves, and the client is at {left.reach(1)}: {where}")
        left.bytes += size
        left.cover(pos, pos + size)
        sent = sum(one.sent for one in lives(sock))
        again = sum(one.again for one in lives(twin))
        if left.bytes > sent + again:
            self.fail("H1", f"{left.bytes} bytes have left, of {sent} sent and {again} repeated by the other: {where}")

    @staticmethod
    def _spent(sock, seg):
        """True for a repeated SYN, which the client has acknowledged and ignores (RFC 5961 §4, RFC 7323 §5.3)."""
        return seg.flags & SYN and any(one.una > 0 for one in lives(sock))

    # -- windows ---------------------------------------------------------------------------------

    def heard(self, port, frame):
        """Record what a compare receives of a guest. It owes nothing to a client for what was lost before."""
        p = read(frame)
        if p is None or p.proto != TCP:
            return
        seg = Segment(p)
        if seg.flags & (ACK | RST) != ACK:
            return
        mine, its = (host.state for host in (self.world.primary.host, self.world.secondary.host))
        for ident in reversed(mine.by_key.get((p.src, p.sport, p.dst, p.dport), ())):
            sock, twin = mine.history[ident], its.history.get(ident)
            ack = sock.rcv + signed(seg.ack - sock.irs - sock.rcv)
            pos = sock.una + signed(seg.seq - sock.iss - sock.una)
            both = [one for one in (sock, twin) if one is not None]
            if not 0 < ack <= max(one.ack_out for one in both):
                continue
            said = self.of(ident).said[port]
            said.ack = max(said.ack, ack)
            said.edge = max(said.edge, ack + (seg.window << (0 if seg.flags & SYN else sock.rcv_scale)))
            end = pos + len(seg.payload) + (seg.flags & FIN)
            if not seg.flags & SYN and end <= max(one.max for one in both):
                said.top = max(said.top, end)
            return

    def look(self, oracle):
        """Check whether a client should have been told of a larger window."""
        world = self.world
        now = world.clock.now
        quiet = now - world.disturbed_at > 1.0 + TOLD_WITHIN and world.whole()
        others = world.secondary.host.state.history
        for ident, sock in world.primary.host.state.history.items():
            left = self.left.get(ident)
            if left is None:
                continue
            twin = others.get(ident)
            if (
                not quiet
                or not self._compared(oracle, sock, twin)
                or not self._owed(sock, left, world.plan.extras.share)
            ):
                left.owed = None
            elif left.owed is None or left.owed[1] != left.edge:
                left.owed = now, left.edge
            elif now - left.owed[0] > TOLD_WITHIN:
                self.fail(
                    "W3",
                    f"the client of {oracle.text(sock)} knows of a window to {left.edge}, ACK {left.ack}; the primary "
                    f"offers up to {sock.edge_out}, the secondary up to {twin.edge_out}, and compare has heard so",
                )
        world.clock.after(LOOK_EVERY, self.look, oracle)

    def _compared(self, oracle, sock, twin):
        """True when both guests receive on this connection and compare handles it."""
        if twin is None or sock.state not in _RECEIVING or twin.state not in _RECEIVING:
            return False
        if sock.before is not None or twin.before is not None:
            return False
        return oracle.lowers(sock)

    @staticmethod
    def _owed(sock, left, share):
        """True when both offer so much more that an update is due (RFC 9293 §3.8.6.2.2), within the connection's share
        of what all may have under way.
        """
        one, other = left.said["primary_in"], left.said["secondary_in"]
        if one.ack > other.ack or one.top > other.top:
            # The newest segment of the primary is held, and will contain the update.
            return False
        ack, scale = max(left.ack, one.ack), sock.rcv_scale
        most = min(one.edge, other.edge) - ack
        if share:
            most = min(most, share)
        most = min(most >> scale, 0xFFFF) << scale
        unsaid = ack + most - left.edge
        mss = sock.p.mss_option
        if unsaid >= 2 * mss:
            return True
        stalled = left.edge - ack < mss
        return stalled and unsaid > 0 and (most >= mss or 2 * unsaid >= most)

    # -- ends ------------------------------------------------------------------------------------

    def known(self, flow, sock, twin):
        """D1: `flow` requests a checkpoint. Check that it could not have known earlier."""
        now = self.world.clock.now
        if self.world.disturbances or sock is None or twin is None:
            return
        if sock.before is not None or twin.before is not None:
            return
        for one, other in ((sock, twin), (twin, sock)):
            fin = one.fin
            if fin is None or one.fin_at is None or other.fin == fin or other.max <= fin:
                continue
            since = max(one.fin_at, other.passed(fin))
            if now - since > KNOWN_WITHIN and one.out[: fin - 1] == other.out[: fin - 1]:
                self.fail("D1", f"{flow} ended at {fin} and went on, which was known {now - since:.2f} s ago")
