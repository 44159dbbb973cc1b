"""Following connections: what each segment teaches, and what is done to it.

Two numbers must be learned before anything can be shifted, and one segment of each side carries one::

    who opens        the secondary's ISN, TSval         the primary's ISN (ack - 1), TSval (as TSecr)
    --------------   --------------------------------   ------------------------------------------------
    the client       guest's SYN/ACK                    client's first ACK of this handshake
    the guest        guest's SYN                        client's SYN/ACK, or its refusal (RST/ACK)
    both at once     guest's SYN                        client's SYN/ACK, or first ACK

They arrive in either order, since the client talks to the primary. While the secondary's is missing,
the client's frames wait (`waiting`); while the primary's is missing, the guest's frames pass as they
are. From then on the flow is OPEN and everything is shifted, retransmitted SYN/ACKs included.

This is the slow path: handshakes, closes, resets, and what `rewriter` does not recognise at a glance.
The client is believed: the primary's own SYN/ACK never comes this way.
"""

from collections import Counter
from typing import Final

from colo_proto.net.tcp import ACK, FIN, RST, SYN, Segment, syn_options
from colo_proto.seq import diff
from colo_rewriter.believable import pure
from colo_rewriter.flow import Arrival, Flow, FlowTable, State, opposite
from colo_rewriter.pace import PATIENCE, Pacing
from colo_rewriter.shift import new_cookie, note_echo, timestamps, toward_client, toward_guest, window_scale
from colo_rewriter.stray import answers, close_after, ends, of_former, of_successor, refusal, reset_of, resets
from colo_rewriter.waiting import Waiting

_MASK: Final = 0xFFFFFFFF

SUCCESSOR_LIFE: Final = 5.0
"""Seconds after which a SYN that the guest did not answer with SYN/ACK was a stray."""

RESET_IGNORED: Final = 2.0
"""Seconds after a reset from which a guest that still sends has evidently not accepted it."""

Frames = list[bytes | bytearray]


class Tracker:
    """All connections, one segment at a time. `to_guest` and `to_client` collect the frames to send."""

    def __init__(self, table: FlowTable, waiting: Waiting, counters: Counter[str]) -> None:
        self.table = table
        self.waiting = waiting
        self.counters = counters
        self.promoted = False
        self.pacing = Pacing(counters)
        self.notes: Frames = []
        """What compare has to know of clients; the rewriter sends it behind what the guest has sent."""

    def take_notes(self) -> Frames:
        """The notes since the last time."""
        notes, self.notes = self.notes, []
        return notes

    def pace(self, *, on: bool) -> None:
        """From now on the primary's frames do not wait for this guest, or do again.

        Where they did not, the client stays ahead until the guest has caught up. When that is, nobody sees from here
        (the client's ACK may be lost), so its segments wait for the guest for as long as the connection lasts.
        """
        self.pacing.on = on
        # Its SYN/ACK is waited for as long as its bytes.
        self.waiting.widen(PATIENCE, on=on)
        if on:
            for flow in self.table:
                flow.hasty = True
                if flow.successor is not None:
                    flow.successor.hasty = True
                self.table.refresh(flow)

    def part(self, now: float, to_guest: Frames) -> None:
        """Nobody compares this guest with the primary any more: nothing waits for it."""
        self.pace(on=False)
        for flow in self.table:
            self._flush(flow, now, to_guest)
            self._level(flow)
            if flow.successor is not None:
                self._level(flow.successor)
            self.table.refresh(flow)

    @staticmethod
    def _level(flow: Flow) -> None:
        flow.pace, flow.hasty = None, False

    def promote(self, now: float, to_guest: Frames, *, on: bool) -> None:
        """Take the LAN (or lose it): from then on no timestamp may fall behind what the client has echoed."""
        if on:
            self.part(now, to_guest)
        self.promoted = self.table.promoted = on
        for flow in self.table:
            if on and flow.heard is not None:
                header, l4 = flow.heard
                stamps = timestamps(header, l4, len(header))
                if stamps is not None and stamps[1]:
                    note_echo(flow, stamps[1])
            self.table.refresh(flow)

    # -- client to guest ------------------------------------------------------------------------

    def from_client(self, arrival: Arrival, now: float, to_guest: Frames) -> None:
        """A client's TCP segment."""
        seg = arrival.segment
        flags = seg.flags
        flow = self.table.by_client.get(arrival.key)
        if flow is None:
            flow = self._first_from_client(arrival.key, seg, now, to_guest)
            if flow is None:
                to_guest.append(arrival.frame)
                return
        self.table.touch(flow, now)
        if flow.successor is not None and now - flow.successor.seen > SUCCESSOR_LIFE:
            self._pass_held(flow.successor, to_guest)
            flow.successor = None
            self.table.refresh(flow)
        if flags & SYN and not flags & (ACK | RST):
            if flow.challenged >= 0 and seg.seq == flow.client_isn and flow.state is State.HALF and not self.promoted:
                self._refuse_former(flow, arrival, to_guest)
            self._client_syn(flow, arrival, now, to_guest)
            if flow.pace is None or not flow.pace.queue:
                to_guest.append(arrival.frame)
            else:
                # What the client sent before, on the connection that stands, goes before.
                self._client_shift(flow, arrival, now, to_guest)
        elif flow.successor is not None and of_successor(flow, seg):
            self._client_half(flow.successor, arrival, now, to_guest)
        elif flow.state is State.HALF:
            self._client_half(flow, arrival, now, to_guest)
        elif (
            flow.state is State.CLOSED
            and flags & (SYN | ACK | RST) == SYN | ACK
            and seg.seq != flow.client_isn
            and not self.promoted
        ):
            # The answer to a guest that opens again on the same ports, ahead of the guest's own SYN.
            self._client_half(self._succeed(flow, None, now, to_guest), arrival, now, to_guest)
        else:
            self._client_shift(flow, arrival, now, to_guest)

    def _first_from_client(self, key: bytes, seg: Segment, now: float, to_guest: Frames) -> Flow | None:
        flags = seg.flags
        opening = flags & SYN and not flags & RST
        # RST/ACK with sequence number 0 answers a SYN (RFC 9293 §3.10.7.1), here one of the primary
        # guest that the secondary guest is about to send as well.
        refusal = flags & (SYN | RST | ACK) == RST | ACK and seg.seq == 0
        if self.promoted or not (opening or refusal):
            if not flags & (SYN | RST):
                self.counters["frames_untracked"] += 1
            return None
        return self._open(key, opposite(key), now, to_guest)

    def _client_syn(self, flow: Flow, arrival: Arrival, now: float, to_guest: Frames) -> None:
        """A bare SYN of the client.

        Whether one with another number opens a new connection (SYN/ACK) or is a stray (challenge ACK, RFC 5961 §4),
        the guest decides; until then the old one keeps its numbers, in whichever state it is. One with the number that
        opened the old connection is a late duplicate (a network's, or a mirror link that played again what it was not
        sure of): the client is past it, and goes on acknowledging the old numbers, whatever a guest that has forgotten
        it answers.
        """
        seg = arrival.segment
        if flow.client_isn is None:
            flow.client_isn = seg.seq
        elif flow.client_isn != seg.seq:
            if self.promoted:
                return
            flow = self._succeed(flow, seg.seq, now, to_guest)
        elif flow.state is not State.HALF:
            return
        flow.early = max(flow.early, seg.end - seg.data)
        flow.client_scale = window_scale(arrival.frame, arrival.l4, seg.data)

    def _refuse_former(self, flow: Flow, arrival: Arrival, to_guest: Frames) -> None:
        """The client repeats a SYN that the guest has answered with an ACK of a connection before, on the same ports.

        The guest never heard that connection's end, for the rewriter that knew its numbers was restarted, and keeps it
        for minutes. A client that has forgotten it would reset it at that ACK (RFC 9293 §3.10.7.3) and send its SYN
        again, but the ACK goes no further than to compare, and the primary, who has forgotten it as well, sends none.
        """
        self.counters["refusals"] += 1
        to_guest.append(reset_of(flow, arrival, flow.challenged))
        flow.challenged = -1

    def _succeed(self, flow: Flow, client_isn: int | None, now: float, to_guest: Frames) -> Flow:
        """The connection that may take the ports of `flow`, once the guest has shown that it does."""
        successor = flow.successor
        if successor is None or successor.client_isn != client_isn:
            self._pass_held(successor, to_guest)
            flow.successor = successor = Flow(flow.key_client, flow.key_guest, now)
            successor.hasty = self.pacing.on
            successor.client_isn = client_isn
        successor.seen = now
        self.table.refresh(flow)
        return successor

    def _client_half(self, flow: Flow, arrival: Arrival, now: float, to_guest: Frames) -> None:
        """A segment other than a bare SYN, while not both initial numbers are known."""
        seg = arrival.segment
        flags = seg.flags
        if not flags & ACK:
            learns = False
        elif flags & RST:
            learns = flow.client_isn is None
        elif flags & SYN:
            # Behind a SYN of its own the client's SYN/ACK repeats that number (both open at once).
            learns = flow.client_isn is None or flow.client_isn == seg.seq
            if learns:
                flow.client_isn = seg.seq
                flow.client_scale = window_scale(arrival.frame, arrival.l4, seg.data)
        else:
            learns = close_after(seg.seq, flow) and not of_former(flow, seg)
        if learns and flow.isn_primary is None:
            flow.isn_primary = (seg.ack - 1) & _MASK
            flow.answered = bool(flags & (SYN | RST)) and not new_cookie(arrival.frame, arrival.l4, seg.data)
            stamps = timestamps(arrival.frame, arrival.l4, seg.data)
            if stamps is not None and stamps[1]:
                flow.ts_primary = stamps[1]
        if learns and flow.isn_secondary is not None:
            self._settle(flow, now, to_guest)
            self._client_shift(flow, arrival, now, to_guest)
        elif self.pacing.on and self.waiting.merge(flow, arrival):
            self.counters["dropped.merged_ack"] += 1
        elif (learns or flow.held) and not flow.gave_up:
            if self.waiting.hold(flow, arrival, now):
                self.counters["held_early"] += 1
            elif not (self.pacing.on and self._drop_early(flow, arrival)):
                # First in, first out: what waited goes before what no longer fits.
                self.counters["hold_overflows"] += 1
                self._give_up(flow, to_guest)
                to_guest.append(arrival.frame)
        else:
            to_guest.append(arrival.frame)
            if flags & RST and answers(flow, (seg.seq - 1) & _MASK):
                self._forget(flow, to_guest)

    def _drop_early(self, flow: Flow, arrival: Arrival) -> bool:
        """Too much of a client that is ahead waits for its guest's SYN/ACK: the guest cannot follow it beyond what is
        kept (`pace`). Let the wait end here, and it could follow not at all.
        """
        if not flow.held:
            return False
        lost = self.waiting.swap(flow, arrival) if arrival.segment.flags & RST and len(flow.held) > 1 else arrival
        self.counters["hold_overflows"] += 1
        self.counters["dropped.overrun"] += 1
        seq = lost.segment.seq
        if not pure(lost) and (flow.lost < 0 or diff(flow.lost, seq) > 0):
            flow.lost = seq
        return True

    def _client_shift(self, flow: Flow, arrival: Arrival, now: float, to_guest: Frames) -> None:
        """A segment of a connection whose offsets are known."""
        if not flow.hasty:
            self._client_pass(flow, arrival, now, to_guest)
            return
        for one in self.pacing.admit(flow, arrival, now):
            self._client_pass(flow, one, now, to_guest)
        self._tell_overrun(flow, now, to_guest)

    def _client_pass(self, flow: Flow, arrival: Arrival, now: float, to_guest: Frames) -> None:
        seg = arrival.segment
        flags = seg.flags
        if flow.offset or flow.ts_offset or self.promoted:
            self.counters["rewritten"] += 1
            to_guest.append(toward_guest(arrival.frame, arrival.l4, seg.data, flags, flow))
        else:
            flow.heard = (arrival.frame[: seg.data], arrival.l4)
            to_guest.append(arrival.frame)
        if flags & RST:
            believed = resets(flow, seg.seq)
            if self.pacing.on and (believed or ends(flow, seg.seq + 1)):
                self.notes += self.pacing.parting(flow)
            if believed:
                flow.closed_by_reset = True
                self.table.enter(flow, State.CLOSED, now)
            return
        if flags & FIN and arrival.whole and ends(flow, seg.seq + seg.length):
            flow.client_fin = (seg.seq + seg.length) & _MASK
            flow.client_fin_acked = False
            if flow.state is State.OPEN:
                self.table.enter(flow, State.CLOSING, now)
        if flags & ACK and flow.guest_fin is not None and diff(seg.ack + flow.offset, flow.guest_fin) >= 0:
            flow.guest_fin_acked = True
            self._close_if_over(flow, now)

    # -- guest to client ------------------------------------------------------------------------

    def from_guest(self, arrival: Arrival, now: float, to_client: Frames, to_guest: Frames) -> None:
        """A TCP segment of the secondary guest; frames that waited for it leave by `to_guest`."""
        frame, seg = arrival.frame, arrival.segment
        flags = seg.flags
        flow = self.table.by_guest.get(arrival.key)
        if flags & SYN and not flags & RST:
            flow = self._guest_syn(flow, arrival, now, to_guest)
        elif flow is None:
            if not flags & RST:
                self.counters["frames_untracked"] += 1
        else:
            self.table.touch(flow, now)
        if flow is None:
            to_client.append(frame)
            return
        if not flags & RST:
            flow.last = (frame[: seg.data], arrival.l4, seg.length - bool(flags & SYN) - bool(flags & FIN))
        if flow.state is State.HALF:
            if flow.former is not None and not flags & (SYN | RST):
                # A challenge ACK (RFC 5961 §4). Compare knows the numbers of the connection before, and none of these.
                self.counters["dropped.half_open"] += 1
                return
            if (
                flags & (SYN | RST | ACK) == ACK
                and flow.isn_secondary is None
                and not answers(flow, (seg.ack - 1) & _MASK)
            ):
                flow.challenged = seg.ack
            to_client.append(frame)
            if flags & (RST | ACK) == RST | ACK and seg.seq == 0 and answers(flow, (seg.ack - 1) & _MASK):
                self._forget(flow, to_guest)
            return
        if flags & (RST | ACK) == RST | ACK and seg.seq == 0:
            # The answer to a segment without ACK for which no connection exists: no number of ours.
            to_client.append(frame)
            return
        if flow.offset or flow.ts_offset or self.promoted:
            self.counters["rewritten"] += 1
            to_client.append(toward_client(frame, arrival.l4, seg.data, flow, self.promoted))
        else:
            to_client.append(frame)
        self._guest_closing(flow, arrival, now)
        if flow.hasty:
            self.pacing.heard(flow, seg)
        if flow.held:
            self._release(flow, now, to_guest)
        if flow.hasty:
            self.proceed(flow, now, to_guest)

    def _guest_syn(self, flow: Flow | None, arrival: Arrival, now: float, to_guest: Frames) -> Flow | None:
        """Learn from the guest's SYN or SYN/ACK; returns the flow it belongs to, None to leave it alone."""
        seg = arrival.segment
        number = (seg.ack - 1) & _MASK if seg.flags & ACK else None
        if flow is None:
            if self.promoted:
                return None
            flow = self._open(opposite(arrival.key), arrival.key, now, to_guest)
            flow.client_isn = number
        elif flow.state is not State.HALF:
            if seg.seq == flow.isn_secondary if number is None else answers(flow, number):
                if flow.state is State.CLOSED and seg.seq != flow.isn_secondary:
                    # It takes a late duplicate of the client's SYN for a new connection. The client, who is past that,
                    # would refuse, but hears of it only if the primary answers as well: left alone, the guest would
                    # keep half a connection, and take no other on these ports, as long as it repeats its SYN/ACK.
                    if number is not None and not self.promoted:
                        self.counters["refusals"] += 1
                        to_guest.append(refusal(flow, arrival))
                    return None
                self.table.touch(flow, now)
                return flow  # a retransmission
            renewed = self._renew(flow, now, to_guest, number)
            if renewed is None:
                return None
            flow = renewed
        elif number is not None and flow.client_isn is not None and not answers(flow, number):
            if flow.successor is None or not answers(flow.successor, number):
                return flow  # answers a SYN that was never seen
            renewed = self._renew(flow, now, to_guest, number)
            if renewed is None:
                return None
            flow = renewed
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
            flow.guest_early = seg.end - seg.data
        elif flow.client_isn is None:
            flow.client_isn = number
        if flow.isn_primary is not None:
            self._settle(flow, now, to_guest)
        return flow

    def _guest_closing(self, flow: Flow, arrival: Arrival, now: float) -> None:
        seg = arrival.segment
        flags = seg.flags
        if flags & RST:
            flow.closed_by_reset = flow.reset_by_guest = True
            self.table.enter(flow, State.CLOSED, now)
            return
        if flow.closed_by_reset and now - flow.moved > RESET_IGNORED:
            flow.closed_by_reset = flow.reset_by_guest = False
            closing = flow.client_fin is not None or flow.guest_fin is not None
            self.table.enter(flow, State.CLOSING if closing else State.OPEN, now)
        if flags & FIN and arrival.whole:
            flow.guest_fin = (seg.seq + seg.length) & _MASK
            if flow.state is State.OPEN:
                self.table.enter(flow, State.CLOSING, now)
        if flags & ACK and flow.client_fin is not None and diff(seg.ack, flow.client_fin) >= 0:
            flow.client_fin_acked = True
            self._close_if_over(flow, now)

    # -- both -----------------------------------------------------------------------------------

    def _open(self, key_client: bytes, key_guest: bytes, now: float, to_guest: Frames) -> Flow:
        flow = Flow(key_client, key_guest, now)
        flow.hasty = self.pacing.on
        victim = self.table.add(flow)
        self.counters["flows_opened"] += 1
        if victim is not None:
            self.counters["flows_evicted"] += 1
            self._pass_all_held(victim, to_guest)
        return flow

    def _settle(self, flow: Flow, now: float, to_guest: Frames) -> None:
        flow.settle()
        flow.gave_up = False
        self.table.enter(flow, State.OPEN, now)
        victim = self.table.crowded()
        if victim is not None:
            self.counters["flows_evicted"] += 1
            self._forget(victim, to_guest)

    def _close_if_over(self, flow: Flow, now: float) -> None:
        if flow.guest_fin_acked and flow.client_fin_acked and flow.state is not State.CLOSED:
            self.table.enter(flow, State.CLOSED, now)

    def _renew(self, flow: Flow, now: float, to_guest: Frames, number: int | None) -> Flow | None:
        """The guest takes a new connection on the ports of `flow`: by SYN/ACK of the client's SYN `number`, or by a
        SYN of its own (None). After a failover it needs no offset.
        """
        successor = flow.successor
        if self.promoted:
            self._forget(flow, to_guest)
            return None
        if successor is None or not (successor.answered if number is None else answers(successor, number)):
            self._forget(flow, to_guest)
            renewed = self._open(flow.key_client, flow.key_guest, now, to_guest)
            renewed.client_isn = number
            renewed.former = _before(flow)
            return renewed
        flow.successor = None
        self._forget(flow, to_guest)
        successor.former = _before(flow)
        self.table.add(successor)
        self.table.touch(successor, now)
        self.counters["flows_opened"] += 1
        return successor

    def _forget(self, flow: Flow, to_guest: Frames) -> None:
        self.table.remove(flow)
        self._pass_all_held(flow, to_guest)

    def _release(self, flow: Flow, now: float, to_guest: Frames) -> None:
        """Let held frames go, now that the offsets are known."""
        if flow.lost >= 0:
            self.pacing.of(flow).hole, flow.lost = flow.lost, -1
        for arrival in self.waiting.take(flow):
            self._client_shift(flow, arrival, now, to_guest)

    def proceed(self, flow: Flow, now: float, to_guest: Frames) -> None:
        """The guest has sent more: what waited for that may go."""
        for arrival in self.pacing.ready(flow, now):
            self._client_pass(flow, arrival, now, to_guest)
        self._tell_overrun(flow, now, to_guest)

    def _tell_overrun(self, flow: Flow, now: float, to_guest: Frames) -> None:
        """Compare has to know when the guest has come to what was dropped of its client: it cannot follow any more."""
        pace = flow.pace
        if pace is None or pace.hole < 0 or pace.told:
            return
        past = diff(pace.una, pace.hole)
        if past > 0:
            # The primary did not take it either, and the client has sent it again.
            pace.hole = -1
        elif past == 0:
            pace.told = True
            if self.pacing.on:
                self.notes += self.pacing.overrun(flow)
            self._flush(flow, now, to_guest)

    def _flush(self, flow: Flow, now: float, to_guest: Frames) -> None:
        for arrival in self.pacing.flush(flow):
            self._client_pass(flow, arrival, now, to_guest)

    def _give_up(self, flow: Flow, to_guest: Frames) -> None:
        flow.gave_up = True
        self._pass_held(flow, to_guest)

    def _pass_held(self, flow: Flow | None, to_guest: Frames) -> None:
        if flow is not None and flow.held:
            frames = self.waiting.take(flow)
            self.counters["held_passed"] += len(frames)
            to_guest.extend(held.frame for held in frames)

    def _pass_all_held(self, flow: Flow, to_guest: Frames) -> None:
        for arrival in self.pacing.flush(flow):
            to_guest.append(toward_guest(arrival.frame, arrival.l4, arrival.segment.data, arrival.segment.flags, flow))
        self._pass_held(flow, to_guest)
        self._pass_held(flow.successor, to_guest)

    # -- time and control -----------------------------------------------------------------------

    def tick(self, now: float, to_guest: Frames) -> None:
        """Let go what waited too long and forget what was idle too long."""
        for flow in self.waiting.overdue(now):
            self._give_up(flow, to_guest)
        for flow in self.pacing.overdue(now):
            for arrival in self.pacing.relent(flow, now):
                self._client_pass(flow, arrival, now, to_guest)
            self._tell_overrun(flow, now, to_guest)
        due = self.table.deadline()
        if due is not None and due <= now:
            for flow in self.table.expire(now):
                self.counters["flows_expired"] += 1
                self._pass_all_held(flow, to_guest)

    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        due = (self.waiting.deadline(), self.pacing.deadline(), self.table.deadline())
        return min((when for when in due if when is not None), default=None)

    def pass_everything(self, now: float, to_guest: Frames) -> None:
        """Let every held frame go as it is."""
        for flow in self.pacing.busy():
            self._flush(flow, now, to_guest)
        for flow in self.waiting.all():
            self._give_up(flow, to_guest)

    def state_copied(self, to_guest: Frames) -> None:
        """The guest became the primary's copy: it uses the primary's numbers, half-open ones included."""
        for flow in list(self.table):
            if flow.state is State.HALF:
                # The copy is in the primary's handshake, and the client's frames fit as they are; or it
                # has never seen this SYN, and a repeated one will teach new numbers.
                flow.isn_primary = flow.ts_primary = flow.isn_secondary = flow.ts_secondary = None
                flow.answered = False
                flow.former = None
                self._give_up(flow, to_guest)
                continue
            self._pass_all_held(flow, to_guest)
            flow.successor = None
            if flow.last is not None:
                header, l4, length = flow.last
                flow.last = (bytes(toward_client(header, l4, len(header), flow, False)), l4, length)
            # How far the copy has come it has not said yet, but no client is ahead of the primary.
            flow.pace, flow.hasty = self.pacing.free(flow) if self.pacing.on else None, self.pacing.on
            if flow.guest_fin is not None:
                flow.guest_fin = (flow.guest_fin - flow.offset) & _MASK
            flow.isn_secondary, flow.ts_secondary = flow.isn_primary, flow.ts_primary
            flow.offset = flow.ts_offset = 0
            self.table.refresh(flow)


def _before(flow: Flow) -> Flow | None:
    """The connection whose ports another takes now: what `flow` knows, or if that never came to be, what it took."""
    found = flow.former if flow.state is State.HALF else flow
    flow.former = flow.successor = flow.pace = None
    return found
