"""Ends connections that cannot be continued: at both ends after a failover, and before it in the guest alone.

Compare knows which connections are unprotected, and tells (`Unprotected`). As long as the primary serves their clients,
such a connection goes on here, too, because what a client sends may also matter to what this guest keeps for others.
There are two exceptions:

* The client has sent FIN or RST, or the guest sends, and the client says no more: the guest alone still has the
  connection. This is left of what a mirror link replays when the hosts hear each other again. The guest is reset.
* The client opens another connection on the same ports. The guest is reset first, so that it takes the new one.

With the promotion all of them end. A reset needs exactly the number that its receiver expects (RFC 5961 §3.2)::

    a segment of the client  -->  dropped, and the client gets   RST, seq = SEG.ACK     (RFC 9293 §3.10.7.1)
    a segment of the guest   -->  dropped, and the guest gets    RST, seq = SEG.ACK
    an end that is silent    -->  RST with the number that it has acknowledged last, and a probe: a segment from far
                                  before its window, which it answers with an ACK if it has moved on (§3.10.7.4)

So no byte of such a connection reaches a client from this guest. A RST is never answered.
"""

from collections import Counter
from operator import itemgetter
from typing import Final

from colo_proto.messages import JOINING, Unprotected
from colo_proto.net.tcp import ACK, RST, SYN, timestamps_at
from colo_proto.seq import MASK, diff
from colo_rewriter.acceptance import rcv_nxt
from colo_rewriter.backoff import REVIVE_AT
from colo_rewriter.flow import Arrival, Fate, Flow, FlowTable, Outbox, State, sender
from colo_rewriter.pace import Pacing
from colo_rewriter.shift import toward_client
from colo_rewriter.timer import Timer
from colo_rewriter.waiting import Waiting

CLIENT_GONE: Final = 1.0
"""Seconds of silence after a client's FIN or RST, after which it has nothing to say any more."""
CLIENT_SILENT: Final = 5.0
"""Seconds for which a client answers nothing that the guest sends, after which it does not have the connection."""
FAR: Final = 1 << 24
"""Bytes by which a probe lies before what its receiver has acknowledged: before every window, and within the half of
all numbers that counts as before."""
AT_ONCE: Final = 4096
"""Connections whose ends are told in one go; the next ones follow `PAUSE` seconds later."""
PAUSE: Final = 0.02
MAX_SOURCES: Final = 256
"""Sources of `Unprotected` that are remembered."""


class Endings:
    """See the module. What leaves goes to `out`."""

    def __init__(self, table: FlowTable, waiting: Waiting, pacing: Pacing, out: Outbox, counters: Counter[str]) -> None:
        self.table = table
        self.waiting = waiting
        self.pacing = pacing
        self.out = out
        self.counters = counters
        self.told: dict[str, int] = {}
        """By source, the version of the last `Unprotected`; -1 when one is missing."""
        self._joined_at = float("-inf")
        """Until when a new connection is taken for one of before the resync."""
        self._gone = Timer(CLIENT_GONE)
        self._silent = Timer(CLIENT_SILENT)
        self._rounds: list[tuple[float, list[Flow]]] = []
        """After a promotion: when the ends of which connections are told next."""

    # -- which ones -------------------------------------------------------------------------------

    def hear(self, message: Unprotected, now: float) -> None:
        """Compare, or the COLO frame, says which connections are unprotected.

        After a promotion nobody compares any more. A primary that stood still, and runs again, finds that the secondary
        answers nothing: what it says then is not about the connections that are served here.
        """
        before = self.told.get(message.source, 0)
        follows = message.again or message.everything or message.version == before + 1
        if message.source in self.told or len(self.told) < MAX_SOURCES:
            self.told[message.source] = message.version if follows else -1
        if self.table.promoted:
            return
        if message.everything:
            self._joined_at = now + JOINING
            for flow in list(self.table):
                self._mark(flow, Fate.LOST, now)
                if flow.successor is not None:
                    flow.successor.fate = Fate.LOST
        for keys, fate in (
            (message.lost, Fate.LOST), (message.doubtful, Fate.DOUBTFUL), (message.kept, Fate.PROTECTED),
        ):  # fmt: skip
            for key in keys:
                # Keys in this package lack the byte of the protocol.
                found = self.table.by_guest.get(key[1:])
                if found is not None and found.fate < Fate.ENDED and (found.fate < fate or fate is Fate.PROTECTED):
                    self._mark(found, fate, now)

    def begins(self, flow: Flow, now: float) -> None:
        """A new connection."""
        if now < self._joined_at and not flow.own:
            flow.fate = Fate.LOST

    def checkpoint(self, now: float, *, copied: bool) -> None:
        """A checkpoint is done: what waited for it is lost if it copied no state, and nothing is lost if it did."""
        for flow in list(self.table):
            if copied and flow.fate < Fate.ENDED:
                self._mark(flow, Fate.PROTECTED, now)
            elif flow.fate is Fate.DOUBTFUL:
                self._mark(flow, Fate.LOST, now)
        if copied:
            self._joined_at = float("-inf")

    def _mark(self, flow: Flow, fate: Fate, now: float) -> None:
        flow.fate = fate
        self.table.refresh(flow)
        if fate is Fate.LOST and flow.state is not State.CLOSED:
            if flow.client_over:
                self._gone.start(flow, now)
            elif flow.state is State.HALF and flow.last_guest is not None:
                self._silent.start(flow, now)

    def count(self) -> int:
        """Connections that a failover could not continue."""
        return sum(flow.fate is Fate.LOST for flow in self.table)

    # -- segments of such connections -------------------------------------------------------------

    def from_client(self, flow: Flow, arrival: Arrival, now: float) -> bool:
        """A segment of the client. True when it goes no further."""
        seg = arrival.segment
        flags = seg.flags
        if flags & (SYN | ACK | RST) == SYN:
            return self._client_opens(flow, arrival)
        if flow.fate is Fate.LOST:
            if flags & ACK:
                flow.client_ack = seg.ack
            self._silent.stop(flow)
            if flow.client_over:
                self._gone.start(flow, now)
            return False
        self.counters["dropped.unprotected"] += 1
        if flags & RST:
            flow.fate = Fate.OVER
        elif self.table.promoted and flags & ACK:
            self._made(self.out.to_client, _answer(flow.key_guest, arrival))
        return True

    def _client_opens(self, flow: Flow, arrival: Arrival) -> bool:
        """The client's SYN: if it opens another connection, the guest must not have the old one any more."""
        if flow.fate is Fate.LOST and flow.client_isn in {None, arrival.segment.seq}:
            return False
        if flow.last_guest is not None and flow.state is not State.CLOSED:
            self._tell_guest(flow)
        flow.again = arrival.frame if flow.fate is Fate.LOST else b""
        if self.table.promoted:
            # From now on a new connection needs nothing of us.
            self.table.remove(flow)
            self.out.to_guest.append(arrival.frame)
            return True
        return False

    def from_guest(self, flow: Flow, arrival: Arrival, now: float) -> bool:
        """A segment of the guest, if it is none that opens another connection. True when it goes no further."""
        seg = arrival.segment
        flags = seg.flags
        if flow.fate is Fate.LOST:
            if flow.again and flags & (SYN | RST | ACK) == ACK:
                # It did not accept the reset, and refuses the SYN that followed (RFC 5961 §4).
                self._made(self.out.to_guest, _answer(flow.key_client, arrival), flow.again)
                flow.again = b""
                self.counters["dropped.unprotected"] += 1
                return True
            self._watch(flow, seg.length, (seg.seq + seg.length) & MASK, now)
            return False
        if flags & SYN and not flags & RST and (not flags & ACK or flow.successor is not None):
            if not self.table.promoted:
                return False
            self.table.remove(flow)
            if self.table.roles_change:
                return False
            self.out.to_client.append(arrival.frame)
            return True
        self.table.touch(flow, now)
        self.counters["dropped.unprotected"] += 1
        if flags & (ACK | RST) == ACK:
            self._made(self.out.to_guest, _answer(flow.key_client, arrival))
        return True

    def _watch(self, flow: Flow, length: int, end: int, now: float) -> None:
        """The guest sends something (up to `end`) that its client has to answer, if there is one."""
        if not length or self.table.promoted:
            return
        if flow.client_over and flow not in self._gone:
            self._gone.start(flow, now)
        heard = flow.client_ack >= 0 and diff(flow.client_ack + flow.offset, end) >= 0
        if not heard and flow not in self._silent:
            self._silent.start(flow, now)

    # -- both ends --------------------------------------------------------------------------------

    def promote(self, now: float, *, replica: bool) -> None:
        """From now on this guest serves the clients. Without `replica` it can continue no connection."""
        ended = [flow for flow in list(self.table) if flow.fate is Fate.LOST or not replica]
        for timer in (self._gone, self._silent):
            for flow in timer.flows():
                timer.stop(flow)
        opened = [flow for flow in ended if flow.state is not State.CLOSED]
        for flow in ended:
            self._end(flow, now)
        for flow in self.table:
            if flow.fate is Fate.DOUBTFUL:
                # Its client has seen nothing that this guest has not sent.
                flow.fate = Fate.PROTECTED
        self.counters["connections_reset"] += len(opened)
        parts = [opened[at : at + AT_ONCE] for at in range(0, len(opened), AT_ONCE)]
        rounds = [(now + after + number * PAUSE, part) for after in REVIVE_AT for number, part in enumerate(parts)]
        self._rounds = sorted(rounds, key=itemgetter(0))

    def demote(self) -> None:
        """The other guest serves the clients now, and this one has every connection that it has served until now. What
        compares say of them from now on begins anew.
        """
        self.told.clear()
        self._joined_at = float("-inf")
        self._rounds = []
        for flow in self.table:
            if flow.fate < Fate.ENDED:
                flow.fate = Fate.PROTECTED

    def _end(self, flow: Flow, now: float) -> None:
        """The guest is told that the connection is over."""
        frames = self.waiting.take(flow) + self.pacing.flush(flow)
        if flow.successor is not None:
            frames += self.waiting.take(flow.successor)
            flow.successor = None
        self.counters["dropped.unprotected"] += len(frames)
        if flow.last_guest is not None and flow.state is not State.CLOSED:
            self._tell_guest(flow)
        flow.fate = Fate.ENDED
        self.table.enter(flow, State.CLOSED, now)

    def _tell_guest(self, flow: Flow) -> None:
        assert flow.last_guest is not None
        header, l4, _ = flow.last_guest
        number = rcv_nxt(flow)
        if number is None:
            return
        client = sender(flow.key_client, header[10:16], header[16:22])
        at = timestamps_at(header, l4, len(header))
        # What the guest has echoed last is not older than what it has seen.
        stamps = b"" if at is None else b"\1\1\x08\x0a" + header[at + 4 : at + 8] + header[at : at + 4]
        last = flow.last_segment()
        probe = client.tcp((number - FAR) & MASK, last.seq if last is not None else 0, ACK, 0, stamps)
        self._made(self.out.to_guest, client.tcp(number, 0, RST), probe)

    def _tell_client(self, flow: Flow) -> None:
        last = flow.last_segment()
        here = flow.fate is Fate.ENDED and self.table.by_client.get(flow.key_client) is flow
        if flow.last_guest is None or last is None or not here:
            return
        header, l4, _ = flow.last_guest
        guest = sender(flow.key_guest, header[16:22], header[10:16])
        number = flow.client_ack if flow.client_ack >= 0 else (last.seq - flow.offset) & MASK
        at = timestamps_at(header, l4, len(header))
        stamps = b"" if at is None else b"\1\1" + header[at - 2 : at + 8]
        probe = guest.tcp((number + flow.offset - FAR) & MASK, last.ack, ACK, 0, stamps)
        shifted = toward_client(probe, len(probe) - 20 - len(stamps), len(probe), flow, True)
        self._made(self.out.to_client, guest.tcp(number, 0, RST), shifted)

    def _made(self, queue: list[bytes | bytearray], *frames: bytes | bytearray) -> None:
        self.counters["resets_made"] += len(frames)
        queue += frames

    # -- time -------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Tell the next ends, and reset the guest where the client has gone."""
        while self._rounds and self._rounds[0][0] <= now:
            for flow in self._rounds.pop(0)[1]:
                self._tell_client(flow)
        for timer in (self._gone, self._silent):
            for flow in timer.overdue(now):
                timer.stop(flow)
                if self.table.by_client.get(flow.key_client) is not flow or flow.fate is not Fate.LOST:
                    continue
                last = flow.last_segment()
                if timer is self._gone and flow.client_fin_acked and last is not None and not last.length:
                    # The guest has taken the FIN, and owes the client an answer (or has nothing to say either).
                    continue
                self.counters["guest_resets"] += 1
                self._end(flow, now)

    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        due = (self._rounds[0][0] if self._rounds else None, self._gone.deadline(), self._silent.deadline())
        return min((when for when in due if when is not None), default=None)


def _answer(key: bytes, arrival: Arrival) -> bytes:
    """The RST that answers a segment with ACK, from the one who sends with `key`."""
    frame = arrival.frame
    return sender(key, frame[10:16], frame[16:22]).tcp(arrival.segment.ack, 0, RST)
