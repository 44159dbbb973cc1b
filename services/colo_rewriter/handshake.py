"""Handshakes: learns the numbers of each connection, and which connection has its ports now.

Two numbers must be learned before anything can be shifted, and one segment of each side carries one::

    who opens        the secondary's ISN, TSval         the primary's ISN (ack - 1), TSval (as TSecr)
    --------------   --------------------------------   ------------------------------------------------
    the client       guest's SYN/ACK                    client's first ACK of this handshake
    the guest        guest's SYN                        client's SYN/ACK, or its refusal (RST/ACK)
    both at once     guest's SYN                        client's SYN/ACK, or first ACK

They arrive in either order, because the client talks to the primary. While the secondary's number is missing, the
client's frames wait (`waiting`). While the primary's is missing, the guest's frames pass as they are. When both are
known, the flow is OPEN and `established` shifts everything, retransmitted SYN/ACKs included.

What the client says about the primary's numbers is believed: the primary's own SYN/ACK never comes this way.

While this host leads and may follow again (symmetric wiring), a connection begins with the guest's SYN or SYN/ACK, and
both numbers are the guest's own (`Flow.own`). It is OPEN when the client acknowledges that number, so that nobody who
has only sent SYNs takes the place of an established connection.
"""

from collections import Counter

from colo_proto.net.tcp import ACK, RST, SYN, syn_options
from colo_proto.seq import MASK, diff
from colo_rewriter.acceptance import acks_own_syn, answers_syn, belongs_to_predecessor, follows_syn, refusal, reset
from colo_rewriter.ending import Endings
from colo_rewriter.established import Established
from colo_rewriter.flow import Arrival, Flow, FlowTable, Outbox, State, opposite
from colo_rewriter.segments import is_pure_ack
from colo_rewriter.shift import has_cookie, timestamps, window_scale
from colo_rewriter.waiting import Waiting


class Handshakes:
    """Connections of which one of the initial numbers is unknown. What leaves goes to `out`."""

    def __init__(
        self, established: Established, endings: Endings, waiting: Waiting, out: Outbox, counters: Counter[str]
    ) -> None:
        self.established = established
        self.endings = endings
        self.table: FlowTable = established.table
        self.pacing = established.pacing
        self.waiting = waiting
        self.out = out
        self.counters = counters

    # -- client to guest ------------------------------------------------------------------------

    def client_syn(self, flow: Flow, arrival: Arrival, now: float) -> None:
        """Note the number of a client's SYN (without ACK).

        A SYN with another number opens a new connection (the guest answers SYN/ACK) or is a stray (the guest answers
        with a challenge ACK, RFC 5961 §4). Until the guest has decided, the old connection keeps its numbers, in
        whichever state it is. A SYN with the number that opened the old connection is a late duplicate, of a network
        or of a mirror link that played again what was not acknowledged. The client is past it, and goes on
        acknowledging the old numbers, whatever a guest that has forgotten the connection answers.
        """
        seg = arrival.segment
        if flow.client_isn is None:
            flow.client_isn = seg.seq
        elif flow.client_isn != seg.seq:
            if self.table.promoted:
                return
            flow = self.succeed(flow, seg.seq, now)
        elif flow.state is not State.HALF:
            return
        flow.syn_data = max(flow.syn_data, seg.end - seg.data)
        flow.client_scale = window_scale(arrival.frame, arrival.l4, seg.data)

    def reset_forgotten(self, flow: Flow, arrival: Arrival) -> None:
        """Reset the guest's old connection, in the name of a client that repeats its SYN.

        The guest has answered the SYN with an ACK of an older connection on the same ports: it never heard the end of
        that one, because the rewriter that knew its numbers was restarted, and keeps it for minutes. A client that has
        forgotten it would reset it at that ACK (RFC 9293 §3.10.7.3) and send its SYN again. But the ACK goes no further
        than to compare, and the primary, which has forgotten the connection as well, sends none.
        """
        self.counters["refusals"] += 1
        self.out.to_guest.append(reset(flow, arrival, flow.challenged))
        flow.challenged = -1

    def succeed(self, flow: Flow, client_isn: int | None, now: float) -> Flow:
        """The connection that takes the ports of `flow` if the guest accepts it."""
        successor = flow.successor
        if successor is None or successor.client_isn != client_isn:
            self.pass_held(successor)
            flow.successor = successor = Flow(flow.key_client, flow.key_guest, now)
            successor.paced = self.pacing.on
            self.endings.begins(successor, now)
            successor.client_isn = client_isn
        successor.seen = now
        self.table.refresh(flow)
        return successor

    def _learn_from_client(self, flow: Flow, arrival: Arrival) -> bool:
        """Does the segment tell the primary's initial number? If so, note that number and the timestamp."""
        seg = arrival.segment
        flags = seg.flags
        if not flags & ACK or (flow.own and not acks_own_syn(flow, seg)):
            return False
        if flags & RST:
            learns = flow.client_isn is None
        elif flags & SYN:
            # After a SYN of its own, the client's SYN/ACK repeats that number (both open at once).
            learns = flow.client_isn is None or flow.client_isn == seg.seq
            if learns:
                flow.client_isn = seg.seq
                flow.client_scale = window_scale(arrival.frame, arrival.l4, seg.data)
        else:
            learns = follows_syn(seg.seq, flow) and not belongs_to_predecessor(flow, seg)
        if learns and flow.own:
            flow.isn_primary, flow.ts_primary = flow.isn_secondary, flow.ts_secondary
        elif learns and flow.isn_primary is None:
            flow.isn_primary = (seg.ack - 1) & MASK
            flow.acks_syn_data = bool(flags & (SYN | RST)) and not has_cookie(arrival.frame, arrival.l4, seg.data)
            stamps = timestamps(arrival.frame, arrival.l4, seg.data)
            if stamps is not None and stamps[1]:
                flow.ts_primary = stamps[1]
        return learns

    def client_half_open(self, flow: Flow, arrival: Arrival, now: float) -> None:
        """A segment other than a bare SYN, while one of the initial numbers is unknown."""
        learns = self._learn_from_client(flow, arrival)
        if learns and flow.isn_secondary is not None:
            self._open_up(flow, now)
            self.established.from_client(flow, arrival, now)
        elif self.pacing.on and self.waiting.merge(flow, arrival):
            self.counters["dropped.merged_ack"] += 1
        elif (learns or flow.held) and not flow.hold_expired:
            if self.waiting.hold(flow, arrival, now):
                self.counters["held_early"] += 1
            elif not (self.pacing.on and self._drop_early(flow, arrival)):
                # The order is kept: what waited goes before what there is no place for any more.
                self.counters["hold_overflows"] += 1
                self.end_hold(flow)
                self.out.to_guest.append(arrival.frame)
        else:
            self.out.to_guest.append(arrival.frame)
            if arrival.segment.flags & RST and answers_syn(flow, (arrival.segment.seq - 1) & MASK):
                self.forget(flow)

    def _drop_early(self, flow: Flow, arrival: Arrival) -> bool:
        """Drop a segment of a client that is ahead, because too many wait for the guest's SYN/ACK.

        The guest can follow the client only as far as segments are kept (`pace`). If the wait ended here, it could not
        follow at all.
        """
        if not flow.held:
            return False
        dropped = self.waiting.swap(flow, arrival) if arrival.segment.flags & RST and len(flow.held) > 1 else arrival
        self.counters["hold_overflows"] += 1
        self.counters["dropped.overrun"] += 1
        seq = dropped.segment.seq
        if not is_pure_ack(dropped) and (flow.dropped_at < 0 or diff(flow.dropped_at, seq) > 0):
            flow.dropped_at = seq
        return True

    # -- guest to client ------------------------------------------------------------------------

    def guest_half_open(self, flow: Flow, arrival: Arrival) -> None:
        """A segment of the guest while one of the initial numbers is unknown."""
        seg = arrival.segment
        flags = seg.flags
        answers = answers_syn(flow, (seg.ack - 1) & MASK)
        if flow.predecessor is not None and not flags & (SYN | RST):
            # A challenge ACK (RFC 5961 §4). Compare knows the numbers of the connection before, and none of these.
            self.counters["dropped.half_open"] += 1
            return
        if flags & (SYN | RST | ACK) == ACK and flow.isn_secondary is None and not answers:
            flow.challenged = seg.ack
        self.out.to_client.append(arrival.frame)
        if flags & (RST | ACK) == RST | ACK and seg.seq == 0 and answers:
            self.forget(flow)

    def guest_syn(self, flow: Flow | None, arrival: Arrival, now: float) -> Flow | None:
        """Learn from the guest's SYN or SYN/ACK; the flow it belongs to, or None to leave it alone."""
        seg = arrival.segment
        number = (seg.ack - 1) & MASK if seg.flags & ACK else None
        leads = self.table.promoted and self.table.roles_change
        if flow is None:
            if self.table.promoted and not leads:
                return None
            flow = self.open(opposite(arrival.key), arrival.key, now)
            flow.client_isn = number
        elif flow.state is not State.HALF:
            anew = leads and flow.state is State.CLOSED and seg.seq != flow.isn_secondary
            if not anew and (seg.seq == flow.isn_secondary if number is None else answers_syn(flow, number)):
                return self._repeated_syn(flow, arrival, now)
            flow = self._renew(flow, now, number)
        elif number is not None and flow.client_isn is not None and not answers_syn(flow, number):
            if not leads and (flow.successor is None or not answers_syn(flow.successor, number)):
                return flow  # answers a SYN that was never seen
            flow = self._renew(flow, now, number)
        if flow is None:
            return None
        self.table.touch(flow, now)
        if flow.isn_secondary != seg.seq:
            # A retransmission has a later TSval, and with SYN cookies another ISN. Of equal ISNs the
            # first TSval counts: too small an offset lets shifted timestamps run ahead by a
            # retransmission timeout, which is harmless; one that runs behind fails the PAWS check.
            flow.isn_secondary = seg.seq
            stamps = timestamps(arrival.frame, arrival.l4, seg.data)
            flow.ts_secondary = stamps[0] if stamps is not None else None
        found = syn_options(arrival.frame, arrival.l4, seg.data)
        flow.guest_scale = -1 if found.wscale is None else found.wscale
        flow.sacks = found.sack_permitted
        if number is None:
            flow.guest_syn_data = seg.end - seg.data
        elif flow.client_isn is None:
            flow.client_isn = number
        if flow.isn_primary is not None:
            self._open_up(flow, now)
        return flow

    def _repeated_syn(self, flow: Flow, arrival: Arrival, now: float) -> Flow | None:
        """The guest's SYN or SYN/ACK has the number with which the connection was opened.

        If the connection is CLOSED and the guest's own number is a new one, the guest takes a late duplicate of the
        client's SYN for a new connection. The client, which is past that SYN, would refuse, but it hears of the
        SYN/ACK only if the primary answers as well. Without a refusal the guest would keep half a connection, and
        accept no other on these ports, as long as it repeats its SYN/ACK.
        """
        if flow.state is State.CLOSED and arrival.segment.seq != flow.isn_secondary:
            if arrival.segment.flags & ACK and not self.table.promoted:
                self.counters["refusals"] += 1
                self.out.to_guest.append(refusal(flow, arrival))
            return None
        self.table.touch(flow, now)
        return flow

    # -- both -----------------------------------------------------------------------------------

    def open(self, key_client: bytes, key_guest: bytes, now: float) -> Flow:
        """A new half-open connection in the table."""
        flow = Flow(key_client, key_guest, now)
        flow.own = self.table.promoted
        flow.paced = self.pacing.on
        self.endings.begins(flow, now)
        victim = self.table.add(flow)
        self.counters["flows_opened"] += 1
        if victim is not None:
            self.counters["flows_evicted"] += 1
            self.pass_all_held(victim)
        return flow

    def _open_up(self, flow: Flow, now: float) -> None:
        """Both initial numbers are known: the connection is OPEN."""
        flow.compute_offsets()
        flow.hold_expired = False
        self.table.enter(flow, State.OPEN, now)
        victim = self.table.excess_established()
        if victim is not None:
            self.counters["flows_evicted"] += 1
            self.forget(victim)

    def _renew(self, flow: Flow, now: float, number: int | None) -> Flow | None:
        """The guest accepts a new connection on the ports of `flow`: with a SYN/ACK of the client's SYN `number`, or
        with a SYN of its own (None). None after a failover, when a new connection needs no offset, unless this host may
        follow again.
        """
        successor = flow.successor
        if self.table.promoted:
            self.forget(flow)
            if not self.table.roles_change:
                return None
            renewed = self.open(flow.key_client, flow.key_guest, now)
            renewed.client_isn = number
            return renewed
        if successor is None or not (successor.acks_syn_data if number is None else answers_syn(successor, number)):
            self.forget(flow)
            renewed = self.open(flow.key_client, flow.key_guest, now)
            renewed.client_isn = number
        else:
            renewed = successor
            flow.successor = None
            self.forget(flow)
            self.table.add(renewed)
            self.table.touch(renewed, now)
            self.counters["flows_opened"] += 1
        # Of a connection that never came to be, the one before it counts.
        renewed.predecessor = flow.predecessor if flow.state is State.HALF else flow
        flow.predecessor = flow.successor = flow.pace = None
        return renewed

    def forget(self, flow: Flow) -> None:
        self.table.remove(flow)
        self.pass_all_held(flow)

    def release(self, flow: Flow, now: float) -> None:
        """Let the held frames go, now that the offsets are known."""
        if flow.dropped_at >= 0:
            self.pacing.of(flow).dropped_at, flow.dropped_at = flow.dropped_at, -1
        for arrival in self.waiting.take(flow):
            self.established.from_client(flow, arrival, now)

    def end_hold(self, flow: Flow) -> None:
        """Held frames go as they are, and later ones do not wait."""
        flow.hold_expired = True
        self.pass_held(flow)

    def pass_held(self, flow: Flow | None) -> None:
        if flow is not None and flow.held:
            frames = self.waiting.take(flow)
            self.counters["held_passed"] += len(frames)
            self.out.to_guest.extend(held.frame for held in frames)

    def pass_all_held(self, flow: Flow) -> None:
        self.established.flush_forgotten(flow)
        self.pass_held(flow)
        self.pass_held(flow.successor)
