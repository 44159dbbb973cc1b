"""Connections whose offsets are known: shifts their segments, holds them where needed, and follows their close."""

from collections import Counter
from typing import Final

from colo_proto.net.tcp import ACK, FIN, RST
from colo_proto.seq import MASK, diff
from colo_rewriter.acceptance import accepts_fin, accepts_reset
from colo_rewriter.flow import Arrival, Flow, FlowTable, Outbox, State
from colo_rewriter.pace import Pacing
from colo_rewriter.shift import toward_client, toward_guest

RESET_IGNORED: Final = 2.0
"""Seconds after a reset from which a guest that still sends has evidently not accepted it."""


class Established:
    """See the module. What leaves goes to `out`."""

    def __init__(self, table: FlowTable, out: Outbox, counters: Counter[str]) -> None:
        self.table = table
        self.out = out
        self.counters = counters
        self.pacing = Pacing(counters)

    def from_client(self, flow: Flow, arrival: Arrival, now: float) -> None:
        """A segment of the client; it waits if the guest could not accept it yet."""
        if flow.paced:
            self._pass(flow, self.pacing.admit(flow, arrival, now), now)
        else:
            self._to_guest(flow, arrival, now)

    def _to_guest(self, flow: Flow, arrival: Arrival, now: float) -> None:
        seg = arrival.segment
        flags = seg.flags
        if self.table.shifts(flow):
            self.counters["rewritten"] += 1
            self.out.to_guest.append(toward_guest(arrival.frame, arrival.l4, seg.data, flags, flow))
        else:
            flow.last_client = (arrival.frame[: seg.data], arrival.l4)
            self.out.to_guest.append(arrival.frame)
        after = (seg.seq + seg.length) & MASK
        if flags & RST:
            accepted = accepts_reset(flow, seg.seq)
            if self.pacing.on and (accepted or accepts_fin(flow, seg.seq + 1)):
                self.out.notes += self.pacing.reset_note(flow)
            if accepted:
                flow.closed_by_reset = True
                self.table.enter(flow, State.CLOSED, now)
            return
        if flags & FIN and arrival.whole and accepts_fin(flow, after):
            flow.client_fin = after
            flow.client_fin_acked = False
            if flow.state is State.OPEN:
                self.table.enter(flow, State.CLOSING, now)
        if flags & ACK and flow.guest_fin is not None and diff(seg.ack + flow.offset, flow.guest_fin) >= 0:
            flow.guest_fin_acked = True
            self._close_if_over(flow, now)

    def from_guest(self, flow: Flow, arrival: Arrival, now: float) -> None:
        """A segment of the guest."""
        frame, seg = arrival.frame, arrival.segment
        flags = seg.flags
        if self.table.shifts(flow):
            self.counters["rewritten"] += 1
            self.out.to_client.append(toward_client(frame, arrival.l4, seg.data, flow, self.table.promoted))
        else:
            self.out.to_client.append(frame)
        if flags & RST:
            flow.closed_by_reset = flow.reset_by_guest = True
            self.table.enter(flow, State.CLOSED, now)
            return
        if flow.closed_by_reset and now - flow.state_since > RESET_IGNORED:
            flow.closed_by_reset = flow.reset_by_guest = False
            closing = flow.client_fin is not None or flow.guest_fin is not None
            self.table.enter(flow, State.CLOSING if closing else State.OPEN, now)
        if flags & FIN and arrival.whole:
            flow.guest_fin = (seg.seq + seg.length) & MASK
            if flow.state is State.OPEN:
                self.table.enter(flow, State.CLOSING, now)
        if flags & ACK and flow.client_fin is not None and diff(seg.ack, flow.client_fin) >= 0:
            flow.client_fin_acked = True
            self._close_if_over(flow, now)
        if flow.paced:
            self.pacing.heard(flow, seg)

    def _close_if_over(self, flow: Flow, now: float) -> None:
        if flow.guest_fin_acked and flow.client_fin_acked and flow.state is not State.CLOSED:
            self.table.enter(flow, State.CLOSED, now)

    # -- segments that wait for the guest -------------------------------------------------------

    def proceed(self, flow: Flow, now: float) -> None:
        """The guest has sent more: what waited for that may go."""
        self._pass(flow, self.pacing.ready(flow, now), now)

    def _pass(self, flow: Flow, arrivals: list[Arrival], now: float) -> None:
        for arrival in arrivals:
            self._to_guest(flow, arrival, now)
        self._note_overrun(flow, now)

    def _note_overrun(self, flow: Flow, now: float) -> None:
        """Tell compare when the guest has come to a dropped segment of its client: it cannot follow any more."""
        pace = flow.pace
        if pace is None or pace.dropped_at < 0 or pace.overrun_noted:
            return
        past = diff(pace.rcv_nxt, pace.dropped_at)
        if past > 0:
            # The primary did not take it either, and the client has sent it again.
            pace.dropped_at = -1
        elif past == 0:
            pace.overrun_noted = True
            if self.pacing.on:
                self.out.notes += self.pacing.overrun_note(flow)
            self.flush(flow, now)

    def flush(self, flow: Flow, now: float) -> None:
        """Everything that waits for the guest goes."""
        for arrival in self.pacing.flush(flow):
            self._to_guest(flow, arrival, now)

    def flush_forgotten(self, flow: Flow) -> None:
        """The same for a connection that is in no table any more, or whose numbers are about to change."""
        for arrival in self.pacing.flush(flow):
            seg = arrival.segment
            self.out.to_guest.append(toward_guest(arrival.frame, arrival.l4, seg.data, seg.flags, flow))

    def tick(self, now: float) -> None:
        """Let go what waited too long."""
        for flow in self.pacing.timer.overdue(now):
            self._pass(flow, self.pacing.lower_overdue(flow, now), now)
