"""What compare releases: every frame is checked against the sockets of both guests (S1, S2, W1, W2)."""

from collections import Counter
from functools import lru_cache
from ipaddress import ip_address

from .tcb import lives, signed
from .wire import ACK, FIN, ICMP, ICMP6, RST, SYN, TCP, UDP, Segment, read


@lru_cache(maxsize=4096)
def flow_text(proto, src, dst, sport, dport, tag):
    """A flow as compare writes it."""
    a, b = ip_address(src), ip_address(dst)
    name = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMP6: "icmpv6"}[proto]
    vlan = "" if tag is None else f"vlan {tag} "
    if proto not in (TCP, UDP):
        return f"{vlan}{name} {a} > {b}"
    if a.version == 6:
        return f"{vlan}{name} [{a}]:{sport} > [{b}]:{dport}"
    return f"{vlan}{name} {a}:{sport} > {b}:{dport}"


class Watch:
    """What is known of one compare since its start."""

    def __init__(self):
        self.mode = "enforce"
        self.demanded = {}
        """Flow text -> when it requested a checkpoint that is not done yet."""
        self.unprotected = {}
        """Flow text -> identity of the connection that is no longer protected (None: all of the flow)."""
        self.opened = set()
        """Connections whose SYN it has released, so that it knows their window scale."""
        self.fed = Counter()
        self.released = 0


class Releases:
    """See the module. `watches` are those of all compares that run."""

    def __init__(self, world, fail, watches, streams):
        self.world, self.fail, self.watches, self.streams = world, fail, watches, streams
        self.dealt = Counter()
        """Datagrams released by comparing, by (key, payload)."""
        self.edges = {}
        """Connection -> (highest ACK released, right edge released with it)."""
        self.flushed = set()
        """Flows that were not compared for some time, so that the secondary may be behind."""

    def copied(self):
        """The secondary guest has become a copy of the primary, and with it what it has said."""
        self.dealt.clear()

    def check(self, process, watch, frame, *, exempt, done):
        """Check a frame that a compare releases. With `exempt` that compare compares nothing at present; `done` is the
        checkpoint after which it leaves, if there is one.
        """
        p = read(frame)
        if p is None:
            return
        if not p.ok:
            self.fail("S2", f"{process.id} released a frame with a wrong checksum")
        flow = self._flow(p)
        if exempt:
            self.flushed.add(flow)
        exempt = exempt or (done is not None and (done.state_copied or flow in watch.demanded))
        if p.proto == TCP:
            self._tcp(watch, p, Segment(p), flow, exempt)
        elif not exempt and flow not in watch.unprotected:
            self._datagram(p, flow)

    @staticmethod
    def _flow(p):
        """The flow of a packet as compare writes it; an ICMP error belongs to the flow that it quotes."""
        flow = flow_text(p.proto, p.src, p.dst, p.sport, p.dport, p.tag)
        if (p.proto, p.frame[p.l4]) not in ((ICMP, 3), (ICMP6, 1)):
            return flow
        at = p.l4 + 8 + (40 if p.proto == ICMP6 else 20)
        ports = [int.from_bytes(p.frame[i : i + 2], "big") for i in (at, at + 2)]
        # The hosts here send errors for UDP only; the datagram is quoted as the client sent it.
        return f"{flow} about {flow_text(UDP, p.src, p.dst, ports[1], ports[0], p.tag)}"

    # -- TCP ---------------------------------------------------------------------------------------

    def _find(self, p, seg):
        """The primary's socket that has sent this segment, and the position of the segment. If several match, one that
        has sent as much (a SYN cookie that has not changed opens another connection with the same number).
        """
        state = self.world.primary.host.state
        found = None, 0
        idents = state.by_key.get((p.src, p.sport, p.dst, p.dport), ())
        for ident in reversed(idents):
            for sock in lives(state.history[ident]):
                pos = sock.una + signed(seg.seq - sock.iss - sock.una)
                if -1 <= pos <= sock.max + 1:
                    if pos + len(seg.payload) <= sock.max:
                        return sock, pos
                    found = found if found[0] else (sock, pos)
        return found

    def _tcp(self, watch, p, seg, flow, exempt):
        sock, pos = self._find(p, seg)
        if sock is None:
            if seg.flags & RST:
                self._reset(p, None, flow, exempt or flow in watch.unprotected)
                return
            self.fail("S2", f"a segment that the primary never sent: {flow} seq {seg.seq}")
        size, fin = len(seg.payload), seg.flags & FIN
        end = pos + size
        if (
            size
            and (end > sock.max or seg.payload != bytes(sock.out[pos - 1 : end - 1]))
            and not (sock.p.keep_byte and size == 1)
        ):
            self.fail("S2", f"bytes that the primary never sent: {flow} {pos} to {end}")
        twin = self.world.secondary.host.state.history.get(sock.ident)
        self.streams.released(sock, twin, pos, seg, flow, by=watch, known=self._opened(sock))
        free = watch.unprotected.get(flow, False)
        if not exempt and free is not False:
            if free is None or free == sock.ident or self._older(sock.ident, free):
                exempt = True
            else:
                del watch.unprotected[flow]
        if seg.flags & RST:
            self._reset(p, sock, flow, exempt)
            return
        if exempt:
            return
        where = f"{flow} {pos} to {end}"
        if twin is None:
            self.fail("S1", f"released, but the secondary has no such connection: {where}")
        if seg.flags & SYN:
            if twin.max < 1:
                self.fail("S1", f"SYN released before the secondary's: {where}")
            watch.opened.add(sock.ident)
            return
        keep_alive = sock.p.keep_byte and size == 1 and pos == sock.una - 1
        produced = any(end <= one.max and seg.payload == one.out[pos - 1 : end - 1] for one in lives(twin))
        if size and not keep_alive and not produced:
            self.fail("S1", f"bytes released that the secondary has not produced (it has {twin.max}): {where}")
        if fin and not any(one.fin == end and one.max > end for one in lives(twin)):
            self.fail("S1", f"FIN released, the secondary's is at {twin.fin} of {twin.max}: {where}")
        if seg.flags & ACK:
            self._acks(watch, sock, twin, seg, where)

    def _opened(self, sock):
        """True when a compare that still runs has released the SYN. A handover of the flow includes this knowledge."""
        return any(sock.ident in watch.opened for watch in self.watches.values())

    def _older(self, ident, than):
        state = self.world.primary.host.state
        for idents in state.by_key.values():
            if ident in idents and than in idents:
                return idents.index(ident) <= idents.index(than)
        return False

    def _acks(self, watch, sock, twin, seg, where):
        ack = sock.rcv + signed(seg.ack - sock.irs - sock.rcv)
        edge = ack + (seg.window << sock.rcv_scale)
        if ack > twin.ack_out:
            self.fail("S1", f"ACK {ack} released, the secondary has said {twin.ack_out}: {where}")
        if not self._opened(sock):
            return  # It was adopted from the middle, and windows of unknown scale are left alone.
        if edge > twin.edge_out:
            self.fail("W1", f"window to {edge} released, the secondary offers up to {twin.edge_out}: {where}")
        # A newer ACK was sent later, and edges only grow. (Among segments with equal ACKs an older one that was held
        # longer may follow a newer one, as on any wire that reorders.)
        seen, last = self.edges.get(sock.ident, (-2, 0))
        if ack > seen and edge < last - (1 << sock.rcv_scale) + 1:
            self.fail("W2", f"the window moved back from {last} to {edge}: {where}")
        self.edges[sock.ident] = (max(ack, seen), max(edge, last))

    def _reset(self, p, sock, flow, exempt):
        if exempt:
            return
        state = self.world.secondary.host.state
        key = (p.src, p.sport, p.dst, p.dport)
        twin = state.history.get(sock.ident) if sock is not None else None
        twins = [twin, *(state.history[ident] for ident in state.by_key.get(key, ()))]
        if key not in state.resets and not any(one is not None and one.rst_out for one in twins):
            self.fail("S1", f"RST released, the secondary has sent none: {flow}")

    # -- datagrams ---------------------------------------------------------------------------------

    def _datagram(self, p, flow):
        body = bytes(p.frame[p.l4 + 8 : p.end]) if p.proto == UDP else None
        if body is None:
            body = bytes(p.frame[p.l4 : p.l4 + 2]) + bytes(p.frame[p.l4 + 4 : p.end])
        key = (p.proto, p.src, p.sport, p.dst, p.dport)
        said = self.world.secondary.host.state.said.get(key, {}).get(body, 0)
        self.dealt[key, body] += 1
        if self.dealt[key, body] > said:
            self.fail(
                "S1", f"a datagram released {self.dealt[key, body]} times, the secondary said it {said} times: {flow}"
            )
