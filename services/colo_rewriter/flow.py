"""Tracked connections: what is known of each, and the bounded table that holds them.

::

              SYN, SYN/ACK of either side         both initial numbers known
    (none) ------------------------------> HALF ---------------------------> OPEN
                                            ^                                  | FIN of either side
                                            | SYN of a new connection          v
                                          CLOSED <----------------------- CLOSING
                                             both FINs acknowledged, or RST (also from OPEN)

Each state waits in one queue ordered by last use, so expiry and eviction look only at a queue's head.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from colo_proto.net import flow as flows
from colo_proto.net.craft import Connection, Ethernet, vlan_tags
from colo_proto.net.packet import PROTO_TCP
from colo_proto.net.tcp import Segment

_MASK: Final = 0xFFFFFFFF
_HALF: Final = 0x80000000
_GAPS: Final = 64
"""Pieces kept in mind behind a hole in what a guest sent."""

SLOW, PLAIN, SHIFT, PACED = range(4)
"""What the fast path may do with a segment without SYN, FIN, RST: nothing, pass it, shift it, see whether it may go."""


class State(IntEnum):
    """Where a connection stands, as far as the rewriter must know."""

    HALF = 0
    """Not both initial sequence numbers are known; nothing can be shifted."""
    OPEN = 1
    CLOSING = 2
    """At least one side has sent FIN."""
    CLOSED = 3
    """Over (TIME_WAIT, or reset); kept a while for stragglers and retransmissions."""


class Arrival(NamedTuple):
    """A frame with a TCP header at `l4`, read once; `key` as this frame carries it."""

    frame: bytes
    key: bytes
    l4: int
    segment: Segment
    whole: bool
    """False for the first fragment of a larger packet: the segment's end is elsewhere."""


class Pace:
    """How far a guest has come that is not waited for (`pace`), and what waits for it; all numbers are its own."""

    __slots__ = ("acked", "bytes", "edge", "gaps", "hole", "lax", "lost", "queue", "rest", "sent", "told", "una")

    def __init__(self, sent: int, una: int, edge: int) -> None:
        self.sent = self.acked = sent
        """Behind the last byte that it has sent, all before it included; behind the last that was acknowledged to it
        here."""
        self.una = una
        """The next byte of the client that it expects."""
        self.edge = edge
        """The right edge of the window that it offers."""
        self.gaps: list[tuple[int, int]] = []
        """What it sent behind a hole: frames between it and us were lost, and it sends them again."""
        self.lost = False
        """Something more has come from behind a hole."""
        self.queue: deque[Arrival] = deque()
        self.bytes = 0
        self.rest: Arrival | None = None
        """The client's last segment that went with a lowered acknowledgement, up to its payload: the guest has still
        to hear of the rest of it."""
        self.lax = False
        """Waited for too long: the client's segments go at once, so lowered, as far as there is room for them."""
        self.hole = -1
        """Where the client's bytes are that were dropped, for too much waited, and that the guest never gets."""
        self.told = False
        """Compare knows so."""

    def clear(self, seq: int, ack: int, stop: int) -> bool:
        """May a client's segment go at once?"""
        if self.queue or (ack - self.sent - 1) & _MASK < _HALF:
            return False
        if seq != stop and (stop - self.edge - 1) & _MASK < _HALF:
            return False
        if (ack - self.acked) & _MASK < _HALF:
            self.acked = ack
        return True

    def heard(self, seq: int, stop: int, ack: int, window: int, acks: bool) -> None:
        """A segment of the guest."""
        if acks:
            if (ack - self.una) & _MASK < _HALF:
                self.una = ack
            edge = (ack + window) & _MASK
            if (edge - self.edge) & _MASK < _HALF:
                self.edge = edge
        if (stop - self.sent - 1) & _MASK >= _HALF:
            return
        if (seq - self.sent - 1) & _MASK < _HALF:
            if stop != seq and len(self.gaps) < _GAPS:
                self.gaps.append((seq, stop))
                self.lost = True
            return
        self.sent = stop
        while self.gaps:
            before = self.sent
            left = []
            for start, end in self.gaps:
                if (start - self.sent - 1) & _MASK < _HALF:
                    left.append((start, end))
                elif (end - self.sent) & _MASK < _HALF:
                    self.sent = end
            self.gaps = left
            if self.sent == before:
                break


_NOWHERE: OrderedDict["Flow", None] = OrderedDict()


class Flow:
    """One connection. Sequence numbers of the guest are the secondary's own unless said otherwise."""

    __slots__ = (
        "answered", "challenged", "client_fin", "client_fin_acked", "client_isn", "client_scale", "closed_by_reset",
        "early", "echo", "fast", "former", "gave_up", "guest_early", "guest_fin", "guest_fin_acked", "guest_scale",
        "hasty", "heard", "held", "isn_primary", "isn_secondary", "key_client", "key_guest", "last", "lost", "moved",
        "offset", "pace", "queue", "reset_by_guest", "sacks", "seen", "state", "successor", "ts_offset", "ts_primary",
        "ts_secondary",
    )  # fmt: skip

    def __init__(self, key_client: bytes, key_guest: bytes, now: float) -> None:
        self.key_client = key_client
        """Bytes of addresses, ports and tags as a frame of the client carries them."""
        self.key_guest = key_guest
        self.state = State.HALF
        self.fast = SLOW
        self.offset = 0
        """ISN of the secondary minus ISN of the primary, modulo 2^32."""
        self.ts_offset = 0
        """The secondary's timestamp clock minus the primary's, modulo 2^32."""
        self.client_isn: int | None = None
        self.challenged = -1
        """The sequence number that a guest expects which has answered the client's SYN with an ACK of another
        connection; -1 when it has not."""
        self.early = 0
        """Bytes of data on the client's SYN (Fast Open, RFC 7413): the answer may acknowledge any part of them."""
        self.guest_early = 0
        """The same of the guest's last SYN."""
        self.answered = False
        """The primary's number was learned from an answer to the guest's SYN: it counts the data of that."""
        self.client_scale = self.guest_scale = -1
        """Window scales that the SYNs offered; -1 for none."""
        self.sacks = False
        """The guest understands SACK blocks."""
        self.isn_secondary: int | None = None
        self.ts_secondary: int | None = None
        self.isn_primary: int | None = None
        self.ts_primary: int | None = None
        self.echo: int | None = None
        """Highest timestamp of the primary that the client has echoed."""
        self.last: tuple[bytes, int, int] | None = None
        """The guest's last segment, in its own numbers: up to its payload, where its TCP header is, payload bytes."""
        self.heard: tuple[bytes, int] | None = None
        """While numbers are equal: the client's last segment up to its payload, and where its TCP header is."""
        self.client_fin: int | None = None
        """Sequence number after the client's FIN."""
        self.client_fin_acked = False
        self.guest_fin: int | None = None
        self.guest_fin_acked = False
        self.closed_by_reset = False
        self.reset_by_guest = False
        self.moved = now
        """When the state last changed."""
        self.seen = now
        self.queue: OrderedDict[Flow, None] = _NOWHERE
        """The table's queue that it stands in."""
        self.held: list[Arrival] = []
        """Client frames that wait for the guest's SYN or SYN/ACK."""
        self.lost = -1
        """Where the client's bytes are that were dropped behind those, for too much waited (shadow mode)."""
        self.gave_up = False
        """The wait ended without one: later frames pass at once."""
        self.successor: Flow | None = None
        """A new connection on these ports of which only the client has spoken so far: the guest has not taken it."""
        self.former: Flow | None = None
        """While this one is HALF: the connection whose ports it took. The client may not know of it, nor want it."""

        self.hasty = False
        """The primary's frames do not wait for the guest (shadow mode), or did not before: the client may be ahead."""
        self.pace: Pace | None = None
        """How far the guest has come, where its client may be ahead of it."""

    def settle(self) -> None:
        """Compute both offsets: call when both initial sequence numbers are known."""
        assert self.isn_secondary is not None
        assert self.isn_primary is not None
        if self.answered:
            self.isn_primary = (self.isn_primary - self.guest_early) & _MASK
            self.answered = False
        self.offset = (self.isn_secondary - self.isn_primary) & _MASK
        self.former = None
        if self.ts_secondary is not None and self.ts_primary is not None:
            self.ts_offset = (self.ts_secondary - self.ts_primary) & _MASK

    def text(self) -> str:
        """The flow in words, from the guest's point of view."""
        return flows.describe(bytes((PROTO_TCP,)) + self.key_guest)


def sender(key: bytes, src_mac: bytes, dst_mac: bytes) -> Connection:
    """Who sends on the connection `key`, as segments are built from it; VLAN tags included."""
    width = 4 if len(key) < 36 else 16
    ports = 2 * width
    ethernet = Ethernet(src_mac, dst_mac, vlan_tags(key[ports + 4 :]))
    return Connection(ethernet, key[:width], key[width:ports], key[ports : ports + 4])


def opposite(key: bytes) -> bytes:
    """The key of the other direction (keys here lack the protocol byte of `colo_proto.net.flow`)."""
    return flows.reverse(bytes((PROTO_TCP,)) + key)[1:]


class FlowTable:
    """At most `limit` connections, found by either direction's key, expired in constant time each."""

    def __init__(self, limit: int, half_open: float, established: float, closed: float) -> None:
        self.by_client: dict[bytes, Flow] = {}
        self.by_guest: dict[bytes, Flow] = {}
        self.promoted = False
        """After a failover even equal numbers are looked at: the survivor's clock may run behind."""
        self._limit = limit
        self._queues: tuple[OrderedDict[Flow, None], ...] = tuple(OrderedDict() for _ in range(3))
        self._timeouts = (half_open, established, closed)
        self._next_sweep = 0.0

    # CLOSING shares OPEN's queue: a half-closed connection may legitimately last as long as an open one.
    _QUEUE_OF = (0, 1, 1, 2)

    def __len__(self) -> int:
        return len(self.by_client)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.by_client.values())

    def count(self) -> dict[str, int]:
        """Entries by queue: `half_open`, `established` (closing ones too), `closed`."""
        return dict(zip(("half_open", "established", "closed"), map(len, self._queues), strict=True))

    def add(self, flow: Flow) -> Flow | None:
        """Put a new flow in; returns the flow that had to make room, if any."""
        victim = self._victim() if len(self.by_client) >= self._limit else None
        if victim is not None:
            self.remove(victim)
        self.by_client[flow.key_client] = flow
        self.by_guest[flow.key_guest] = flow
        flow.queue = self._queues[self._QUEUE_OF[flow.state]]
        flow.queue[flow] = None
        return victim

    def _victim(self) -> Flow:
        # A flood of SYNs or of short connections must not push out what is established, so those two
        # crowds pay first, the larger one before the other.
        half, established, closed = self._queues
        crowd = max(half, closed, key=len) or established
        return next(iter(crowd))

    def crowded(self) -> Flow | None:
        """The established flow that has to go after another was added to them, if any; the caller removes it.

        A share of the table is left to handshakes. So it is only by finishing one, for which it takes a guest's
        answer and a client who hears it, that a connection can push out an established one.
        """
        established = self._queues[1]
        room = self._limit - (max(self._limit >> 4, 1) if self._limit > 1 else 0)
        return next(iter(established)) if len(established) > room else None

    def touch(self, flow: Flow, now: float) -> None:
        """Note that the flow was used: it moves to the young end of its queue."""
        flow.seen = now
        flow.queue.move_to_end(flow)

    def enter(self, flow: Flow, state: State, now: float) -> None:
        """Change a flow's state, and with it what the fast path may do."""
        del flow.queue[flow]
        flow.state = state
        flow.moved = flow.seen = now
        flow.queue = self._queues[self._QUEUE_OF[state]]
        flow.queue[flow] = None
        self.refresh(flow)

    def refresh(self, flow: Flow) -> None:
        """Set what the fast path may do after offsets or the successor changed."""
        if flow.state is not State.OPEN or flow.successor is not None:
            flow.fast = SLOW
        elif (flow.hasty or flow.pace is not None) and not self.promoted:
            flow.fast = PACED
        else:
            flow.fast = SHIFT if flow.offset or flow.ts_offset or self.promoted else PLAIN

    def remove(self, flow: Flow) -> None:
        """Forget a flow."""
        del flow.queue[flow]
        del self.by_client[flow.key_client]
        del self.by_guest[flow.key_guest]

    def expire(self, now: float) -> list[Flow]:
        """Take out and return every flow that was idle for its state's time."""
        gone: list[Flow] = []
        for queue, timeout in zip(self._queues, self._timeouts, strict=True):
            while queue:
                flow = next(iter(queue))
                if flow.seen + timeout > now:
                    break
                self.remove(flow)
                gone.append(flow)
        # At most one sweep a second, so that many idle flows do not mean as many timers.
        self._next_sweep = now + 1.0
        return gone

    def deadline(self) -> float | None:
        """When `expire` has something to do, or None for an empty table."""
        due = [next(iter(q)).seen + timeout for q, timeout in zip(self._queues, self._timeouts, strict=True) if q]
        return max(min(due), self._next_sweep) if due else None
