"""All connections: which part of the rewriter a segment is for, and what time and the COLO frame change.

A segment goes to `handshake` while one of the initial numbers of its connection is unknown, and to `established`
afterwards. `Passage` brings only what its fast path does not handle.
"""

from collections import Counter
from typing import Final

from colo_proto.net.tcp import ACK, FIN, RST, SYN, Segment
from colo_proto.seq import MASK
from colo_rewriter.acceptance import belongs_to_successor
from colo_rewriter.ending import Endings
from colo_rewriter.established import Established
from colo_rewriter.flow import Arrival, Fate, Flow, FlowTable, Outbox, State, opposite
from colo_rewriter.handshake import Handshakes
from colo_rewriter.pace import PROGRESS_TIMEOUT
from colo_rewriter.shift import note_echo, timestamps, toward_client
from colo_rewriter.waiting import Waiting

SUCCESSOR_LIFE: Final = 5.0
"""Seconds after which a SYN that the guest did not answer with SYN/ACK was a stray."""


class Tracker:
    """See the module. What leaves goes to `out`."""

    def __init__(self, table: FlowTable, waiting: Waiting, out: Outbox, counters: Counter[str]) -> None:
        self.table = table
        self.waiting = waiting
        self.out = out
        self.counters = counters
        self.established = Established(table, out, counters)
        self.pacing = self.established.pacing
        self.endings = Endings(table, waiting, self.pacing, out, counters)
        self.handshakes = Handshakes(self.established, self.endings, waiting, out, counters)

    # -- segments -------------------------------------------------------------------------------

    def from_client(self, arrival: Arrival, now: float) -> None:
        """Handle a client's TCP segment."""
        seg = arrival.segment
        flags = seg.flags
        flow = self.table.by_client.get(arrival.key) or self._first_from_client(arrival.key, seg, now)
        if flow is None:
            self.out.to_guest.append(arrival.frame)
            return
        self.table.touch(flow, now)
        if flags & (FIN | RST):
            (flow if flow.successor is None else flow.successor).client_over = True
        if flow.fate >= Fate.LOST and self.endings.from_client(flow, arrival, now):
            return
        if flow.successor is not None and now - flow.successor.seen > SUCCESSOR_LIFE:
            self.handshakes.pass_held(flow.successor)
            flow.successor = None
            self.table.refresh(flow)
        if flags & SYN and not flags & (ACK | RST):
            half_open = flow.state is State.HALF and not self.table.promoted
            if half_open and flow.challenged >= 0 and seg.seq == flow.client_isn:
                self.handshakes.reset_forgotten(flow, arrival)
            self.handshakes.client_syn(flow, arrival, now)
            if flow.pace is None or not flow.pace.queue:
                self.out.to_guest.append(arrival.frame)
            else:
                # What the client has sent on the present connection goes first.
                self.established.from_client(flow, arrival, now)
        elif flow.successor is not None and belongs_to_successor(flow, seg):
            self.handshakes.client_half_open(flow.successor, arrival, now)
        elif flow.state is State.HALF:
            self.handshakes.client_half_open(flow, arrival, now)
        elif (
            flow.state is State.CLOSED
            and flags & (SYN | ACK | RST) == SYN | ACK
            and seg.seq != flow.client_isn
            and not self.table.promoted
        ):
            # The guest opens again on the same ports, and the answer is here before the guest's own SYN.
            self.handshakes.client_half_open(self.handshakes.succeed(flow, None, now), arrival, now)
        else:
            self.established.from_client(flow, arrival, now)

    def _first_from_client(self, key: bytes, seg: Segment, now: float) -> Flow | None:
        """The new connection of a client's segment; None when the segment begins none."""
        flags = seg.flags
        opening = flags & SYN and not flags & RST
        # RST/ACK with sequence number 0 answers a SYN (RFC 9293 §3.10.7.1), here one of the primary
        # guest that the secondary guest is about to send as well.
        refused = flags & (SYN | RST | ACK) == RST | ACK and seg.seq == 0
        if self.table.promoted or not (opening or refused):
            if not flags & (SYN | RST):
                self.counters["frames_untracked"] += 1
            return None
        return self.handshakes.open(key, opposite(key), now)

    def from_guest(self, arrival: Arrival, now: float) -> None:
        """Handle a TCP segment of the secondary guest; client frames that waited for it leave as well."""
        frame, seg = arrival.frame, arrival.segment
        flags = seg.flags
        flow = self.table.by_guest.get(arrival.key)
        if flow is not None and flow.fate >= Fate.LOST:
            if self.endings.from_guest(flow, arrival, now):
                return
            flow = self.table.by_guest.get(arrival.key)
        if flags & SYN and not flags & RST:
            flow = self.handshakes.guest_syn(flow, arrival, now)
        elif flow is None:
            if not flags & RST:
                self.counters["frames_untracked"] += 1
        else:
            self.table.touch(flow, now)
        if flow is None:
            self.out.to_client.append(frame)
            return
        if not flags & RST:
            flow.last_guest = (frame[: seg.data], arrival.l4, seg.end - seg.data)
        if flow.state is State.HALF:
            self.handshakes.guest_half_open(flow, arrival)
        elif flags & (RST | ACK) == RST | ACK and seg.seq == 0:
            # The answer to a segment without ACK for which no connection exists: no number of ours.
            self.out.to_client.append(frame)
        else:
            self.established.from_guest(flow, arrival, now)
            if flow.held:
                self.handshakes.release(flow, now)
            if flow.paced:
                self.established.proceed(flow, now)

    # -- time and control -----------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Let go what waited too long, and forget what was idle too long."""
        for flow in self.waiting.timer.overdue(now):
            self.handshakes.end_hold(flow)
        self.established.tick(now)
        due = self.table.deadline()
        if due is not None and due <= now:
            for flow in self.table.expire(now):
                self.counters["flows_expired"] += 1
                self.handshakes.pass_all_held(flow)

    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        parts = (self.waiting.timer, self.pacing.timer, self.table, self.endings)
        due = [part.deadline() for part in parts]
        return min((when for when in due if when is not None), default=None)

    def pass_everything(self, now: float) -> None:
        """Let every held frame go as it is."""
        for flow in self.pacing.timer.flows():
            self.established.flush(flow, now)
        for flow in self.waiting.timer.flows():
            self.handshakes.end_hold(flow)

    def pace(self, *, on: bool) -> None:
        """From now on the primary's frames do not wait for this guest (`on`), or do again.

        Where they did not, the client stays ahead until the guest has caught up. When that is cannot be seen from here
        (the client's ACK may be lost), so its segments wait for the guest for as long as the connection lasts.
        """
        self.pacing.on = on
        # Its SYN/ACK is waited for as long as its bytes.
        self.waiting.widen(PROGRESS_TIMEOUT, on=on)
        if on:
            for flow in self.table:
                flow.paced = True
                if flow.successor is not None:
                    flow.successor.paced = True
                self.table.refresh(flow)

    def stop_pacing(self, now: float) -> None:
        """Nobody compares this guest with the primary any more, so nothing waits for it."""
        self.pace(on=False)
        for flow in self.table:
            self.established.flush(flow, now)
            for one in (flow, flow.successor):
                if one is not None:
                    one.pace, one.paced = None, False
            self.table.refresh(flow)

    def promote(self, now: float, *, on: bool, replica: bool = True) -> None:
        """Use the client LAN (or no longer): from then on no timestamp may fall behind what the client has echoed."""
        if on:
            self.stop_pacing(now)
        self.table.promoted = on
        if on:
            self.endings.promote(now, replica=replica)
        elif self.table.roles_change:
            self.endings.demote()
        for flow in self.table:
            flow.own = False
            if on and flow.last_client is not None:
                header, l4 = flow.last_client
                stamps = timestamps(header, l4, len(header))
                if stamps is not None and stamps[1]:
                    note_echo(flow, stamps[1])
            self.table.refresh(flow)

    def state_copied(self) -> None:
        """The guest became the primary's copy: it uses the primary's numbers, half-open connections included."""
        for flow in list(self.table):
            if flow.state is State.HALF:
                # The copy is in the primary's handshake, and the client's frames fit as they are; or it
                # has never seen this SYN, and a repeated one will teach new numbers.
                flow.isn_primary = flow.ts_primary = flow.isn_secondary = flow.ts_secondary = None
                flow.acks_syn_data = False
                flow.predecessor = None
                self.handshakes.end_hold(flow)
                continue
            self.handshakes.pass_all_held(flow)
            flow.successor = None
            if flow.last_guest is not None:
                header, l4, length = flow.last_guest
                flow.last_guest = (bytes(toward_client(header, l4, len(header), flow, False)), l4, length)
            # How far the copy has come it has not said yet, but no client is ahead of the primary.
            flow.pace, flow.paced = self.pacing.caught_up(flow) if self.pacing.on else None, self.pacing.on
            if flow.guest_fin is not None:
                flow.guest_fin = (flow.guest_fin - flow.offset) & MASK
            flow.isn_secondary, flow.ts_secondary = flow.isn_primary, flow.ts_primary
            flow.offset = flow.ts_offset = 0
            self.table.refresh(flow)
